"""A small model that tells tones apart, its model folder, and songs made of tones."""

import signal
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ms_sincresnet import GenreClassifier, MSSincResNet
from ms_sincresnet.cli import main
from ms_sincresnet.inference import batch
from ms_sincresnet.nnet import frontend
from ms_sincresnet.nnet.backends import simd, songs
from ms_sincresnet.pretrained.model_folder import save_model_folder

from .sounds import sine

# What runs in the background of a shell ignores interrupts, and so would the processes
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Not in the order of the alphabet, in which something might sort them.
TONES_HZ = {"rock": 600.0, "blues": 200.0, "metal": 3000.0, "jazz": 1400.0}


@pytest.fixture(scope="session")
def genres():
    """Names of the genres, in the order of the tone model's outputs."""
    return list(TONES_HZ)


@pytest.fixture(scope="session")
def tone_model(genres):
    """A model, not to be changed, whose last layer is fitted to tell tones apart."""
    torch.manual_seed(0)
    model = MSSincResNet(n_genres=len(genres), n_filters=8).eval()
    phases = (0.0, 1.5, 3.0, 4.5)
    clips = [sine(hz, 16000, 3.0, p) for hz in TONES_HZ.values() for p in phases]
    labels = torch.arange(len(genres)).repeat_interleave(len(phases))
    with torch.no_grad():
        wavs = torch.tensor(np.stack(clips), dtype=torch.float32)
        hidden = model.classifier.layers[:2](model.embedding(model.frontend(wavs)))
        mean = hidden.mean(0)
        logits = 4.0 * torch.eye(len(genres))[labels]
        fit = torch.linalg.lstsq((hidden - mean)[:, 0], logits, driver="gelsd")
        last = model.classifier.layers[2]
        last.weight.copy_(fit.solution.T)
        last.bias.copy_(logits.mean(0) - last.weight @ mean[0])
        assert (model(wavs).argmax(1) == labels).all()
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def model_folder(tone_model, genres, tmp_path_factory):
    """The tone model's folder, not to be changed."""
    folder = tmp_path_factory.mktemp("inference") / "model"
    save_model_folder(folder, tone_model, genres)
    return folder


@pytest.fixture(scope="session")
def classifier(model_folder):
    return GenreClassifier.from_hparams(model_folder, run_opts={"device": "cpu"})


@pytest.fixture
def command(capsys):
    """Runs a command: exit status, output, and error output without a traceback."""

    def run(*argv):
        try:
            status = main([*map(str, argv)])
        except SystemExit as stopped:
            status = stopped.code
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run


@pytest.fixture
def decoded(monkeypatch):
    """Songs in the order in which they are decoded."""
    songs, original = [], batch.read_blocks

    def read(song, *options):
        songs.append(song)
        return original(song, *options)

    monkeypatch.setattr(batch, "read_blocks", read)
    return songs


@pytest.fixture(params=["jsonl", "csv", "parquet"])
def results(request):
    """The name of a file for results, in each format that can be resumed."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return f"rows.{request.param}"


@pytest.fixture
def fake_gpu():
    """A mode that fakes tensors on a GPU that is missing; PyTorch 2.7 cannot."""
    with FakeTensorMode() as mode:
        try:
            torch.zeros(1, device="cuda")
        except RuntimeError:
            pytest.skip("this PyTorch needs a GPU to fake one")
    return mode


@pytest.fixture(scope="session")
def write_song():
    """Writes a song: genres and how long the tone of each sounds, in s."""

    def write(path, *parts, rate=16000, channels=1, **options):
        song = [sine(TONES_HZ[genre], rate, s) for genre, s in parts]
        samples = np.zeros((sum(map(len, song)), channels))
        samples[:, 0] = np.concatenate(song)
        soundfile.write(path, samples, rate, **options)
        return path

    return write


@pytest.fixture
def songs_filtered(monkeypatch):
    """A spy whose calls are the songs that are filtered once for all their clips."""
    spy = Mock(wraps=frontend.cut_song)
    monkeypatch.setattr(frontend, "cut_song", spy)
    return spy


@pytest.fixture(params=["widest", "portable"])
def lanes(request, monkeypatch):
    """The compiled loops for this processor, and those of four lanes for any."""
    if request.param == "widest":
        return
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    library, lanes = simd._load_library()
    assert lanes == 4
    monkeypatch.setattr(simd, "LIBRARY", library)
    for module in (simd, songs):
        monkeypatch.setattr(module, "LANES", lanes)
        monkeypatch.setattr(module, "GROUP", 2 * lanes)
        monkeypatch.setattr(module, "WORK", 2 * lanes * simd.SIDE * (simd.SIDE + 1))
