"""Two processes against one that sees all clips, in float64.

In float32 a ReLU whose input is 1e-7 may open or close by rounding, which changes the
gradient by a hundredth: after some steps, two ways to compute the same network are as
far from each other as two networks.
"""

import os
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import soundfile
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import distributed, multiprocessing
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ms_sincresnet import MSSincNet, MSSincResNet, WarmupStepScheduler
from ms_sincresnet.data.cache import read_song
from ms_sincresnet.data.dataset import (
    PassSampler,
    RandomClipDataset,
    clip_loader_options,
)
from ms_sincresnet.nnet.sync_batch_norm import share_statistics, sum_over_processes
from ms_sincresnet.training.brain import GenreBrain
from ms_sincresnet.training.checkpoints import WholeCheckpointer
from ms_sincresnet.training.distributed import rank_and_processes
from ms_sincresnet.training.scores import StageScores

PARTS = (slice(0, 3), slice(3, 5))  # clips of either process: of uneven number
BACKENDS = {
    "reference": torch.float64,
    "fft": torch.float64,
    "auto": torch.float32,  # the compiled loops, where they are
}


def clips(dtype=torch.float64):
    """Five clips, some louder than others."""
    generator = torch.Generator().manual_seed(1)
    loudness = torch.tensor([1.0, 0.1, 0.5, 2.0, 0.3])[:, None]
    return (torch.randn(5, 4000, generator=generator) * loudness).to(dtype)


def own_part():
    """The clips that are this process's: all of them for one alone."""
    rank, n_processes = rank_and_processes()
    return PARTS[rank] if n_processes > 1 else slice(None)


def prepared(model):
    """As ``GenreBrain`` does it: the model as it is, or shared by the processes."""
    if rank_and_processes()[1] == 1:
        return model
    share_statistics(model)
    return DistributedDataParallel(model)


def front_end(backend, dtype):
    """Maps, gradients and running statistics of one training pass."""
    torch.manual_seed(0)
    model = MSSincNet(n_filters=4, kernel_sizes=(51, 101), n_frames=16, backend=backend)
    model = model.to(dtype)
    trained = prepared(model)
    maps = trained(clips(dtype)[own_part()])
    upstream = torch.randn(5, *maps.shape[1:], generator=torch.manual_seed(2))
    # What DistributedDataParallel takes the mean of.
    n_processes = rank_and_processes()[1]
    (n_processes * maps * upstream[own_part()]).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"maps": maps.detach(), "gradients": gradients, **model.state_dict()}


def steps(model):
    """Losses of three steps at the full learning rate, and where they lead."""
    model = model.double()
    trained, labels = prepared(model), torch.tensor([0, 3, 9, 1, 2])
    optimizer = torch.optim.SGD(
        model.parameters(), 5e-3, 0.9, nesterov=True, weight_decay=1e-4
    )
    losses = []
    for _ in range(3):
        log_posteriors, targets = trained(clips()[own_part()]), labels[own_part()]
        loss = F.nll_loss(log_posteriors, targets, reduction="sum")
        loss = sum_over_processes(loss) / len(labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, **model.state_dict()}


def small_model():
    """The paper's model, small."""
    torch.manual_seed(0)
    return MSSincResNet(
        n_filters=8, kernel_sizes=(51, 101, 201), n_frames=32, n_genres=10
    )


class Log(list):
    """A logger that keeps what it is told."""

    def log_stats(self, stats_meta, **stats):
        self.append(stats)


def songs(folder, n_songs, seed):
    """Songs of noise and a tone, of lengths from 0.3 to 0.7 s, as a manifest."""
    generator = np.random.default_rng(seed)
    manifest = {}
    for n in range(n_songs):
        times = np.arange(4800 + 1600 * (n % 5)) / 16000
        tone = 0.3 * np.sin(2 * np.pi * (200 + 900 * (n % 3)) * times)
        path = folder / f"{seed}.{n}.wav"
        soundfile.write(path, tone + generator.normal(0, 0.1, len(times)), 16000)
        manifest[f"{seed}.{n}"] = {
            "wav": str(path),
            "duration": len(times) / 16000,
            "genre_encoded": torch.tensor([n % 3]),
        }
    return manifest


