"""Cutting tracks into clips; random clips that a resumed run draws again."""

import numpy as np
import pytest
import soundfile
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.checkpoints import Checkpointer
from torch.utils.data import BatchSampler

from ms_sincresnet.data.audio import SAMPLE_RATE
from ms_sincresnet.data.clips import (
    PassSampler,
    RandomClipDataset,
    clip_batch,
    clip_loader_options,
    random_clip_start,
    split_clips,
)
from ms_sincresnet.errors import HparamError

CLIP_SAMPLES = 500
N_TRACKS = 5
TRACK_SAMPLES = 6000


@pytest.mark.parametrize(
    ("n_samples", "n_clips"),
    [(480000, 55), (48000, 1), (55999, 1), (56000, 2), (63999, 2), (1, 1)],
)
def test_as_many_clips_as_fit(n_samples, n_clips):
    assert split_clips(torch.zeros(n_samples)).shape == (n_clips, 48000)


def test_clips_start_every_hop_and_are_a_view():
    wav = torch.arange(480000)
    clips = split_clips(wav)
    assert clips[:, 0].tolist() == [8000 * n for n in range(55)]
    assert (clips == clips[:, :1] + torch.arange(48000)).all()
    assert clips.data_ptr() == wav.data_ptr()


def test_clip_and_hop_can_be_chosen():
    clips = split_clips(torch.arange(7), clip_samples=3, hop_samples=2)
    assert clips.tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]


def test_a_short_track_is_repeated_up_to_a_clip():
    clips = split_clips(torch.tensor([1, 2, 3]), clip_samples=8)
    assert clips.tolist() == [[1, 2, 3, 1, 2, 3, 1, 2]]


def test_a_batch_is_cut_track_by_track():
    batch = torch.arange(14).reshape(2, 7)
    clips = split_clips(batch, clip_samples=3, hop_samples=2)
    assert clips.shape == (2, 3, 3)
    assert clips[1].tolist() == [[7, 8, 9], [9, 10, 11], [11, 12, 13]]


def test_no_samples_give_no_clips():
    with pytest.raises(ValueError, match=r"at least one sample .* got \[2, 0\]"):
        split_clips(torch.zeros(2, 0))


def test_each_start_is_as_likely():
    generator = np.random.default_rng(0)
    starts = [random_clip_start(100, 91, generator) for _ in range(5000)]
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10  # 0 to 9: the last clip ends with the track
    # 500 each, with a standard deviation of 21
    assert counts.min() > 400
    assert counts.max() < 600


@pytest.mark.parametrize("n_samples", [1, 90, 91])
def test_a_track_no_longer_than_a_clip_starts_at_its_start(n_samples):
    generator = np.random.default_rng(0)
    assert {random_clip_start(n_samples, 91, generator) for _ in range(20)} == {0}


@pytest.fixture
def manifest(tmp_path):
    """A manifest of tracks in which sample n of track t is (6000 t + n) / 32768."""
    rows = ["ID,duration,wav,genre"]
    for track in range(N_TRACKS):
        pcm = np.arange(TRACK_SAMPLES, dtype=np.int16) + track * TRACK_SAMPLES
        soundfile.write(tmp_path / f"{track}.wav", pcm, SAMPLE_RATE)
        duration_s = TRACK_SAMPLES / SAMPLE_RATE
        rows.append(f"t{track},{duration_s},$data_root/{track}.wav,g{track % 2}")
    path = tmp_path / "train.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def clips_of(manifest, cache):
    """The clips of these tracks."""
    return RandomClipDataset.from_csv(
        manifest,
        {"data_root": manifest.parent},
        clip_samples=CLIP_SAMPLES,
        seed=7,
        cache=cache,
    )


@pytest.fixture(params=["disk", "memory"])
def dataset(manifest, request):
    """The same, from either cache."""
    return clips_of(manifest, request.param)


def first_sample(item):
    """Where in its track a clip begins, after checking that it is a piece of it."""
    numbers = (item["clip"] * 32768).long()
    track, start = divmod(int(numbers[0]), TRACK_SAMPLES)
    assert item["id"] == f"t{track}"
    assert numbers.tolist() == list(range(int(numbers[0]), int(numbers[0]) + 500))
    return start


def test_a_clip_is_a_piece_of_its_track(dataset):
    starts = [first_sample(dataset[index]) for index in range(500)]
    assert [dataset[index]["id"] for index in (0, 4, 5, 23)] == ["t0", "t4", "t0", "t3"]
    assert len(set(starts)) > 450
    assert min(starts) < 100
    assert max(starts) > TRACK_SAMPLES - CLIP_SAMPLES - 100


