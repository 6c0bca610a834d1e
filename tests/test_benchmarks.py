import importlib
import runpy
import sys
from pathlib import Path

import pytest
import torch

from ms_sincresnet import GenreClassifier, MSSincNet

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # as Python does for the script

measure, peers, run, steps = map(
    importlib.import_module, ["measure", "peers", "run", "steps"]
)

each_mode = pytest.mark.parametrize("training", [False, True])


def test_the_script_measures_and_writes_its_tables(tmp_path, monkeypatch):
    output = tmp_path / "RESULTS.md"
    words = ["run.py", "--quick", "--n_runs=1", "--sections", "song", "profile"]
    monkeypatch.setattr(sys, "argv", [*words, f"--output={output}"])
    runpy.run_path(run.__file__, run_name="__main__")
    text = output.read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles[1] == "## Song of 1 s, file to voted genre, 5 clips"
    assert titles[2].startswith("## Profile of our training step")
    for name in ("plain", "ours", "ours, bf16"):
        assert text.count(f"\n| {name} | ") == 1
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert str(tmp_path.parent) not in text


@each_mode
@pytest.mark.parametrize("name", peers.CONVOLUTIONS)
def test_peers_compute_the_maps_of_the_plain_frontend(name, training):
    torch.manual_seed(0)
    like = MSSincNet(n_filters=4, n_frames=64).train(training)
    wavs = torch.randn(2, 4000)
    plain = peers.Frontend("plain", like).train(training)(wavs)
    maps = peers.Frontend(name, like).train(training)(wavs)
    assert maps.shape == plain.shape == (2, 3, 4, 64)
    if name != "asteroid-filterbanks' ParamSincFB":  # has filters of its own
        assert (maps - plain).norm() < 1e-6 * plain.norm()


@each_mode
def test_the_plain_model_is_ours_in_the_plain_layout(training):
    ours = steps.our_model(steps.QUICK)
    plain = peers.PlainModel(ours).train(training)
    ours.train(training)
    wavs = torch.randn(4, steps.QUICK.clip_samples)
    expected = ours(wavs)
    assert (plain(wavs) - expected).norm() < 1e-5 * expected.norm()
    volume = plain.trunk(plain.frontend(wavs))
    assert all(tensor.is_contiguous() for tensor in [volume, *plain.parameters()])


def test_songs_get_the_same_genre(tmp_path):
    sizes = steps.QUICK._replace(hop_samples=48000)
    model = steps.write_model_folder(str(tmp_path), sizes)
    song = str(tmp_path / "song.wav")
    steps.write_song(song, 31)  # the music is half a minute and repeats
    ours = steps.songs_step([song], model, "fp32")()
    assert steps.plain_songs_step([song], sizes)() == ours
    clips = GenreClassifier.from_hparams(model).predict_song(song).clips
    assert len(clips) == sizes.n_clips(31)
    assert steps.Sizes().n_clips(30) == 55
