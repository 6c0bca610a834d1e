"""Data sets, sampler and loader: random clips that a resumed run draws again."""

import pickle

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import Checkpointer
from torch.utils.data import BatchSampler, DataLoader

from ms_sincresnet.data.dataset import (
    CACHES,
    PassSampler,
    RandomClipDataset,
    genre_datasets,
)
from ms_sincresnet.errors import HparamError, UserError

CLIP_SAMPLES = 500
N_TRACKS = 5
TRACK_SAMPLES = 6000


@pytest.fixture
def tracks(tmp_path):
    """A manifest's data; sample n of track t is (6000 t + n) / 32768."""
    data = {}
    for track in range(N_TRACKS):
        pcm = np.arange(TRACK_SAMPLES, dtype=np.int16) + track * TRACK_SAMPLES
        path = str(tmp_path / f"{track}.wav")
        soundfile.write(path, pcm, 16000)
        genre = f"g{(track + 1) % 2}"
        row = {"wav": path, "duration": TRACK_SAMPLES / 16000, "genre": genre}
        data[f"t{track}"] = row
    return data


def clips_of(tracks, **options):
    options = {"clip_samples": CLIP_SAMPLES, "seed": 7, "cache": "disk", **options}
    return RandomClipDataset(tracks, **options)


@pytest.fixture(params=CACHES)
def dataset(tracks, request):
    return clips_of(tracks, cache=request.param)


def first_sample(item):
    """Start of a clip in its track, after checking that it is a piece of it."""
    numbers = (item["clip"] * 32768).long()
    track, start = divmod(int(numbers[0]), TRACK_SAMPLES)
    assert item["id"] == f"t{track}"
    assert numbers.tolist() == list(range(int(numbers[0]), int(numbers[0]) + 500))
    return start


def test_a_clip_is_a_piece_of_its_track(dataset):
    starts = [first_sample(dataset[index]) for index in range(500)]
    assert [dataset[index]["id"] for index in (0, 4, 5, 23)] == ["t0", "t4", "t0", "t3"]
    assert min(starts) < 100
    assert max(starts) > TRACK_SAMPLES - CLIP_SAMPLES - 100
    # one draw for each index
    drawn = [np.random.default_rng([7, i]).integers(5501) for i in range(500)]
    assert starts == drawn


def test_each_track_comes_once_also_after_its_files_are_lost(tracks, tmp_path):
    disk, memory = clips_of(tracks), clips_of(tracks, cache="memory")
    expected = list(disk)
    assert [item["id"] for item in expected] == ["t0", "t1", "t2", "t3", "t4"]
    assert len(disk) == N_TRACKS
    other = clips_of(tracks, seed=8)
    assert list(map(first_sample, other)) != list(map(first_sample, expected))
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    loader = DataLoader(memory, batch_size=None, num_workers=1)
    for item, same in zip(loader, expected, strict=True):
        assert torch.equal(item["clip"], same["clip"])


@pytest.mark.parametrize("cache", CACHES)
def test_silent_clips_are_drawn_again(tmp_path, cache):
    pcm = np.zeros(16000, np.int16)
    tracks = {}
    for name in ("silent", "half"):
        soundfile.write(tmp_path / f"{name}.wav", pcm, 16000)
        tracks[name] = {"wav": str(tmp_path / f"{name}.wav"), "duration": 1.0}
        pcm[:8000] = np.random.default_rng(0).integers(-2, 3, 8000)  # not quite silent
    dataset = clips_of(tracks, cache=cache)
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


def expected_draws(dataset, sampler, epoch):
    """ID and first sample of the clips of an epoch, from the data set one by one."""
    sampler.set_epoch(epoch)
    return [(dataset[i]["id"], float(dataset[i]["clip"][0])) for i in sampler]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_resumed_inside_an_epoch_draws_the_rest_of_it(
    tracks, tmp_path, num_workers
):
    dataset, sampler = clips_of(tracks), PassSampler(N_TRACKS, n_passes=4, seed=1)
    options = {"sampler": sampler, "batch_size": 4, "num_workers": num_workers}
    expected = expected_draws(dataset, sampler, epoch=3)
    loaders = [SaveableDataLoader(dataset, **options) for _ in range(2)]
    first, second = (Checkpointer(tmp_path / "save", {"loader": x}) for x in loaders)
    batches = iter(loaders[0])
    drawn = [next(batches), next(batches)]
    first.save_checkpoint(end_of_epoch=False)
    second.recover_if_possible()
    drawn += loaders[1]
    assert sum((batch["id"] for batch in drawn), []) == [name for name, _ in expected]
    starts = torch.cat([batch["clip"][:, 0] for batch in drawn]).tolist()
    assert starts == [start for _, start in expected]
    assert len(drawn) == 5


