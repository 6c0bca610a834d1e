"""The pipeline as a PyTorch user would write it, and with the convolutions of peers.

All have the filters, batch norms and weights of a model of ours, except
asteroid-filterbanks, which has filters of its own.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from ms_sincresnet import MSSincNet, MSSincResNet, SincFilterbank


class Conv(nn.Module):
    """Filters clips [batch, 1, time] by a function of them and filters [n, 1, taps]."""

    def __init__(self, convolve: Callable, bank: SincFilterbank):
        super().__init__()
        self.convolve, self.bank = convolve, copy.deepcopy(bank)

    def forward(self, wavs: Tensor) -> Tensor:
        return self.convolve(wavs, self.bank.filters()[:, None])


def julius_conv(wavs: Tensor, filters: Tensor) -> Tensor:
    """Julius' ``fft_conv1d``, which works in blocks."""
    from julius import fft_conv1d

    return fft_conv1d(wavs, filters, padding=filters.shape[-1] // 2)


def torchaudio_conv(wavs: Tensor, filters: Tensor) -> Tensor:
    """Torchaudio's ``fftconvolve``, one transform per clip."""
    from torchaudio.functional import fftconvolve

    # A convolution, not a correlation; the filters are symmetric.
    return fftconvolve(wavs, filters.transpose(0, 1), mode="same")


class SpeechBrainConv(nn.Module):
    """SpeechBrain's ``SincConv``, with zeros beyond the edges."""

    def __init__(self, bank: SincFilterbank):
        super().__init__()
        from speechbrain.nnet.CNN import SincConv

        options = _options(bank) | {"in_channels": 1, "padding_mode": "constant"}
        self.conv = SincConv(bank.n_filters, bank.kernel_size, **options)
        self.conv.load_state_dict(bank.state_dict())

    def forward(self, wavs: Tensor) -> Tensor:
        return self.conv(wavs[:, 0]).mT


def asteroid_conv(bank: SincFilterbank) -> nn.Module:
    """asteroid-filterbanks' ``ParamSincFB``: half as many bands, each even and odd."""
    from asteroid_filterbanks import Encoder, ParamSincFB

    peer = ParamSincFB(bank.n_filters, bank.kernel_size, stride=1, **_options(bank))
    return Encoder(peer, padding=bank.kernel_size // 2)


def _options(bank: SincFilterbank) -> dict[str, float]:
    """Options that a filterbank shares with those of peers."""
    names = ("sample_rate", "min_low_hz", "min_band_hz")
    return {name: getattr(bank, name) for name in names}


CONVOLUTIONS = {
    "plain": partial(Conv, partial(F.conv1d, padding="same")),
    "SpeechBrain's SincConv": SpeechBrainConv,
    "asteroid-filterbanks' ParamSincFB": asteroid_conv,
    "julius' fft_conv1d": partial(Conv, julius_conv),
    "torchaudio's fftconvolve": partial(Conv, torchaudio_conv),
}
for name in [*CONVOLUTIONS]:
    package = name.partition("'")[0].replace("-", "_")
    if package in ("asteroid_filterbanks", "julius") and find_spec(package) is None:
        del CONVOLUTIONS[name]


class Frontend(nn.Module):
    """The front-end with another convolution: clips [batch, time] to maps."""

    def __init__(self, name: str, like: MSSincNet):
        super().__init__()
        self.n_frames = like.n_frames
        self.convs = nn.ModuleList(CONVOLUTIONS[name](bank) for bank in like.banks)
        self.norms = nn.ModuleList(nn.BatchNorm1d(b.n_filters) for b in like.banks)
        self.norms.load_state_dict(like.norms.state_dict())

    def forward(self, wavs: Tensor) -> Tensor:
        wavs = F.layer_norm(wavs, wavs.shape[1:], eps=1e-8)[:, None]
        maps = [
            F.adaptive_avg_pool1d(F.relu(norm(conv(wavs))), self.n_frames)
            for conv, norm in zip(self.convs, self.norms, strict=True)
        ]
        return torch.stack(maps, dim=1)


class PlainModel(nn.Module):
    """The plain front-end, torchvision's ResNet-18, the SPP and two linear layers."""

    def __init__(self, like: MSSincResNet):
        super().__init__()
        self.frontend = Frontend("plain", like.frontend)
        resnet = torchvision.models.resnet18()
        del resnet.avgpool, resnet.fc
        self.trunk = nn.Sequential(OrderedDict(resnet.named_children()))
        self.trunk.load_state_dict(like.embedding.trunk.state_dict())
        self.pooling = copy.deepcopy(like.embedding.pooling)
        self.classifier = copy.deepcopy(like.classifier)

    def forward(self, wavs: Tensor) -> Tensor:
        return self.classifier(self.pooling(self.trunk(self.frontend(wavs))))