def experiment(folder):
    """Two epochs of ``GenreBrain`` and a test; what it logs, and its weights."""
    rank, n_processes = rank_and_processes()
    keys = ["id", "song", "genre_encoded"]
    read = [{"func": read_song, "takes": "wav", "provides": "song"}]
    parts = {n: torch.load(folder / f"{n}.pt") for n in ("train", "valid", "test")}
    train = RandomClipDataset(
        parts["train"],
        clip_samples=4000,
        seed=1,
        output_keys=["id", "clip", "genre_encoded"],
    )
    valid, test = (
        DynamicItemDataset(parts[part], read, keys) for part in ("valid", "test")
    )
    model, log = small_model().double(), Log()
    output_folder = folder / f"of_{n_processes}"
    output_folder.mkdir(exist_ok=True)
    hparams = {
        **{"dataset": "noise", "seed": 1, "checkpoint": "last", "voting": "majority"},
        **{"clip_samples": 4000, "hop_samples": 2000, "eval_batch_size": 2},
        **{"valid_hop": 1000, "test_hop": 2000, "output_folder": output_folder},
        "wav_augment": torch.nn.Identity(),
        "lr_annealing": WarmupStepScheduler(warmup_epochs=0),
        "label_encoder": sb.dataio.encoder.CategoricalEncoder(),
        "train_logger": log,
    }
    hparams["label_encoder"].update_from_iterable(map(str, range(10)))
    # 7 tracks and 3 clips of each: steps of 8, 8 and 5 clips.
    batch_size = 8 // n_processes
    sampler = PassSampler(
        7, 3, seed=1, batch_size=batch_size, rank=rank, n_processes=n_processes
    )
    brain = GenreBrain(
        {"model": model},
        lambda parameters: torch.optim.SGD(parameters, 5e-3, momentum=0.9),
        hparams,
        {"device": "cpu", "noprogressbar": True},
        WholeCheckpointer(output_folder / "save", {"model": model}),
    )
    brain.train_sampler = sampler
    brain.fit(
        range(1, 3),
        train,
        valid,
        train_loader_kwargs=clip_loader_options(train, sampler, batch_size=batch_size),
    )
    brain.evaluate(test)
    return {"log": list(log), **model.state_dict()}


def scores(folder):
    """Accuracies of scores that were saved within a stage, and resumed from there."""
    rank, n_processes = rank_and_processes()

    def note(stage, clips):
        for n, clip in list(enumerate(clips))[rank::n_processes]:
            stage.add(f"song {n % 3}", n % 2, clip[None])

    posteriors = torch.rand(9, 2, generator=torch.manual_seed(0)).log()
    stage, resumed = StageScores(), StageScores()
    note(stage, posteriors[:5])
    path = folder / f"scores_of_{n_processes}.pt"
    stage.save(path)
    note(stage, posteriors[5:])
    if n_processes > 1:
        distributed.barrier()
    resumed.load(path, end_of_epoch=False)
    note(resumed, posteriors[5:])
    found = []
    for each in (stage, resumed):
        each.gather()
        found.append(each.figures() if rank == 0 else len(each.labels))
    return found


def everything(folder):
    """All of the above."""
    return {
        "front-end": {
            backend: front_end(backend, dtype) for backend, dtype in BACKENDS.items()
        },
        "steps": steps(small_model()),
        "experiment": experiment(folder),
        "scores": scores(folder),
        "sum": sum_over_processes(torch.ones(2) * (1 + rank_and_processes()[0])),
    }


def process(rank, folder):
    """One of two processes, as ``torchrun`` starts them."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        f"file://{folder}/meeting",
        world_size=2,
        rank=rank,
        timeout=timedelta(minutes=5),  # or a collective that nobody joins would hang
    )
    torch.save(everything(folder), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What both processes found, and what one alone does."""
    folder = tmp_path_factory.mktemp("distributed")
    # One of the processes has no song to validate.
    for seed, (part, n_songs) in enumerate({"train": 7, "valid": 1, "test": 5}.items()):
        torch.save(songs(folder, n_songs, seed), folder / f"{part}.pt")
    multiprocessing.spawn(process, (folder,), nprocs=2)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = everything(folder)
    torch.set_num_threads(n_threads)
    both = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    return folder, both, alone


def test_a_sum_is_over_all_processes(results):
    _, both, alone = results
    assert [found["sum"].tolist() for found in both] == [[3.0, 3.0]] * 2
    assert alone["sum"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_front_end_has_the_moments_of_all_clips(results, backend):
    _, both, alone = results
    double = BACKENDS[backend] == torch.float64
    close = dict.fromkeys(("rtol", "atol"), 1e-10 if double else 1e-3)
    expected = alone["front-end"][backend]
    maps = expected.pop("maps")
    for part, found in zip(PARTS, both, strict=True):
        found = found["front-end"][backend]
        torch.testing.assert_close(found.pop("maps"), maps[part], **close)
        torch.testing.assert_close(found, expected, **close)


def test_three_steps_lead_to_the_same_network(results):
    """Of the full learning rate, with uneven parts, in evaluation and out of it."""
    _, both, alone = results
    for found in both:
        torch.testing.assert_close(found["steps"], alone["steps"], rtol=1e-8, atol=1e-8)


def test_an_experiment_is_logged_as_by_one_process(results):
    _, both, alone = results
    expected = alone["experiment"].pop("log")
    assert len(expected) == 3, "two epochs and a test"
    for found in both:
        for stats, of_one in zip(found["experiment"].pop("log"), expected, strict=True):
            for stage, figures in of_one.items():
                assert stats[stage] == pytest.approx(figures, rel=1e-8), stage
        torch.testing.assert_close(
            found["experiment"], alone["experiment"], rtol=1e-6, atol=1e-8
        )


def test_each_song_is_tested_once(results):
    folder, _, _ = results
    tables = [pd.read_csv(folder / f"of_{n}" / "test_predictions.csv") for n in (1, 2)]
    pd.testing.assert_frame_equal(*tables)


def test_scores_of_a_resumed_stage_count_each_clip_once(results):
    _, both, alone = results
    unbroken, resumed = alone["scores"]
    assert unbroken == resumed
    assert both[0]["scores"] == [pytest.approx(unbroken)] * 2
    assert both[1]["scores"] == [0, 0], "all are with the main process"
