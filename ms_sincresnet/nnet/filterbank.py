"""Cut-off frequencies to band-pass FIR filters, and the initial cut-offs."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ms_sincresnet.nnet.devices import capable


def half_hamming_window(kernel_size: int, device: torch.device | None = None) -> Tensor:
    """SincNet's Hamming window [kernel_size] in float64: a half, mirrored about 1.

    At L = 251, it is within 2.7e-5 of the textbook's symmetric window, and within
    0.0089 of the paper's eq. (5), which is not symmetric.
    """
    half, last = kernel_size // 2, kernel_size / 2 - 1
    u = torch.linspace(0, last, half, dtype=torch.float64, device=device)
    left = 0.54 - 0.46 * torch.cos(2 * torch.pi * u / kernel_size)
    return torch.cat([left, left.new_ones(1), left.flip(0)])


def sinc_filters(
    low_hz: Tensor, high_hz: Tensor, kernel_size: int, sample_rate: int
) -> Tensor:
    """Windowed-sinc band-pass impulse responses, in float64.

    The paper's eqs. (3) to (5), divided by twice the bandwidth as in SincNet, so that
    every centre tap is 1. The outer taps of 1001 have phases of 1500 rad, which float32
    resolves to no better than 1e-4.

    Arguments
    ---------
    low_hz, high_hz
        Cut-off frequencies [n_filters], in Hz.
    kernel_size, sample_rate
        Taps, L (odd), and sample rate in Hz.

    Returns
    -------
    Taps [n_filters, kernel_size].

    Example
    -------
    >>> sinc_filters(torch.tensor([50.0]), torch.tensor([150.0]), 251, 16000).shape
    torch.Size([1, 251])
    """
    f1, f2 = (hz.double()[:, None] / sample_rate for hz in (low_hz, high_hz))
    n = torch.arange(-(kernel_size // 2), 0, dtype=f1.dtype, device=f1.device)
    band, no_band = f2 - f1, f1 == f2
    left = 2 * f2 * torch.sinc(2 * f2 * n) - 2 * f1 * torch.sinc(2 * f1 * n)
    left = left / (2 * band + no_band)
    left = torch.where(no_band, torch.cos(2 * torch.pi * f1 * n), left)  # its limit
    taps = torch.cat([left, torch.ones_like(f1), left.flip(1)], dim=1)
    return taps * half_hamming_window(kernel_size, taps.device)


# Each scale as a function of the frequency in Hz, and its inverse. Bark is that of
# Traunmüller (JASA 88, 1990) without his corrections at the ends, which would add
# kinks; ERB that of Glasberg and Moore (Hearing Research 47, 1990).
SCALES = {
    "mel": (
        lambda hz: 2595 * torch.log10(1 + hz / 700),
        lambda mel: 700 * (10 ** (mel / 2595) - 1),
    ),
    "linear": (lambda hz: hz, lambda hz: hz),
    "bark": (
        lambda hz: 26.81 * hz / (1960 + hz) - 0.53,
        lambda bark: 1960 * (bark + 0.53) / (26.28 - bark),
    ),
    "erb": (
        lambda hz: 21.4 * torch.log10(1 + 0.00437 * hz),
        lambda erb: (10 ** (erb / 21.4) - 1) / 0.00437,
    ),
}
INITS = (*SCALES, "octave", "nase", "random")
PARAMETRIZATIONS = ("hz", "relative")


def _octave_edges(n_bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Octave bands from 200 Hz up, and one below, cut into equal parts in Hz.

    D.-N. Jiang et al., "Music type classification by spectral contrast feature",
    ICME 2002. The last octave is stretched or cut to end at ``high_hz``.
    """
    n_octaves = round(math.log2(high_hz / 200))
    octaves_hz = [low_hz, *(200.0 * 2**octave for octave in range(n_octaves)), high_hz]
    octaves = np.linspace(0, len(octaves_hz) - 1, n_bands + 1)
    return np.interp(octaves, np.arange(len(octaves_hz)), octaves_hz)


