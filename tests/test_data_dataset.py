"""Data sets, sampler and loader: random clips that a resumed run draws again."""

import pickle

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import Checkpointer
from torch.utils.data import BatchSampler, DataLoader

from ms_sincresnet.data.dataset import (
    CACHES,
    PassSampler,
    RandomClipDataset,
    genre_datasets,
)
from ms_sincresnet.errors import UserError

CLIP_SAMPLES = 500
N_TRACKS = 5
TRACK_SAMPLES = 6000


@pytest.fixture
def folder(tmp_path):
    """Tracks and their manifests; sample n of track t is (6000 t + n) / 32768."""
    lines = ["ID,duration,wav,genre\n"]
    for track in range(N_TRACKS):
        pcm = np.arange(TRACK_SAMPLES, dtype=np.int16) + track * TRACK_SAMPLES
        soundfile.write(tmp_path / f"{track}.wav", pcm, 16000)
        lines.append(f"t{track},0.375,$data_root/{track}.wav,g{(track + 1) % 2}\n")
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.csv").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def tracks(folder):
    return load_data_csv(folder / "train.csv", {"data_root": folder})


def clips_of(tracks, **options):
    options = {"clip_samples": CLIP_SAMPLES, "seed": 7, "cache": "disk", **options}
    return RandomClipDataset(tracks, **options)


def first_sample(item):
    """Start of a clip in its track, after checking that it is a piece of it."""
    numbers = (item["clip"] * 32768).long()
    track, start = divmod(int(numbers[0]), TRACK_SAMPLES)
    assert item["id"] == f"t{track}"
    assert numbers.tolist() == list(range(int(numbers[0]), int(numbers[0]) + 500))
    return start


def test_a_clip_is_a_piece_of_its_track(tracks):
    dataset = clips_of(tracks)
    starts = [first_sample(dataset[index]) for index in range(500)]
    assert [dataset[index]["id"] for index in (0, 4, 5, 23)] == ["t0", "t4", "t0", "t3"]
    # one draw for each index
    drawn = [np.random.default_rng([7, i]).integers(5501) for i in range(500)]
    assert starts == drawn
    other = clips_of(tracks, seed=8)
    assert list(map(first_sample, other)) != starts[:N_TRACKS]


def test_each_track_comes_once_also_after_its_files_are_lost(tracks, tmp_path):
    disk, memory = clips_of(tracks), clips_of(tracks, cache="memory")
    expected = list(disk)
    assert [item["id"] for item in expected] == ["t0", "t1", "t2", "t3", "t4"]
    assert len(disk) == N_TRACKS
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    loader = DataLoader(memory, batch_size=None, num_workers=1)
    for item, same in zip(loader, expected, strict=True):
        assert torch.equal(item["clip"], same["clip"])


def test_silent_clips_are_drawn_again(tmp_path):
    pcm = np.zeros(16000, np.int16)
    tracks = {}
    for name in ("silent", "half"):
        soundfile.write(tmp_path / f"{name}.wav", pcm, 16000)
        tracks[name] = {"wav": str(tmp_path / f"{name}.wav"), "duration": 1.0}
        pcm[:8000] = np.random.default_rng(0).integers(-2, 3, 8000)  # not quite silent
    dataset = clips_of(tracks)
    n_silent = sum(not dataset[index]["clip"].any() for index in range(1, 601, 2))
    assert n_silent <= 3  # 1 of 1000 after ten draws, 141 of 300 after one
    assert not dataset[0]["clip"].any()


