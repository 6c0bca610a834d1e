"""Waveform and filters to pooled maps, the paper's eqs. (6) to (8), for one scale.

Shapes: wavs [batch, time], filters [n_filters, kernel_size], maps [batch, n_filters,
n_frames]. ``padding`` is the number of zeros on either side of a waveform.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ms_sincresnet.nnet.backends import fft, simd, songs, tensor_cores
from ms_sincresnet.nnet.sync_batch_norm import (
    SharedBatchNorm1d,
    moments_over_processes,
    scale_and_offset,
    update_running_statistics,
)

BACKENDS = ("auto", "reference", "fft", "simd", "tensor_cores")
OPERATORS = {"fft": fft, "simd": simd, "tensor_cores": tensor_cores}
NEEDS = {
    "fft": "float32 or float64",
    "simd": f"float32 on the CPU, kernels of at most {simd.FFT_SIZE // 2} taps and an "
    "installation that found a C compiler",
    "tensor_cores": "float32 on an NVIDIA GPU",
}


def filtered_maps(
    wavs: Tensor,
    filters: Tensor,
    norm: _BatchNorm,
    n_frames: int,
    padding: int = 0,
    backend: str = "auto",
    half: bool = False,
) -> Tensor:
    """Maps of normalised clips by one of ``BACKENDS``.

    "reference" is the definition. The others fold the batch norm into the filters, so
    that one operator does the rest; they give no gradient to the waveform. ``half``
    lets tensor cores round as in autocast.
    """
    if backend == "auto":
        backend = fastest_backend(wavs, filters, norm, half)
    if backend == "reference":
        filtered = F.conv1d(wavs[:, None], filters[:, None], padding=padding)
        return F.adaptive_avg_pool1d(norm(filtered).relu(), n_frames)
    _check_backend(backend, wavs, filters, norm)
    statistics = []
    if norm.training:
        count: Any = len(wavs) * (wavs.shape[1] + 2 * padding - filters.shape[1] + 1)
        mean, variance = output_statistics(wavs, filters, padding)
        if isinstance(norm, SharedBatchNorm1d):
            mean, variance, count = moments_over_processes(mean, variance, count)
        update_running_statistics(norm, mean, variance, count)
        statistics = [mean, variance]
    filters, offsets = fold_norm(filters, norm, *statistics)
    options = {"half": half} if backend == "tensor_cores" else {}
    operator = OPERATORS[backend].filter_and_pool
    return operator(wavs, filters, offsets, n_frames, padding, **options)


def fastest_backend(
    wavs: Tensor, filters: Tensor, norm: _BatchNorm, half: bool = False
) -> str:
    """The fastest backend that suits clips, filters, batch norm and precision."""
    if (
        wavs.requires_grad
        or wavs.shape[1] < filters.shape[1]
        or wavs.shape[0] == 0  # FFTs take no empty batch
        or wavs.dtype not in (torch.float32, torch.float64)  # FFTs take no other
        or not isinstance(norm, nn.BatchNorm1d)  # SyncBatchNorm shares its own way
    ):
        return "reference"
    if half and wavs.dtype == torch.float32 and tensor_cores.suits(wavs):
        return "tensor_cores"  # in float32 FFTs are as fast
    return "simd" if simd.suits(wavs, filters) else "fft"


def song_piece(
    wav: Tensor,
    scales: Sequence[tuple[Tensor, _BatchNorm, int]],
    clip_samples: int,
    hop_samples: int,
    backend: str,
) -> int | None:
    """Samples of the pieces in which a song is filtered once; None: clip by clip.

    A scale is filters, norm and padding.
    """
    learned = [wav]
    for filters, norm, _ in scales:
        learned += [filters, *norm.parameters()]
    if (
        backend not in ("auto", "simd")
        or any(norm.training for _, norm, _ in scales)
        or (torch.is_grad_enabled() and any(value.requires_grad for value in learned))
        or not all(simd.suits(wav, filters) for filters, _, _ in scales)
    ):
        return None
    longest = max(filters.shape[1] for filters, _, _ in scales)
    return songs.piece_size(clip_samples, hop_samples, longest)


def _check_backend(
    backend: str, wavs: Tensor, filters: Tensor, norm: _BatchNorm
) -> None:
    """Raises if a backend would fail, or compute something else."""
    if not isinstance(norm, nn.BatchNorm1d):
        raise ValueError(
            f"backend={backend!r} needs a BatchNorm1d; got a {type(norm).__name__}. "
            "Use backend='auto'"
        )
    suits = {
        "fft": wavs.dtype in (torch.float32, torch.float64),
        "simd": simd.suits(wavs, filters),
        "tensor_cores": wavs.device.type != "cpu" and wavs.dtype == torch.float32,
    }
    if not suits[backend]:
        loops = "" if simd.LIBRARY else ", and no compiled loops"
        raise ValueError(
            f"backend={backend!r} needs {NEEDS[backend]}; got {wavs.dtype} on "
            f"{wavs.device.type}, {filters.shape[1]} taps{loops}. Use backend='auto'"
        )


def fold_norm(
    filters: Tensor,
    norm: _BatchNorm,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Filters and offsets, x ⋆ (a·g) + b, by running statistics or those given."""
    if mean is None or variance is None:
        mean, variance = norm.running_mean, norm.running_var
    scale, offsets = scale_and_offset(norm, mean, variance)
    return (filters * scale[:, None]).to(filters.dtype), offsets.to(filters.dtype)


