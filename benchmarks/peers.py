"""The pipeline as a PyTorch user would write it, and with the convolutions of peers.

All have the filters, batch norms and weights of a model of ours, except
asteroid-filterbanks, which has filters of its own.
"""

import copy
from collections import OrderedDict
from importlib.util import find_spec

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from ms_sincresnet import MSSincNet, MSSincResNet, SincFilterbank


class TorchConv(nn.Module):
    """Filters clips [batch, 1, time] by PyTorch's ``conv1d``."""

    def __init__(self, bank: SincFilterbank):
        super().__init__()
        self.bank = copy.deepcopy(bank)

    def forward(self, wavs: Tensor) -> Tensor:
        return F.conv1d(wavs, self.bank.filters()[:, None], padding="same")


class JuliusConv(TorchConv):
    """The same by julius' ``fft_conv1d``, which works in blocks."""

    def forward(self, wavs: Tensor) -> Tensor:
        from julius import fft_conv1d

        filters = self.bank.filters()[:, None]
        return fft_conv1d(wavs, filters, padding=self.bank.kernel_size // 2)


class TorchaudioConv(TorchConv):
    """The same by torchaudio's ``fftconvolve``, one transform per clip."""

    def forward(self, wavs: Tensor) -> Tensor:
        from torchaudio.functional import fftconvolve

        # A convolution, not a correlation; the filters are symmetric.
        return fftconvolve(wavs, self.bank.filters()[None], mode="same")


class SpeechBrainConv(nn.Module):
    """The same by SpeechBrain's ``SincConv``, with zeros beyond the edges."""

    def __init__(self, bank: SincFilterbank):
        super().__init__()
        from speechbrain.nnet.CNN import SincConv

        self.conv = SincConv(
            bank.n_filters,
            bank.kernel_size,
            in_channels=1,
            padding_mode="constant",
            sample_rate=bank.sample_rate,
            min_low_hz=bank.min_low_hz,
            min_band_hz=bank.min_band_hz,
        )
        self.conv.load_state_dict(bank.state_dict())

    def forward(self, wavs: Tensor) -> Tensor:
        return self.conv(wavs[:, 0]).mT


def asteroid_conv(bank: SincFilterbank) -> nn.Module:
    """asteroid-filterbanks' ``ParamSincFB``: half as many bands, each even and odd."""
    from asteroid_filterbanks import Encoder, ParamSincFB

    filterbank = ParamSincFB(
        bank.n_filters,
        bank.kernel_size,
        stride=1,
        sample_rate=bank.sample_rate,
        min_low_hz=bank.min_low_hz,
        min_band_hz=bank.min_band_hz,
    )
    return Encoder(filterbank, padding=bank.kernel_size // 2)


CONVOLUTIONS = {
    "plain": TorchConv,
    "SpeechBrain's SincConv": SpeechBrainConv,
    "asteroid-filterbanks' ParamSincFB": asteroid_conv,
    "julius' fft_conv1d": JuliusConv,
    "torchaudio's fftconvolve": TorchaudioConv,
}

_OPTIONAL = {asteroid_conv: "asteroid_filterbanks", JuliusConv: "julius"}


def is_installed(name: str) -> bool:
    """True if the package that a convolution needs is installed."""
    package = _OPTIONAL.get(CONVOLUTIONS[name])
    return package is None or find_spec(package) is not None


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
