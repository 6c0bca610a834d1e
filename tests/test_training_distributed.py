"""Two processes against one that sees all clips, in float64 where rounding matters.

In float32 a ReLU whose input is 1e-7 may open or close by rounding, which changes the
gradient by a hundredth.
"""

import os
import re
import shutil
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import speechbrain as sb
import torch
import train
from torch import distributed, multiprocessing

from ms_sincresnet import MSSincResNet, WarmupStepScheduler
from ms_sincresnet.data.dataset import rank_and_processes
from ms_sincresnet.data.synthetic import make_synthetic_gtzan
from ms_sincresnet.training.brain import GenreBrain
from ms_sincresnet.training.scores import StageScores

PARTS = (slice(0, 3), slice(3, 5))  # clips of either process: of uneven number
PRELOADED = ["ms_sincresnet.training.brain"]


def clips():
    """Five clips, some louder than others."""
    generator = torch.Generator().manual_seed(1)
    loudness = torch.tensor([1.0, 0.1, 0.5, 2.0, 0.3])[:, None]
    return (torch.randn(5, 4000, generator=generator) * loudness).double()


def own_part():
    """The clips that are this process's: all of them for one alone."""
    rank, n_processes = rank_and_processes()
    return PARTS[rank] if n_processes > 1 else slice(None)


def steps(backend, folder):
    """Losses of three steps of ``GenreBrain`` at the full rate, and their outcome."""
    torch.manual_seed(0)
    small = {"n_filters": 8, "kernel_sizes": (51, 101, 201), "n_frames": 32}
    small["parametrization"] = "relative"
    model = MSSincResNet(**small, backend=backend).double()
    hparams = {"seed": 1, "checkpoint": "last", "voting": "majority"}
    hparams |= {"output_folder": folder, "wav_augment": torch.nn.Identity()}
    hparams |= {"lr_annealing": WarmupStepScheduler(warmup_epochs=0)}
    hparams |= {"cutoff_lr_factor": 100, "cutoff_weight_decay": 0}
    sgd = partial(torch.optim.SGD, lr=5e-3, momentum=0.9)
    brain = GenreBrain({"model": model}, sgd, hparams, {"device": "cpu"})
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.TRAIN, epoch=1)
    brain.modules.train()
    own, labels = own_part(), torch.tensor([[0], [3], [9], [1], [2]])
    batch = SimpleNamespace(
        id=list("abcde")[own],
        clip=SimpleNamespace(data=clips()[own]),
        genre_encoded=SimpleNamespace(data=labels[own]),
    )
    losses = [brain.fit_batch(batch).item() for _ in range(3)]
    return {"losses": losses, **model.state_dict()}


def scores(folder):
    """Figures of scores that were saved within a stage, and resumed from there."""
    rank, n_processes = rank_and_processes()

    def add(stage, clips):
        for n, clip in list(enumerate(clips))[rank::n_processes]:
            stage.add(f"song {n % 3}", n % 2, clip[None])

    posteriors = torch.rand(9, 2, generator=torch.manual_seed(0)).log()
    stage, resumed, of_one_song = StageScores(), StageScores(), StageScores()
    add(of_one_song, posteriors[:1])  # the other process has none
    add(stage, posteriors[:5])
    path = folder / f"scores_of_{n_processes}.pt"
    stage.save(path)
    add(stage, posteriors[5:])
    if n_processes > 1:
        distributed.barrier()
    resumed.load(path, end_of_epoch=False)
    add(resumed, posteriors[5:])
    found = []
    for each in (stage, resumed, of_one_song):
        each.gather()
        found.append(each.figures() if rank == 0 else len(each.labels))
    return found


def recipe(folder):
    """One epoch of train.py, at a small learning rate, as rounding grows in float32."""
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    hparams = {
        **{"data_folder": folder / "data", "cache_folder": folder / "audio_16k"},
        **{"output_folder": folder / f"run_{n_processes}", "resnet_weights": "null"},
        **{"n_genres": 2, "n_filters": 8, "n_frames": 64, "n_folds": 3},
        **{"clip_samples": 4000, "hop_samples": 4000, "valid_hop": 4000},
        **{"batch_size": 4 // n_processes, "valid_fraction": 0.5, "num_workers": 0},
        **{"number_of_epochs": 1, "warmup_lr": 1e-5, "clips_per_track": 2},
        **{"gain_low": 1, "gain_high": 1, "noise_std": 0},  # drawn in each process
    }
    words = [f"--{name}={value}" for name, value in hparams.items()]
    hparams_file = Path(train.__file__).with_name("hparams") / "ms_sincresnet.yaml"
    options = ["--device=cpu", "--distributed_backend=gloo"]
    with pytest.MonkeyPatch.context() as patch:
        name = "speechbrain.utils.logger.get_environment_description"
        patch.setattr(name, lambda: "not asked in tests")  # by `pip freeze`
        train.main([str(hparams_file), *options, *words])


def everything(folder):
    recipe(folder)
    losses = {name: steps(name, folder) for name in ("reference", "fft")}
    return {"steps": losses, "scores": scores(folder)}


def process(rank, folder, port):
    """One of two processes, as ``torchrun`` starts them."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    torch.save(everything(folder), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder, and the results of both processes and of one alone."""
    folder = tmp_path_factory.mktemp("distributed")
    make_synthetic_gtzan(folder / "data", n_tracks=6, duration_s=0.5, seed=3)
    for genre in sorted((folder / "data" / "genres").iterdir())[2:]:
        shutil.rmtree(genre)
    # Packages are imported once, in a server that both are forked from.
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    arguments = process, (folder, free_port()), 2
    multiprocessing.start_processes(*arguments, start_method="forkserver")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = everything(folder)
    torch.set_num_threads(n_threads)
    both = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    return folder, both, alone


def test_three_steps_lead_to_the_same_network(results):
    _, both, alone = results
    assert alone["steps"]["fft"]["losses"] == pytest.approx(
        alone["steps"]["reference"]["losses"]
    )
    for found in both:
        torch.testing.assert_close(found["steps"], alone["steps"], rtol=1e-8, atol=1e-8)


def test_the_recipe_trains_as_in_one_process(results):
    folder, _, _ = results
    runs = [folder / "run_1", folder / "run_2"]
    logs = [(run / "train_log.txt").read_text() for run in runs]
    numbers = [[float(x) for x in re.findall(r": ([\d.e+-]+)", log)] for log in logs]
    assert len(numbers[0]) == 14, "epoch, rate, cut-offs, and figures of three stages"
    assert numbers[1] == pytest.approx(numbers[0], abs=2e-4)
    tables = [pd.read_csv(run / "test_predictions.csv") for run in runs]
    assert len(tables[0]) == 4
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=2e-4)
    assert all((run / "model" / "model.safetensors").is_file() for run in runs)


def test_scores_of_a_resumed_stage_count_each_clip_once(results):
    _, both, alone = results
    unbroken, resumed, _ = alone["scores"]
    assert unbroken == resumed
    assert both[0]["scores"] == [pytest.approx(figures) for figures in alone["scores"]]
    assert both[1]["scores"] == [0, 0, 0], "all are in the main process"
