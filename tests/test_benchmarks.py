import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ms_sincresnet import GenreClassifier, MSSincNet

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # as Python does for the script

measure, peers, report, run, steps = map(
    importlib.import_module, ["measure", "peers", "report", "run", "steps"]
)

ASTEROID = "asteroid-filterbanks' ParamSincFB"  # has filters of its own

each_convolution = pytest.mark.parametrize("name", peers.CONVOLUTIONS)
each_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def relative_error(result, expected):
    return ((result - expected).norm() / expected.norm()).item()


def step_of(seconds, peak_mib=1.0):
    """What was measured of a step, for a yardstick of one second."""
    seconds = np.array(seconds)
    return measure.Measured(seconds, 1 / seconds, int(peak_mib * 2**20))


def test_the_script_writes_every_table(tmp_path):
    output = tmp_path / "RESULTS.md"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--profile"]
    subprocess.run(
        [*command, "--n_runs=1", f"--output={output}"],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    text = output.read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles[:-2] == [
        "# Benchmarks",
        "## What is asked",
        "## Front-end, evaluation: forward, batch of 2 clips",
        "## Front-end, training: forward and backward, batch of 2 clips",
        "## Training step, batch of 4 clips",
        "## Song of 1 s, 5 clips: file to voted genre",
        "## Folder of 2 songs of 1 s: files to voted genres",
        "## Systems: training step, bf16, batch of 4 clips",
        "## Systems: song of 1 s, bf16, file to voted genre",
        "## Songs by length, ours",
        "## Loader alone",
    ]
    assert titles[-2] == "## Training step on a GPU, bf16, batch of 4 clips"
    assert titles[-1].startswith("## Profile of our training step")
    for name in peers.CONVOLUTIONS:
        assert text.count(f"\n| {name} | ") >= 2
    assert text.count("\n| ours, bf16 | ") == 3
    for name in ("MSSincResNet", "SincResNet", "SincNet", "MelResNet"):
        assert text.count(f"\n| {name} | ") == 2
    for row in ("1 s | 5", "2 s | 12", "4 s | 25", "disk", "memory"):
        assert f"\n| {row} | " in text
    on_cpu = [key for key in report.TARGETS if not key.startswith("gpu_")]
    assert text.count("reached") == len(on_cpu)
    assert "`python benchmarks/run.py --n_runs 1 --profile --quick`" in text
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert str(tmp_path.parent) not in text


@each_mode
@each_convolution
def test_peers_compute_the_maps_of_the_plain_frontend(name, training):
    if not peers.is_installed(name):
        pytest.skip("not installed")
    torch.manual_seed(0)
    like = MSSincNet(n_filters=8).train(training)
    wavs = torch.randn(2, 16000)
    plain = peers.Frontend("plain", like).train(training)(wavs)
    maps = peers.Frontend(name, like).train(training)(wavs)
    assert maps.shape == plain.shape == (2, 3, 8, 1024)
    assert name == ASTEROID or relative_error(maps, plain) < 1e-6


@each_mode
def test_the_plain_system_is_ours(training):
    ours = steps.system_of_ours(run.QUICK)
    plain = peers.PlainSystem(ours).train(training)
    ours.train(training)
    wavs = torch.randn(4, run.QUICK.clip_samples)
    assert relative_error(plain(wavs), ours(wavs)) < 1e-5
    counts = [sum(p.numel() for p in system.parameters()) for system in (plain, ours)]
    assert counts[0] == counts[1]


def test_the_plain_trunk_has_the_plain_layout():
    plain = peers.PlainSystem(steps.system_of_ours(run.QUICK))
    volume = plain.trunk(plain.frontend(torch.randn(1, run.QUICK.clip_samples)))
    weights = [p for p in plain.parameters() if p.ndim == 4]
    assert all(tensor.is_contiguous() for tensor in [volume, *weights])


def test_songs_are_named_alike(tmp_path):
    model, song = str(tmp_path / "model"), str(tmp_path / "song.wav")
    steps.write_model_folder(model, run.QUICK)
    steps.write_song(song, 31)  # the music is half a minute and repeats
    ours = steps.song_step(song, model, "fp32")()
    assert steps.plain_song_step(song, run.QUICK)() == ours
    clips = GenreClassifier.from_hparams(model).predict_song(song).clips
    assert len(clips) == run.QUICK.n_clips(31)
    assert steps.Sizes().n_clips(30) == 55


def test_steps_take_turns_and_are_compared_round_by_round(monkeypatch):
    clock = [0.0]
    order = []

    def builder(name, durations):
        durations = iter(durations)

        def step():
            order.append(name)
            clock[0] += next(durations)

        return lambda: step

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure, "run_alone", lambda build: measure.Alone(1.0, 7))
    builders = {
        "plain": builder("plain", [9, 4, 8, 6]),
        "peer": None,
        "ours": builder("ours", [9, 2, 2, 1]),
    }
    measured = measure.compare(builders, n_runs=3)
    assert order == ["plain", "ours"] * 4
    assert measured["peer"] is None
    assert measured["ours"].seconds.tolist() == [2, 2, 1]
    assert measured["ours"].ratios.tolist() == [2, 4, 6]
    assert measured["ours"].speed == 4
    assert measured["ours"].peak_bytes == 7