def steps_of(n_tracks, batch_size, **share):
    """The indices of each step of an epoch, in one of the processes."""
    sampler = PassSampler(n_tracks, n_passes=3, seed=1, batch_size=batch_size, **share)
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
def test_steps_of_processes_have_the_clips_of_one_process(
    n_tracks, n_processes, n_dropped
):
    by_process = [
        steps_of(n_tracks, 2, rank=rank, n_processes=n_processes)
        for rank in range(n_processes)
    ]
    together = [sorted(sum(step, [])) for step in zip(*by_process, strict=True)]
    alone = [sorted(step) for step in steps_of(n_tracks, 2 * n_processes)]
    if n_dropped:
        assert len(alone.pop()) == n_dropped < n_processes
    assert together == alone


@pytest.fixture
def folder(tracks, tmp_path):
    """The three manifests of the tracks, beside their cache."""
    table = pd.DataFrame(tracks.values(), index=pd.Index(tracks, name="ID"))
    table["wav"] = table.wav.str.replace(str(tmp_path), "$data_root", regex=False)
    for part in ("train", "valid", "test"):
        table.to_csv(tmp_path / f"{part}.csv", columns=["duration", "wav", "genre"])
    return tmp_path


def build(folder, n_genres=2, **options):
    options = {"n_genres": n_genres, "clip_samples": 160, "seed": 5, **options}
    return genre_datasets(folder, folder, **options)


def test_songs_are_whole_and_genres_alphabetical(folder):
    datasets, encoder = build(folder)
    item = datasets["test"][1]
    assert item["id"] == "t1"
    assert item["genre_encoded"].tolist() == [0], "g0 before g1"
    torch.testing.assert_close(item["song"], torch.arange(6000, 12000) / 2**15)
    assert encoder.decode_torch(torch.tensor([0, 1])) == ["g0", "g1"]


@pytest.mark.parametrize("cache", CACHES)
def test_data_sets_can_be_sent_to_spawned_workers(folder, cache):
    datasets, _ = build(folder, cache=cache)
    for part, key in [("train", "clip"), ("valid", "song"), ("test", "song")]:
        item, copied = datasets[part][1], pickle.loads(pickle.dumps(datasets[part]))[1]
        assert torch.equal(item[key], copied[key])
        assert item["genre_encoded"] == copied["genre_encoded"]


def test_unusable_options_are_refused(folder):
    with pytest.raises(HparamError, match="cache must be disk or memory; got 'ram'"):
        build(folder, cache="ram")
    with pytest.raises(HparamError, match=r"n_genres is 10.*--n_genres=2"):
        build(folder, n_genres=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("", "a track lacks its duration, path or genre"),
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


def test_clips_of_a_grid_and_their_teacher(tracks, tmp_path):
    starts = {
        first_sample(item)
        for item in map(clips_of(tracks, grid=1100).__getitem__, range(60))
    }
    assert starts == {0, 1100, 2200, 3300, 4400, 5500}  # the last one that fits
    rows = [f"{t},{d['duration']},{d['wav']},{d['genre']}" for t, d in tracks.items()]
    for part, lines in {"train": rows, "valid": [], "test": []}.items():
        text = "\n".join(["ID,duration,wav,genre", *lines, ""])
        (tmp_path / f"{part}.csv").write_text(text)
    options = {"n_genres": 2, "clip_samples": CLIP_SAMPLES, "seed": 7}
    datasets, _ = genre_datasets(
        tmp_path, tmp_path, **options, clip_grid=1100, teacher=lambda *clip: clip
    )
    assert datasets.keys() == {"train"}  # nothing to validate or test
    for item in map(datasets["train"].__getitem__, range(9)):
        assert item["teacher"] == (item["id"], first_sample(item))