def test_where_a_clip_starts_depends_on_seed_and_index_alone(dataset, manifest):
    def starts(seed):
        replacements = {"data_root": manifest.parent}
        fresh = RandomClipDataset.from_csv(
            manifest, replacements, clip_samples=CLIP_SAMPLES, seed=seed
        )
        return [first_sample(fresh[index]) for index in reversed(range(50))][::-1]

    expected = [first_sample(dataset[index]) for index in range(50)]
    assert starts(seed=7) == expected
    assert starts(seed=8) != expected


def test_clips_from_memory_are_those_from_disk(manifest):
    disk, memory = clips_of(manifest, "disk"), clips_of(manifest, "memory")
    expected = [disk[index]["clip"] for index in range(50)]
    for path in manifest.parent.glob("*.wav"):
        path.unlink()
    for index, clip in enumerate(expected):
        assert torch.equal(memory[index]["clip"], clip)


def test_an_unknown_cache_is_refused(manifest):
    with pytest.raises(HparamError, match="cache must be .*disk, memory; got 'ram'"):
        clips_of(manifest, "ram")


def test_iterating_gives_each_track_once(dataset):
    assert [item["id"] for item in dataset] == ["t0", "t1", "t2", "t3", "t4"]
    assert len(dataset) == N_TRACKS


def test_a_track_shorter_than_a_clip_is_repeated(manifest):
    dataset = RandomClipDataset.from_csv(manifest, {"data_root": manifest.parent})
    clip = dataset[3]["clip"]
    assert clip.shape == (48000,)
    assert torch.equal(clip[:6000], clip[42000:])


def test_speechbrains_label_encoder_and_dynamic_items_work(dataset):
    encoder = CategoricalEncoder()
    encoder.update_from_didataset(dataset, "genre")  # would not end without __iter__
    sb.dataio.dataset.add_dynamic_item(
        [dataset], encoder.encode_label_torch, "genre", "genre_encoded"
    )
    sb.dataio.dataset.set_output_keys([dataset], ["id", "clip", "genre_encoded"])
    item = dataset[N_TRACKS + 1]
    assert (item["id"], int(item["genre_encoded"])) == ("t1", 1)
    assert item["clip"].shape == (CLIP_SAMPLES,)


def test_the_audio_is_read_only_when_the_clip_is_asked_for(dataset, manifest):
    for path in manifest.parent.glob("*.wav"):
        path.unlink()
    dataset.set_output_keys(["id", "genre"])
    assert dataset[1] == {"id": "t1", "genre": "g1"}