def test_peak_memory_is_what_the_step_adds():
    held = np.ones(50 * 2**17)  # 50 MiB, of this process and not of the other
    alone = measure.run_alone(partial(partial, np.ones, 100 * 2**17))
    assert alone.peak_bytes / 2**20 == pytest.approx(100, abs=2)
    assert len(held)


def test_a_comparison_shows_medians_ranges_and_who_is_missing():
    text = report.comparison(
        {"plain": step_of([1, 1, 1]), "peer": None, "ours": step_of([0.5, 0.1, 0.25])},
        n_clips=10,
    )
    assert text.splitlines()[2:] == [
        "| plain | 100 | 1.00 × | 1.00 to 1.00 | 1 MiB |",
        "| peer | not installed |  |  |  |",
        "| ours | 25 | 4.00 × | 2.00 to 10.00 | 1 MiB |",
    ]


@pytest.mark.parametrize(
    ("target", "figure", "verdict"),
    [
        (report.Target("", 9, 12), 8.9, "**not reached**"),
        (report.Target("", 9, 12), 9, "reached"),
        (report.Target("", 9, 12), 12, "aim reached"),
        (report.Target("", 9), 12, "reached"),
        (report.Target("", 1.2, at_most=True), 1.2, "reached"),
        (report.Target("", 1.2, at_most=True), 1.3, "**not reached**"),
    ],
)
def test_verdicts(target, figure, verdict):
    assert target.verdict(figure) == verdict


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda package: None)
    left_out = [name for name in peers.CONVOLUTIONS if not peers.is_installed(name)]
    assert left_out == [ASTEROID, "julius' fft_conv1d"]


def test_on_a_gpu_ours_gets_the_largest_batch_that_fits(monkeypatch):
    sizes = steps.Sizes()

    def compare(builders, n_runs):
        batch_sizes = {build.args[2] for build in builders.values()}
        assert {build.args[4] for build in builders.values()} == {"cuda"}
        if batch_sizes == {256}:
            raise torch.OutOfMemoryError("does not fit")
        measured = {"plain": step_of([1.0], 900), "ours": step_of([0.1], 100)}
        return {name: measured[name] for name in builders}

    monkeypatch.setattr(run, "compare", compare)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    suite = run.Suite(sizes, n_runs=1)
    text = suite.gpu()
    assert "\n\nA batch of 256 clips does not fit.\n\n" in text
    assert "Ours, batch of 128 clips: 1,280 clips a second, 100 MiB." in text
    assert suite.figures == {"gpu_step": 10, "gpu_memory": 9, "gpu_clips": 1280}
