"""Waveform × filters → affine → ReLU → pooled map in FFT blocks, pooled while in cache.

The fast path of ``filtering``. Every activation is needed, since a ReLU stands
between filter and average, but none needs to be kept. A block's spectrum, multiplied
by that of a few filters, is transformed back, rectified and averaged before the next
few filters are looked at, so the 3 × 160 × 48,000 activations of a clip never leave
the processor's cache.
"""

from math import gcd
from typing import NamedTuple

import torch
from torch.nn import functional as F

FILTERS_AT_A_TIME = 8  # 16 blocks × 8 filters × 4096 samples are 2 MiB: a core's cache
LEAST_FFT = 4096


class BlockPlan(NamedTuple):
    """How an output of so many samples is cut into blocks that pool on their own.

    Arguments
    ---------
    fft_size : int
        Samples of input that a block's FFT takes.
    hop : int
        Samples of output a block.
    frames : int
        Frames of the map a block.
    n_blocks : int
        Number of blocks.
    """

    fft_size: int
    hop: int
    frames: int
    n_blocks: int


def plan_blocks(n_samples, n_frames, kernel_size):
    """Cuts an output into blocks whose averages do not reach into the next block.

    ``adaptive_avg_pool1d`` repeats its windows every n_samples / gcd(n_samples,
    n_frames) samples: 375 samples and 8 frames for 48,000 samples and 1024 frames.
    A block is as many of these periods as one FFT holds.

    Arguments
    ---------
    n_samples : int
        Samples of output.
    n_frames : int
        Frames of the map.
    kernel_size : int
        Taps of the filters.

    Returns
    -------
    BlockPlan
        Size of the FFT, samples and frames a block, and number of blocks.

    Example
    -------
    >>> plan_blocks(48000, 1024, kernel_size=1001)
    BlockPlan(fft_size=4096, hop=3000, frames=64, n_blocks=16)
    """
    periods = gcd(n_samples, n_frames)
    period = n_samples // periods
    fft_size = max(LEAST_FFT, 1 << (period + kernel_size - 2).bit_length())
    periods_a_block = min(periods, (fft_size - kernel_size + 1) // period)
    return BlockPlan(
        fft_size,
        hop=periods_a_block * period,
        frames=periods_a_block * n_frames // periods,
        n_blocks=-(-periods // periods_a_block),
    )


def block_spectra(wavs, plan, padding):
    """Spectra of the overlapping stretches of input that the blocks of output need.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Waveforms.
    plan : BlockPlan
        The blocks.
    padding : int
        Zeros on either side of the waveform.

    Returns
    -------
    torch.Tensor [batch, n_blocks, fft_size // 2 + 1]
        Complex spectra.

    Example
    -------
    >>> plan = plan_blocks(48000, 1024, kernel_size=1001)
    >>> block_spectra(torch.rand(2, 48000), plan, padding=500).shape
    torch.Size([2, 16, 2049])
    """
    reach = (plan.n_blocks - 1) * plan.hop + plan.fft_size
    padded = F.pad(wavs, (padding, reach - padding - wavs.shape[-1]))
    return torch.fft.rfft(padded.unfold(-1, plan.fft_size, plan.hop))


class _FilterAndPool(torch.autograd.Function):
    """The operator behind ``filter_and_pool``, whose arguments and result it has.

    What it keeps for the backward pass is the input's spectrum and, for each
    activation, whether it is positive.
    """

    @staticmethod
    def forward(ctx, wavs, filters, offsets, n_frames, padding, keep_mask):
        """Computes the maps; ``keep_mask`` tells whether a backward pass follows."""
        kernel_size = filters.shape[1]
        n_samples = wavs.shape[1] + 2 * padding - kernel_size + 1
        plan = plan_blocks(n_samples, n_frames, kernel_size)
        spectra = block_spectra(wavs, plan, padding)
        # Correlation, as conv1d: the filters' spectra are conjugated.
        responses = torch.fft.rfft(filters, plan.fft_size).conj().resolve_conj()
        batch, n_filters = len(wavs), len(filters)
        maps = wavs.new_empty(batch, n_filters, plan.n_blocks * plan.frames)
        masks = None
        if keep_mask:
            masks = torch.empty(
                (batch, n_filters, plan.n_blocks, plan.hop),
                dtype=torch.bool,
                device=wavs.device,
            )
        for clip in range(batch):
            for first in range(0, n_filters, FILTERS_AT_A_TIME):
                few = slice(first, first + FILTERS_AT_A_TIME)
                product = spectra[clip] * responses[few, None]
                # At frequency 0 an offset is added to every sample at no cost.
                product[..., 0] += plan.fft_size * offsets[few, None]
                filtered = torch.fft.irfft(product, plan.fft_size)[..., : plan.hop]
                if keep_mask:
                    torch.gt(filtered, 0, out=masks[clip, few])
                pooled = F.adaptive_avg_pool1d(filtered.relu(), plan.frames)
                maps[clip, few] = pooled.flatten(1)
        ctx.plan, ctx.kernel_size = plan, kernel_size
        ctx.save_for_backward(spectra, masks)
        return maps[..., :n_frames]

    @staticmethod
    def backward(ctx, grad_maps):
        """Gradients of filters and offsets; the waveform gets none."""
        spectra, masks = ctx.saved_tensors
        plan = ctx.plan
        batch, n_filters, n_frames = grad_maps.shape
        grad_maps = F.pad(grad_maps, (0, plan.n_blocks * plan.frames - n_frames))
        grad_maps = grad_maps.unflatten(-1, (plan.n_blocks, plan.frames)).contiguous()
        grad_responses = spectra.new_zeros(n_filters, spectra.shape[-1])
        grad_offsets = grad_maps.new_zeros(n_filters)
        shape = grad_maps.new_empty(1).expand(
            min(FILTERS_AT_A_TIME, n_filters), plan.n_blocks, 1, plan.hop
        )
        for clip in range(batch):
            for first in range(0, n_filters, FILTERS_AT_A_TIME):
                few = slice(first, first + FILTERS_AT_A_TIME)
                grad = grad_maps[clip, few, :, None]
                grad = torch.ops.aten._adaptive_avg_pool2d_backward(
                    grad, shape[: len(grad)]
                ).squeeze(2)
                grad = grad.mul_(masks[clip, few])
                grad_offsets[few] += grad.sum((1, 2))
                grad_spectra = torch.fft.rfft(grad, plan.fft_size)
                grad_responses[few] += grad_spectra.conj().mul(spectra[clip]).sum(1)
        grad_filters = torch.fft.irfft(grad_responses, plan.fft_size)
        return None, grad_filters[:, : ctx.kernel_size], grad_offsets, None, None, None


def filter_and_pool(wavs, filters, offsets, n_frames, padding=0):
    """Filters, adds, rectifies and averages: ReLU(x ⋆ g + c), pooled.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Waveforms; they get no gradient.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters, with the scale of the batch norm on them.
    offsets : torch.Tensor [n_filters]
        What is added to each filter's output before the ReLU.
    n_frames : int
        Frames of the map.
    padding : int
        Zeros on either side of the waveform.

    Returns
    -------
    torch.Tensor [batch, n_filters, n_frames]
        The maps.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480), torch.ones(3, 5)
    >>> filter_and_pool(wavs, filters, torch.zeros(3), n_frames=16, padding=2).shape
    torch.Size([2, 3, 16])
    """
    keep_mask = torch.is_grad_enabled() and (
        filters.requires_grad or offsets.requires_grad
    )
    return _FilterAndPool.apply(wavs, filters, offsets, n_frames, padding, keep_mask)


def output_moments(wavs, filters, padding=0):
    """Mean and variance of every filter's output, without computing the output.

    What batch norm needs in training. With y = x ⋆ g, the sum of y is the product of
    g with sliding sums of x, and the sum of y² over the whole support of y is that
    of the autocorrelations of x and g; the outputs beyond the edges, which the
    support has and the output has not, are few, computed and subtracted.
    Differentiable in the filters. In float64, since a narrow band is a small
    difference of large numbers.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Waveforms; they get no gradient.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.
    padding : int
        Zeros on either side of the waveform, less than a kernel.

    Returns
    -------
    mean : torch.Tensor [n_filters]
        Mean over batch and time, in float64.
    variance : torch.Tensor [n_filters]
        Biased variance over batch and time, in float64.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480), torch.rand(3, 5)
    >>> mean, variance = output_moments(wavs, filters, padding=2)
    >>> plain = F.conv1d(wavs[:, None], filters[:, None], padding=2)
    >>> bool((mean - plain.mean((0, 2))).abs().max() < 1e-5)
    True
    """
    wavs, filters = wavs.double(), filters.double()
    n_samples, kernel_size = wavs.shape[1], filters.shape[1]
    n_outputs = n_samples + 2 * padding - kernel_size + 1
    total = len(wavs) * n_outputs

    # Tap j meets the samples j − padding … j − padding + n_outputs − 1.
    sums = F.pad(wavs.sum(0).cumsum(0), (1, 0))
    first = torch.arange(kernel_size, device=wavs.device) - padding
    first, past_last = (
        bound.clamp(0, n_samples) for bound in (first, first + n_outputs)
    )
    sliding = sums[past_last] - sums[first]
    mean = filters @ sliding / total

    # Lags reach to kernel_size − 1: the FFT must not wrap them.
    fft_size = 1 << (n_samples + kernel_size - 1).bit_length()
    lags_of_x = torch.fft.irfft(torch.fft.rfft(wavs, fft_size).abs().square().sum(0))
    fft_size = 1 << (2 * kernel_size - 1).bit_length()
    lags_of_g = torch.fft.irfft(torch.fft.rfft(filters, fft_size).abs().square())
    products = lags_of_g[:, :kernel_size] @ lags_of_x[:kernel_size]
    energy = 2 * products - lags_of_g[:, 0] * lags_of_x[0]

    beyond = kernel_size - 1 - padding  # outputs of the support beyond either edge
    if beyond:
        ends = [wavs[:, :beyond].flip(1), wavs[:, -beyond:]]
        for taps, end in zip([filters.flip(1), filters], ends, strict=True):
            end = F.pad(end, (beyond - end.shape[1], 0))  # of a very short waveform
            energy = energy - _energy_beyond(end, taps)
    return mean, energy / total - mean.square()


def _energy_beyond(end, filters):
    """Energy of the outputs that see only the last samples of a waveform."""
    n = end.shape[1]
    fft_size = 1 << (n + filters.shape[1] - 1).bit_length()
    product = torch.fft.rfft(end, fft_size)[:, None] * (
        torch.fft.rfft(filters, fft_size).conj()
    )
    # Output t of the correlation sees the samples t … t + kernel_size − 1 of the end.
    return torch.fft.irfft(product, fft_size)[..., :n].square().sum((0, 2))