def output_statistics(
    wavs: Tensor, filters: Tensor, padding: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [n_filters] of filters' outputs, without the outputs.

    With y = x ⋆ g, the sum of y is the product of g with sliding sums of x, and the sum
    of y² over the whole support of y is the product of the autocorrelations of x and g.
    The support exceeds the output by a few values at the edges, which are subtracted.
    In float64, since a narrow band's variance is a small difference of large numbers.
    """
    wavs, filters = wavs.double(), filters.double()
    n_samples, kernel_size = wavs.shape[1], filters.shape[1]
    n_outputs = n_samples + 2 * padding - kernel_size + 1
    total = len(wavs) * n_outputs

    # Tap j meets the samples j − padding … j − padding + n_outputs − 1.
    sums = F.pad(wavs.sum(0).cumsum(0), (1, 0))
    first = torch.arange(kernel_size, device=wavs.device) - padding
    ends = (first + n_outputs).clamp(0, n_samples)
    mean = filters @ (sums[ends] - sums[first.clamp(0, n_samples)]) / total

    # Lags reach to kernel_size − 1: the FFT must not wrap them.
    fft_size = 1 << (n_samples + kernel_size - 1).bit_length()
    lags_of_x = torch.fft.irfft(torch.fft.rfft(wavs, fft_size).abs().square().sum(0))
    fft_size = 1 << (2 * kernel_size - 1).bit_length()
    lags_of_g = torch.fft.irfft(torch.fft.rfft(filters, fft_size).abs().square())
    products = lags_of_g[:, :kernel_size] @ lags_of_x[:kernel_size]
    energy = 2 * products - lags_of_g[:, 0] * lags_of_x[0]

    beyond = kernel_size - 1 - padding  # outputs of the support beyond either edge
    if beyond:
        start, end = wavs[:, :beyond].flip(1), wavs[:, -beyond:]
        for taps, edge in [(filters.flip(1), start), (filters, end)]:
            edge = F.pad(edge, (beyond - edge.shape[1], 0))  # of a very short waveform
            energy = energy - _energy_beyond(edge, taps)
    return mean, energy / total - mean.square()


def _energy_beyond(end: Tensor, filters: Tensor) -> Tensor:
    """Energy of the outputs that see only the last samples of a waveform.

    With e_i the last n samples, output t is Σ_i g_i e_(t + i). Their total energy is
    Σ g_i R_ij g_j, where R_ij is the sum of e_(i + t) e_(j + t) over t ≥ 0.
    """
    n = end.shape[1]
    filters = filters[:, :n]
    # Row i of the view holds the values right of the diagonal, from element (i, i) on.
    products = F.pad(end.mT @ end, (0, n)).flatten()
    sums = torch.zeros_like(products)
    along = {"dimension": 0, "size": n, "step": 2 * n + 1}
    sums.unfold(**along).copy_(products.unfold(**along).flip(0).cumsum(0).flip(0))
    right = sums.view(n, 2 * n)[:, :n]
    both = right + right.mT - right.diag().diag()
    return ((filters @ both) * filters).sum(1)