def _nase_edges(n_bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Equal parts of an octave between MPEG-7's outer edges, one band beyond each.

    H.-G. Kim, N. Moreau, T. Sikora, "Audio classification based on MPEG-7 spectral
    basis representations", IEEE TCSVT 14, 2004.
    """
    inner_hz = [hz for hz in (62.5, 16000.0) if hz < high_hz]
    outer = min(1, n_bands / 3)  # one or two bands leave no room for outer ones
    bands = [0, outer, n_bands - outer][: len(inner_hz) + 1] + [n_bands]
    log_hz = np.log2([low_hz, *inner_hz, high_hz])
    return 2 ** np.interp(np.arange(n_bands + 1), bands, log_hz)


def initial_edges(
    init: str, n_filters: int, sample_rate: int, min_low_hz: float, min_band_hz: float
) -> Tensor:
    """Edges [n_filters + 1] of neighbouring bands, in Hz and float64.

    From 30 Hz to f_s/2 − ``min_low_hz`` − ``min_band_hz``, since the filterbank adds
    both: a filter starts ``min_low_hz`` above its band and is ``min_band_hz`` wider.
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}; got {init!r}")
    low_hz, high_hz = 30.0, sample_rate / 2 - (min_low_hz + min_band_hz)
    if init == "octave":
        return torch.from_numpy(_octave_edges(n_filters, low_hz, high_hz))
    if init == "random":
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        inner = torch.rand(n_filters - 1, dtype=torch.float64)
        return low_hz + (high_hz - low_hz) * torch.cat([ends, inner]).sort().values
    if init == "nase":
        return torch.from_numpy(_nase_edges(n_filters, low_hz, high_hz))
    to_scale, to_hz = SCALES[init]
    low, high = to_scale(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    return to_hz(torch.linspace(low, high, n_filters + 1, dtype=torch.float64))


class _Limit(torch.autograd.Function):
    """Clamps values; descent moves one beyond the limits back, whatever the loss.

    The last filter starts at half the sample rate, and is not beyond by rounding.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, least: Tensor, most: Tensor) -> Tensor:
        """Values within the limits."""
        limited = torch.minimum(torch.maximum(values, least), most)
        ctx.save_for_backward(values - limited)
        return limited

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The gradient; beyond a limit, its size with the sign that leads back."""
        (excess,) = ctx.saved_tensors
        inward = grad.abs() * excess.sign()
        return torch.where(excess.abs() < 1e-6, grad, inward), None, None


class SincFilterbank(nn.Module):
    """Band-pass filters of which only the two cut-off frequencies are learned.

    M. Ravanelli, Y. Bengio, "Speaker recognition from raw waveform with SincNet",
    SLT 2018; the paper's section 2.1, eqs. (1) to (5).

    In Hz, as in SincNet, the lower cut-off is ``min_low_hz + |low_hz_|``, the upper one
    ``min_band_hz + |band_hz_|`` above it and at most half the sample rate. At the
    paper's learning rate such parameters hardly move. Relative ones have no unit: of a
    filter that starts at the edge l with the bandwidth b, ``l + b * low_shift_`` is the
    lower cut-off and ``b * exp(log_band_)`` the bandwidth, within the same limits.

    Arguments
    ---------
    n_filters
        Filters in the bank, K.
    kernel_size
        Taps of each filter, L (odd). 251 taps are 15.7 ms at 16 kHz.
    sample_rate
        Sample rate of the waveform, in Hz.
    init
        Initial cut-offs: evenly spaced in "mel" (SincNet's), "linear" (Hz), "bark" or
        "erb"; or the bands of octave-based spectral contrast, "octave", or of MPEG-7's
        normalised audio spectrum envelope, "nase"; or edges drawn evenly in Hz by
        PyTorch's generator, "random".
    min_low_hz, min_band_hz
        Least lower cut-off frequency and least bandwidth, in Hz.
    parametrization
        "hz": SincNet's and SpeechBrain's ``low_hz_`` and ``band_hz_``. "relative":
        ``low_shift_`` and ``log_band_``, and the initial cut-offs as buffers.

    Raises
    ------
    ValueError
        If ``kernel_size`` is even, or ``init`` or ``parametrization`` is unknown.

    Example
    -------
    >>> bank = SincFilterbank(n_filters=160, kernel_size=251)
    >>> bank.filters().shape
    torch.Size([160, 251])
    >>> sum(p.numel() for p in bank.parameters())  # two per filter, however long
    320
    """

    def __init__(
        self,
        n_filters: int = 160,
        kernel_size: int = 251,
        sample_rate: int = 16000,
        init: str = "mel",
        min_low_hz: float = 50.0,
        min_band_hz: float = 50.0,
        parametrization: str = "hz",
    ):
        super().__init__()
        if not isinstance(n_filters, int) or n_filters < 1:
            raise ValueError(f"n_filters must be a whole number ≥ 1; got {n_filters!r}")
        if not isinstance(kernel_size, int) or kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and ≥ 3; got {kernel_size!r}")
        self.n_filters = n_filters
        self.kernel_size = kernel_size
        self.sample_rate = sample_rate
        self.min_low_hz = min_low_hz
        self.min_band_hz = min_band_hz
        if parametrization not in PARAMETRIZATIONS:
            known = " or ".join(PARAMETRIZATIONS)
            raise ValueError(
                f"parametrization must be {known}; got {parametrization!r}"
            )
        self.parametrization = parametrization
        edges_hz = initial_edges(init, n_filters, sample_rate, min_low_hz, min_band_hz)
        low_hz, band_hz = edges_hz[:-1, None].float(), edges_hz.diff()[:, None].float()
        if parametrization == "hz":
            self.low_hz_, self.band_hz_ = nn.Parameter(low_hz), nn.Parameter(band_hz)
        else:
            self.low_shift_ = nn.Parameter(torch.zeros(n_filters, 1))
            self.log_band_ = nn.Parameter(torch.zeros(n_filters, 1))
            # Saved, so that a model loads whatever ``init`` its class is built with.
            self.register_buffer("first_low_hz", low_hz)
            self.register_buffer("first_band_hz", band_hz)

    def cutoffs(self) -> tuple[Tensor, Tensor]:
        """Lower and upper cut-off frequencies [n_filters], in Hz and float64."""
        names = ["low_hz_", "band_hz_"]
        if self.parametrization == "relative":
            names = ["low_shift_", "log_band_", "first_low_hz", "first_band_hz"]
        values = [capable(getattr(self, name)).double()[:, 0] for name in names]
        half_rate = self.sample_rate / 2
        if self.parametrization == "hz":
            low_hz = self.min_low_hz + values[0].abs()
            high_hz = low_hz + self.min_band_hz + values[1].abs()
            return low_hz, high_hz.clamp(self.min_low_hz, half_rate)
        low_shift, log_band, first_low_hz, first_band_hz = values
        first_low_hz = self.min_low_hz + first_low_hz
        first_band_hz = self.min_band_hz + first_band_hz
        least_hz, most_hz = self.min_low_hz, half_rate - self.min_band_hz
        low_shift = _Limit.apply(
            low_shift,
            (least_hz - first_low_hz) / first_band_hz,
            (most_hz - first_low_hz) / first_band_hz,
        )
        # Limited before exp, which would overflow.
        log_band = _Limit.apply(
            log_band,
            torch.log(self.min_band_hz / first_band_hz),
            torch.log((half_rate - self.min_low_hz) / first_band_hz),
        )
        low_hz = first_low_hz + first_band_hz * low_shift
        high_hz = low_hz + first_band_hz * log_band.exp()
        return low_hz, _Limit.apply(high_hz, low_hz, high_hz.new_tensor(half_rate))

    def filters(self) -> Tensor:
        """Impulse responses [n_filters, kernel_size] in the parameters' type."""
        taps = sinc_filters(*self.cutoffs(), self.kernel_size, self.sample_rate)
        parameter = next(self.parameters())
        return taps.to(parameter.dtype).to(parameter.device)  # which may lack float64