def test_a_pass_is_every_track_once_in_a_fresh_order():
    sampler = PassSampler(n_tracks=50, n_passes=4, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert sorted(indices) == list(range(200 * epoch, 200 * (epoch + 1)))
        passes = np.array(indices).reshape(4, 50)
        for nth_pass, order in enumerate(passes):
            assert {index // 50 for index in order} == {4 * epoch + nth_pass}
            orders.append(tuple(order % 50))
    assert len(set(orders)) == 12
    assert len(sampler) == 200


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = PassSampler(n_tracks=50, n_passes=2, seed=seed)
        for earlier in range(epoch + 1):
            sampler.set_epoch(earlier)
        return list(sampler)

    direct = PassSampler(n_tracks=50, n_passes=2, seed=3)
    direct.set_epoch(5)
    assert order(seed=3, epoch=5) == list(direct) == list(direct)
    assert order(seed=4, epoch=5) != list(direct)


def test_a_batch_holds_as_many_tracks_as_possible():
    batch = list(PassSampler(n_tracks=80, n_passes=4, seed=0))[:32]
    assert len({index % 80 for index in batch}) == 32


def draws(batches):
    """ID and first sample of each clip of some batches."""
    return [
        (track_id, float(clip[0]))
        for batch in batches
        for track_id, clip in zip(batch["id"], batch["clip"], strict=True)
    ]


def expected_draws(dataset, sampler, epoch):
    """The same, asked of the data set one by one."""
    sampler.set_epoch(epoch)
    return [(dataset[i]["id"], float(dataset[i]["clip"][0])) for i in sampler]


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_workers_draw_what_the_main_process_would(dataset, persistent_workers):
    sampler = PassSampler(N_TRACKS, n_passes=3, seed=1)
    loader = SaveableDataLoader(
        dataset,
        sampler=sampler,
        batch_size=4,
        num_workers=2,
        persistent_workers=persistent_workers,
    )
    drawn = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        drawn.append(draws(loader))
        assert drawn[-1] == expected_draws(dataset, sampler, epoch)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_resumed_inside_an_epoch_draws_the_rest_of_it(
    dataset, tmp_path, num_workers
):
    def start_run():
        sampler = PassSampler(N_TRACKS, n_passes=4, seed=1)
        loader = SaveableDataLoader(
            dataset, sampler=sampler, batch_size=4, num_workers=num_workers
        )
        return sampler, loader, Checkpointer(tmp_path / "save", {"loader": loader})

    sampler, loader, checkpointer = start_run()
    sampler.set_epoch(3)
    batches = iter(loader)
    before = [next(batches), next(batches)]
    checkpointer.save_checkpoint(end_of_epoch=False)

    sampler, loader, checkpointer = start_run()
    checkpointer.recover_if_possible()
    sampler.set_epoch(3)
    after = list(loader)
    assert (len(before), len(after)) == (2, 3)
    assert draws(before + after) == expected_draws(dataset, sampler, epoch=3)


def steps_of(n_tracks, batch_size, **share):
    """The indices of each step of an epoch, in one of the processes."""
    sampler = PassSampler(n_tracks, n_passes=3, seed=1, batch_size=batch_size, **share)
    sampler.set_epoch(4)
    steps = list(BatchSampler(sampler, batch_size, drop_last=False))
    assert sum(map(len, steps)) == len(sampler)
    return steps


@pytest.mark.parametrize(
    ("n_tracks", "n_processes", "left_out"),
    [
        (8, 2, 0),  # 24 clips, six steps of 2 × 2
        (9, 2, 0),  # 27: in the last step one process has a clip more than the other
        (10, 3, 0),  # 30: five steps of 3 × 2
        (10, 8, 0),  # 30: in the last step six processes have 2 clips, two have 1
        (9, 8, 0),  # 27: 11 in the last step
        (7, 8, 5),  # 21: 5 in the last step, too few
        (9, 13, 1),  # 27: 1 in the last step, too few
    ],
)
def test_steps_of_processes_have_the_clips_of_one_process(
    n_tracks, n_processes, left_out
):
    of_each = [
        steps_of(n_tracks, 2, rank=rank, n_processes=n_processes)
        for rank in range(n_processes)
    ]
    together = [sorted(sum(step, [])) for step in zip(*of_each, strict=True)]
    alone = [sorted(step) for step in steps_of(n_tracks, 2 * n_processes)]
    if left_out:
        assert len(alone.pop()) == left_out < n_processes
    assert together == alone


class RecordingBrain(sb.Brain):
    """Trains nothing, notes what it is given."""

    def compute_forward(self, batch, stage):
        starts = batch.clip.data[:, 0].tolist()
        self.drawn.append(list(zip(batch.id, starts, strict=True)))

    def compute_objectives(self, predictions, batch, stage):
        return torch.zeros((), requires_grad=True)


def test_the_brain_tells_the_sampler_the_epoch(dataset):
    sampler = PassSampler(N_TRACKS, n_passes=2, seed=1)
    brain = RecordingBrain(run_opts={"device": "cpu", "noprogressbar": True})
    brain.drawn = []
    brain.train_sampler = sampler
    options = clip_loader_options(dataset, sampler, batch_size=2 * N_TRACKS)
    brain.fit(range(1, 3), dataset, train_loader_kwargs=options)
    expected = [expected_draws(dataset, sampler, epoch) for epoch in (1, 2)]
    assert brain.drawn == expected


def test_a_batch_is_speechbrains(dataset):
    encoder = CategoricalEncoder()
    encoder.update_from_didataset(dataset, "genre")
    dataset.add_dynamic_item(encoder.encode_label_torch, "genre", "genre_encoded")
    dataset.set_output_keys(["id", "clip", "genre_encoded"])
    examples = [dataset[index] for index in range(4)]
    batch, expected = clip_batch(examples), PaddedBatch(examples)
    assert isinstance(batch, PaddedBatch)
    assert (batch.id, len(batch)) == (expected.id, 4)
    for key in ("clip", "genre_encoded"):
        for tensor, same in zip(batch[key], expected[key], strict=True):
            assert torch.equal(tensor, same)
            assert tensor.dtype == same.dtype
    assert batch.to(dtype=torch.float64).clip.data.dtype == torch.float64


def test_no_worker_is_started_for_tracks_in_memory(manifest):
    sampler = PassSampler(N_TRACKS, n_passes=2, seed=1)
    n_workers = {
        cache: clip_loader_options(
            clips_of(manifest, cache), sampler, batch_size=4, num_workers=2
        )["num_workers"]
        for cache in ("disk", "memory")
    }
    assert n_workers == {"disk": 2, "memory": 0}
