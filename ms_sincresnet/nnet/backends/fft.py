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

from ms_sincresnet.nnet.backends.op import filter_and_pool_operator

GROUP = 8  # filters at a time: 16 blocks of 4096 samples of each fit the cache
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
        InputCheck.
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


def average(activations, n_samples, n_frames):
    """``adaptive_avg_pool1d`` of the first samples, in less time.

    Frame i averages the samples ⌊i N / F⌋ to ⌈(i + 1) N / F⌉ − 1. Where N / F is an
    integer, or 1 / F below one in each period, the frames lie evenly but for a sample
    at their ends, and a sum over a strided view, which is vectorised, does most of it.

    Arguments
    ---------
    activations : torch.Tensor [..., time]
        Activations, contiguous.
    n_samples : int
        N, how many samples of each row count.
    n_frames : int
        F, frames a row.

    Returns
    -------
    torch.Tensor [..., n_frames]
        Averages.

    Example
    -------
    >>> average(torch.tensor([1.0, 2.0, 6.0, 100.0]), n_samples=3, n_frames=2)
    tensor([1.5000, 4.0000])
    """
    periods = gcd(n_samples, n_frames)
    period, frames = n_samples // periods, n_frames // periods
    width = -(-period // frames)
    uneven = width * frames - period
    activations = activations[..., :n_samples]
    if uneven > 1:
        return F.adaptive_avg_pool1d(activations.flatten(0, -2), n_frames).view(
            *activations.shape[:-1], n_frames
        )
    activations = activations.unflatten(-1, (periods, period))
    if not uneven:
        return activations.unflatten(-1, (frames, width)).mean(-1).flatten(-2)
    # Frame 0 has the samples 0 … width − 1; frame i starts at i · width − 1, where
    # frame i − 1 ends, and is one longer, but for the last one.
    sums = activations.new_empty(*activations.shape[:-1], frames)
    starts = activations[..., width - 1 :]
    torch.sum(activations[..., :width], -1, out=sums[..., 0])
    torch.sum(starts.unflatten(-1, (frames - 1, width)), -1, out=sums[..., 1:])
    sums[..., 1:-1] += starts[..., width::width]
    counts = sums.new_full([frames], width + 1)
    counts[[0, -1]] = width
    return sums.div_(counts).flatten(-2)


def _forward(wavs, filters, offsets, n_frames, padding, keep_masks):
    """Maps, and of each activation whether it is positive, if that is to be kept.

    A byte of the masks [batch, groups, n_blocks, hop] holds a group of eight filters.
    """
    batch, (n_filters, kernel_size) = len(wavs), filters.shape
    n_samples = wavs.shape[1] + 2 * padding - kernel_size + 1
    plan = plan_blocks(n_samples, n_frames, kernel_size)
    spectra = block_spectra(wavs, plan, padding)[:, None]
    # Correlation, as conv1d: the filters' spectra are conjugated. conj(), which is
    # lazy, would be forgotten where a compiled caller runs this.
    responses = torch.fft.rfft(filters, plan.fft_size).conj_physical()[:, None]
    offsets = plan.fft_size * offsets[:, None]
    maps = wavs.new_empty(batch, n_filters, n_frames)
    masks = _new_masks(wavs, filters, n_frames, padding, keep_masks)
    for clips in _at_a_time(wavs):
        for group, few in enumerate(_groups(n_filters)):
            product = spectra[clips] * responses[few]
            # At frequency 0 an offset is added to every sample at no cost.
            product[..., 0] += offsets[few]
            activations = torch.fft.irfft(product, plan.fft_size).relu_()
            averages = average(activations, plan.hop, plan.frames)
            maps[clips, few] = averages.flatten(2)[..., :n_frames]
            if keep_masks:
                bits = activations[..., : plan.hop].bool().view(torch.uint8)
                bits = bits << _places(few, bits.device)
                torch.sum(bits, 1, dtype=torch.uint8, out=masks[clips, group])
    return maps, masks


def _backward(grad_maps, wavs, masks, kernel_size, padding):
    """Gradients of filters and offsets."""
    n_filters, n_frames = grad_maps.shape[1:]
    n_samples = wavs.shape[1] + 2 * padding - kernel_size + 1
    plan = plan_blocks(n_samples, n_frames, kernel_size)
    conj_spectra = block_spectra(wavs, plan, padding).conj_physical()[:, None]
    grad_maps = F.pad(grad_maps, (0, plan.n_blocks * plan.frames - n_frames))
    grad_maps = grad_maps.unflatten(-1, (plan.n_blocks, 1, plan.frames))
    grad_responses = conj_spectra.new_zeros(n_filters, conj_spectra.shape[-1])
    grad_offsets = grad_maps.new_zeros(n_filters)
    for clips in _at_a_time(wavs):
        for group, few in enumerate(_groups(n_filters)):
            grad = grad_maps[clips, few].flatten(0, 1)
            grad = torch.ops.aten._adaptive_avg_pool2d_backward(
                grad, grad.new_empty(1).expand(*grad.shape[:-1], plan.hop)
            ).view(-1, few.stop - few.start, plan.n_blocks, plan.hop)
            bits = masks[clips, group, None] >> _places(few, masks.device)
            grad = torch.fft.rfft(grad.mul_((bits & 1).to(grad.dtype)), plan.fft_size)
            grad_offsets[few] += grad[..., 0].real.sum((0, 2))
            grad_responses[few] += grad.mul_(conj_spectra[clips]).sum((0, 2))
    # Of the correlation's conjugate spectrum: back to front.
    grad_filters = torch.fft.irfft(grad_responses.conj_physical_(), plan.fft_size)
    return grad_filters[:, :kernel_size].contiguous(), grad_offsets


def _new_masks(wavs, filters, n_frames, padding, keep):
    """Uninitialised masks, or none."""
    if not keep:
        return wavs.new_empty(0, dtype=torch.uint8)
    n_filters, kernel_size = filters.shape
    n_samples = wavs.shape[1] + 2 * padding - kernel_size + 1
    plan = plan_blocks(n_samples, n_frames, kernel_size)
    shape = wavs.shape[0], len(_groups(n_filters)), plan.n_blocks, plan.hop
    return wavs.new_empty(shape, dtype=torch.uint8)


def _groups(n_filters):
    """Slices of eight filters."""
    firsts = range(0, n_filters, GROUP)
    return [slice(first, min(first + GROUP, n_filters)) for first in firsts]


def _places(few, device):
    """Which bit of the masks' bytes each filter of a group has, [group, 1, 1]."""
    places = torch.arange(few.stop - few.start, dtype=torch.uint8, device=device)
    return places[:, None, None]


def _at_a_time(wavs):
    """Slices of the clips whose activations are in memory together.

    One clip's stay in a processor's cache; a GPU wants more work at once.
    """
    if wavs.device.type != "cpu":
        return [slice(0, len(wavs))]
    return [slice(clip, clip + 1) for clip in range(len(wavs))]


filter_and_pool = filter_and_pool_operator(
    "fft_filter_and_pool", _forward, _backward, _new_masks
)
