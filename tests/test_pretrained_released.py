"""Checkpoints of the authors: their network, rebuilt here, agrees with ours."""

import math
import os
import re

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from ms_sincresnet.errors import UserError, WeightsError
from ms_sincresnet.pretrained.model_folder import FILES, read_model_folder
from ms_sincresnet.pretrained.released import convert_checkpoint

from .sounds import noise, sine

CLIP, RATE = 48000, 16000
GENRES = [f"genre {number}" for number in range(10)]


class Sinc(nn.Module):
    """SincNet's convolution: min_low_hz and min_band_hz of 50, no padding."""

    def __init__(self, n_filters, n_taps):
        super().__init__()
        self.n_taps = n_taps
        low, high = (2595 * math.log10(1 + hz / 700) for hz in (30, 7900))
        hz = 700 * (10 ** (torch.linspace(low, high, n_filters + 1) / 2595) - 1)
        self.low_hz_ = nn.Parameter(hz[:-1, None])
        self.band_hz_ = nn.Parameter(hz.diff()[:, None])

    def forward(self, wavs):
        half = self.n_taps // 2
        n_lin = torch.linspace(0, self.n_taps / 2 - 1, half)
        window = 0.54 - 0.46 * torch.cos(2 * math.pi * n_lin / self.n_taps)
        n = 2 * math.pi * torch.arange(-half, 0.0)[None] / RATE
        low = 50 + self.low_hz_.abs()
        high = (low + 50 + self.band_hz_.abs()).clamp(50, RATE / 2)
        left = ((high @ n).sin() - (low @ n).sin()) / (n / 2) * window
        band = 2 * (high - low)
        filters = torch.cat([left, band, left.flip(1)], 1) / band
        return nn.functional.conv1d(wavs, filters[:, None])


class Released(nn.Module):
    def __init__(self, n_filters):
        super().__init__()
        self.layerNorm = nn.LayerNorm([1, CLIP])
        for number, n_taps in enumerate((251, 501, 1001), 1):
            norm, frames = nn.BatchNorm1d(n_filters), nn.AdaptiveAvgPool1d(1024)
            scale = nn.Sequential(Sinc(n_filters, n_taps), norm, nn.ReLU(), frames)
            self.add_module(f"sincNet{number}", scale)
        self.resnet = nn.Module()
        self.resnet.model = resnet18(num_classes=len(GENRES))

    def forward(self, wavs):
        wavs = self.layerNorm(wavs[:, None])
        maps = [scale(wavs) for scale in (self.sincNet1, self.sincNet2, self.sincNet3)]
        return self.resnet.model(torch.stack(maps, 1))


def clips():
    """Noise, a tone, and chords that fade, as loud as 16-bit integers are."""
    fading = np.exp(-6 * (np.arange(CLIP) / RATE % 0.5))
    low, high = (110, 220, 277, 330), (98, 1175, 1480, 3520)
    chords = [fading * sum(sine(hz, RATE, 3) for hz in chord) for chord in (low, high)]
    hiss = noise(CLIP)
    wavs = np.stack([hiss, sine(440, RATE, 3), chords[0], chords[1] + 3 * hiss])
    wavs *= 6000 / wavs.std(1, keepdims=True) * np.logspace(-1, 0, 4)[:, None]
    return torch.tensor(wavs, dtype=torch.float32)


@pytest.fixture(scope="module")
def network():
    """The network as if trained: statistics of clips, no parameter at its start."""
    torch.manual_seed(0)
    network = Released(n_filters=16)
    with torch.no_grad():
        network.layerNorm.weight.normal_(1.0, 0.1)
        network.layerNorm.bias.normal_(0.0, 0.05)
        for module in network.modules():
            if isinstance(module, Sinc):
                for hz in module.parameters():
                    hz += 20 * torch.randn_like(hz)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.2)
                module.momentum = None  # the mean of the batches below
        network.resnet.model.fc.weight.normal_(0.0, 0.3)
        scores = network.train()(clips())
        network.resnet.model.fc.bias -= scores.mean(0)  # so that other genres come up
    return network.eval()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    work = tmp_path_factory.mktemp("released")
    run = {"epoch": 199, "train_acc": torch.ones(())}
    run["state_dict"] = network.state_dict()
    torch.save(run, work / "MS-SincResNet.tar")
    folder = work / "converted" / "model"
    assert convert_checkpoint(work / "MS-SincResNet.tar", folder, GENRES) == folder
    return folder


@pytest.fixture
def refused(tmp_path):
    def convert(content, genres=GENRES, error=WeightsError):
        path = tmp_path / "checkpoint.tar"
        torch.save(content, path)
        with pytest.raises(error, match=f"^{path}: ") as found:
            convert_checkpoint(path, tmp_path / "model", genres)
        assert not (tmp_path / "model").exists()
        return str(found.value)

    return convert


def test_log_posteriors_are_those_of_the_authors_network(network, folder):
    model, wavs = read_model_folder(folder), clips()[1:]
    clip = {"clip_samples": CLIP, "hop_samples": 8000, "full_scale": 32768.0}
    assert model.settings == {"genres": GENRES, "voting": "majority", **clip}
    for full_scale in (1, 32768):
        with torch.no_grad():
            expected = network(wavs / full_scale).log_softmax(1)
            found = model(wavs / full_scale)
        assert expected.std() > 1
        assert len(set(expected.argmax(1).tolist())) > 1
        # 2.8e-5 off float64 was seen: the float32 filters of the authors' network.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_bare_state_dict_of_data_parallel_is_converted(network, folder, tmp_path):
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save(state, tmp_path / "checkpoint.tar")
    convert_checkpoint(tmp_path / "checkpoint.tar", tmp_path / "model", GENRES)
    for name in FILES:
        content = (tmp_path / "model" / name).read_bytes()
        assert content == (folder / name).read_bytes(), name


CONV = "resnet.model.conv1.weight"
SEVERAL = {"sincNet1.0.low_hz_": torch.zeros(0, 1), "layerNorm.weight": torch.tensor(1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({CONV: None}, r"conv1\.weight is missing$"),
        ({"sincNet4.0.low_hz_": torch.zeros(4, 1)}, r"'sincNet4.*' is unknown$"),
        (SEVERAL, r"expected \[1, 48000\], and \d+ more$"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(changes, message, network, refused):
    state = network.state_dict() | changes
    state = {name: value for name, value in state.items() if value is not None}
    assert re.search(message, refused({"state_dict": state}))


def test_a_poisoned_pickle_is_refused_and_not_run(tmp_path, refused):
    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    for content in (Poison(), {"state_dict": {"layerNorm.weight": Poison()}}):
        assert "not a file of weights" in refused(content)
    assert not (tmp_path / "run").exists()
    torch.load(tmp_path / "checkpoint.tar", weights_only=False)
    assert (tmp_path / "run").exists()  # so it is poison


def test_genres_must_be_as_many_as_the_outputs(network, refused):
    for genres in (["a"], ["a"] * 10):
        message = refused(network.state_dict(), genres, UserError)
        assert "10 outputs; expected as many different genres" in message