def test_a_pass_is_every_track_once_in_a_fresh_order():
    sampler, other = (PassSampler(n_tracks=50, n_passes=4, seed=n) for n in (3, 4))
    orders = set()
    for epoch in range(3):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert sorted(indices) == list(range(200 * epoch, 200 * (epoch + 1)))
        for nth_pass, order in enumerate(np.array(indices).reshape(4, 50)):
            assert {index // 50 for index in order} == {4 * epoch + nth_pass}
            orders.add(tuple(order % 50))
    assert len(orders) == 12
    assert len(sampler) == 200
    sampler.set_epoch(0)
    assert list(sampler) != list(other)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_draws_the_rest_of_its_epoch(tracks, tmp_path, num_workers):
    dataset, sampler = clips_of(tracks), PassSampler(N_TRACKS, n_passes=4, seed=1)
    options = {"sampler": sampler, "batch_size": 4, "num_workers": num_workers}
    sampler.set_epoch(3)
    expected = [dataset[index] for index in sampler]
    loaders = [SaveableDataLoader(dataset, **options) for _ in range(2)]
    first, second = (Checkpointer(tmp_path / "save", {"loader": x}) for x in loaders)
    batches = iter(loaders[0])
    drawn = [next(batches), next(batches)]
    first.save_checkpoint(end_of_epoch=False)
    second.recover_if_possible()
    drawn += loaders[1]
    assert len(drawn) == 5
    assert sum((batch["id"] for batch in drawn), []) == [x["id"] for x in expected]
    clips = torch.cat([batch["clip"] for batch in drawn])
    assert clips.equal(torch.stack([x["clip"] for x in expected]))


def steps_of(n_tracks, batch_size, **share):
    """The indices of each step of an epoch, in one of the processes."""
    sampler = PassSampler(n_tracks, 3, seed=1, batch_size=batch_size, **share)
    sampler.set_epoch(4)
    steps = list(BatchSampler(sampler, batch_size, drop_last=False))
    assert sum(map(len, steps)) == len(sampler)
    return steps


@pytest.mark.parametrize(
    ("n_tracks", "n_processes", "n_dropped"),
    [
        (9, 2, 0),  # 27 clips: in the last step one process has more than the other
        (10, 8, 0),  # 30: in the last step six processes have 2 clips, two have 1
        (7, 8, 5),  # 21: 5 in the last step, too few
    ],
)
def test_processes_share_the_clips_of_a_step(n_tracks, n_processes, n_dropped):
    by_process = [
        steps_of(n_tracks, 2, rank=rank, n_processes=n_processes)
        for rank in range(n_processes)
    ]
    together = [sorted(sum(step, [])) for step in zip(*by_process, strict=True)]
    alone = [sorted(step) for step in steps_of(n_tracks, 2 * n_processes)]
    if n_dropped:
        assert len(alone.pop()) == n_dropped < n_processes
    assert together == alone


def build(folder, **options):
    options = {"n_genres": 2, "clip_samples": CLIP_SAMPLES, "seed": 5, **options}
    return genre_datasets(folder, folder, **options)


@pytest.mark.parametrize("cache", CACHES)
def test_songs_are_whole_and_genres_alphabetical(folder, cache):
    datasets, encoder = build(folder, cache=cache)
    copies = pickle.loads(pickle.dumps(datasets))  # as for workers that are spawned
    for part in ("valid", "test"):
        item = copies[part][1]
        assert item["id"] == "t1"
        assert item["genre_encoded"].tolist() == [0], "g0 before g1"
        torch.testing.assert_close(item["song"], torch.arange(6000, 12000) / 2**15)
    assert copies["train"][1]["clip"].equal(datasets["train"][1]["clip"])
    assert encoder.decode_torch(torch.tensor([0, 1])) == ["g0", "g1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("ID,duration,wav,genre\na,one,a.wav,jazz\n", "convert string to float: 'one'"),
        ("ID,duration,wav,genre\na,1,,jazz\n", "lacks its duration, path"),
    ],
)
def test_a_damaged_manifest_is_named(folder, text, message):
    path = folder / "train.csv"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        build(folder)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith("Run the preparation again.")


def test_clips_of_a_grid_and_their_teacher(folder):
    for part in ("valid", "test"):
        (folder / f"{part}.csv").write_text("ID,duration,wav,genre\n")
    datasets, _ = build(folder, clip_grid=1100, teacher=lambda *clip: clip)
    assert datasets.keys() == {"train"}  # nothing to validate or test
    items = [datasets["train"][index] for index in range(60)]
    starts = [first_sample(item) for item in items]
    assert {*starts} == {0, 1100, 2200, 3300, 4400, 5500}  # the last one that fits
    clips = [(item["id"], start) for item, start in zip(items, starts, strict=True)]
    assert [item["teacher"] for item in items] == clips
