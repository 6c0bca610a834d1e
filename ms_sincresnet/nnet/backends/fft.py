"""The fast path in PyTorch's own operators: FFT blocks, pooled while in cache.

A ReLU lies between filter and average, so all activations must be computed, but none
need be stored: a block is filtered, rectified and averaged for a few filters at a time,
and a clip's 3 × 160 × 48,000 activations never leave the processor's cache.
"""

from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import op
from ms_sincresnet.nnet.backends.op import Sizes

GROUP = 8  # filters at a time: 16 blocks of 4096 samples of each fit the cache
LEAST_FFT = 4096


class BlockPlan(NamedTuple):
    """A cut of the output into blocks that are pooled independently."""

    fft_size: int
    hop: int  # samples of output per block
    frames: int  # per block
    n_blocks: int

    @classmethod
    def of(cls, sizes: Sizes) -> "BlockPlan":
        """Blocks of as many periods of the frames as one FFT holds."""
        n_periods, samples, frames, *_ = frame_pattern(sizes.n_outputs, sizes.n_frames)
        fft_size = max(LEAST_FFT, 1 << (samples + sizes.kernel_size - 2).bit_length())
        n = min(n_periods, (fft_size - sizes.kernel_size + 1) // samples)
        return cls(fft_size, n * samples, n * frames, n_blocks=-(-n_periods // n))


def frame_pattern(n_samples: int, n_frames: int) -> tuple[int, int, int, int, int]:
    """The periods of ``adaptive_avg_pool1d``; samples, frames, width and slack of each.

    48,000 samples and 1024 frames have 128 periods of 375 samples and 8 frames. Frames
    of slack 0 have ``width`` samples and do not overlap. With slack 1, frame 0 has the
    samples 0 … width − 1; frame i starts at i · width − 1, the last of frame i − 1.
    """
    n_periods = gcd(n_samples, n_frames)
    samples, frames = n_samples // n_periods, n_frames // n_periods
    width = -(-samples // frames)
    return n_periods, samples, frames, width, width * frames - samples


def average(activations: Tensor, n_samples: int, n_frames: int) -> Tensor:
    """``adaptive_avg_pool1d`` of the first samples, faster: sums of strided views."""
    periods, period, frames, width, slack = frame_pattern(n_samples, n_frames)
    activations = activations[..., :n_samples]
    if slack > 1:
        means = F.adaptive_avg_pool1d(activations.flatten(0, -2), n_frames)
        return means.view(*activations.shape[:-1], n_frames)
    activations = activations.unflatten(-1, (periods, period))
    if not slack:
        return activations.unflatten(-1, (frames, width)).mean(-1).flatten(-2)
    sums = activations.new_empty(*activations.shape[:-1], frames)
    starts = activations[..., width - 1 :]
    torch.sum(activations[..., :width], -1, out=sums[..., 0])
    torch.sum(starts.unflatten(-1, (frames - 1, width)), -1, out=sums[..., 1:])
    sums[..., 1:-1] += starts[..., width::width]
    counts = sums.new_full([frames], width + 1)
    counts[[0, -1]] = width
    return sums.div_(counts).flatten(-2)


def spread(grads: Tensor, positive: Tensor) -> Tensor:
    """Gradient of the ReLU and ``average``, in place of the mask of ones and zeros."""
    n_samples, n_frames = positive.shape[-1], grads.shape[-1]
    periods, period, _, width, slack = frame_pattern(n_samples, n_frames)
    starts, ends = op.pool_windows(n_samples, n_frames, grads.device)
    shares = grads / (ends - starts)
    if slack > 1:
        last = ((torch.arange(n_samples) + 1) * n_frames - 1) // n_samples
        total = shares.gather(-1, last.to(grads.device).expand(positive.shape))
        total[..., starts[1:]] += shares[..., :-1] * (starts[1:] < ends[:-1])
        return positive.mul_(total)
    samples = positive.unflatten(-1, (periods, period))
    shares = shares.unflatten(-1, (periods, -1))
    if slack:  # what frame i - 1 gives to the first sample of frame i
        shared = samples[..., width - 1 :: width]
        more = shared * shares[..., :-1]
        samples[..., : width - 1] *= shares[..., :1]
        samples, shares = samples[..., width - 1 :], shares[..., 1:]
    samples.unflatten(-1, (-1, width)).mul_(shares[..., None])
    if slack:
        shared += more
    return positive


def _forward(
    wavs: Tensor, filters: Tensor, offsets: Tensor, sizes: Sizes, masks: Tensor | None
) -> Tensor:
    """Maps; a byte of the masks [batch, groups, n_blocks, hop] holds eight filters."""
    plan = BlockPlan.of(sizes)
    spectra = _spectra(wavs, plan, sizes.padding)
    # Correlation, as conv1d. The lazy conj() is lost where a compiled caller runs this.
    responses = torch.fft.rfft(filters, plan.fft_size).conj_physical()[:, None]
    offsets = plan.fft_size * offsets[:, None]
    maps = wavs.new_empty(sizes.batch, sizes.n_filters, sizes.n_frames)
    for clips in _at_a_time(wavs):
        for group in range(-(-sizes.n_filters // GROUP)):
            few = slice(GROUP * group, GROUP * (group + 1))
            product = spectra[clips] * responses[few]
            # At frequency 0 an offset is added to every sample at no cost.
            product[..., 0] += offsets[few]
            activations = torch.fft.irfft(product, plan.fft_size).relu_()
            averages = average(activations, plan.hop, plan.frames)
            maps[clips, few] = averages.flatten(2)[..., : sizes.n_frames]
            if masks is not None:
                bits = activations[..., : plan.hop].bool().view(torch.uint8)
                bits = bits << _places(bits)
                torch.sum(bits, 1, dtype=torch.uint8, out=masks[clips, group])
    return maps


def _backward(
    grad_maps: Tensor, wavs: Tensor, masks: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """Gradients of filters and offsets."""
    plan = BlockPlan.of(sizes)
    conj_spectra = _spectra(wavs, plan, sizes.padding).conj_physical()
    grad_maps = F.pad(grad_maps, (0, plan.n_blocks * plan.frames - sizes.n_frames))
    grad_maps = grad_maps.unflatten(-1, (plan.n_blocks, plan.frames))
    grad_responses = conj_spectra.new_zeros(sizes.n_filters, conj_spectra.shape[-1])
    grad_offsets = grad_maps.new_zeros(sizes.n_filters)
    for clips in _at_a_time(wavs):
        for group in range(masks.shape[1]):
            few = slice(GROUP * group, GROUP * (group + 1))
            grad = grad_maps[clips, few]
            bits = (masks[clips, group, None] >> _places(grad)) & 1
            grad = spread(grad, bits.to(grad.dtype))
            grad = torch.fft.rfft(grad, plan.fft_size)
            grad_offsets[few] += grad[..., 0].real.sum((0, 2))
            grad_responses[few] += grad.mul_(conj_spectra[clips]).sum((0, 2))
    # The correlation's spectrum is conjugated, so its gradient is reversed in time.
    grad_filters = torch.fft.irfft(grad_responses.conj_physical_(), plan.fft_size)
    return grad_filters[:, : sizes.kernel_size].contiguous(), grad_offsets


def _mask_shape(sizes: Sizes) -> tuple[int, ...]:
    """One bit per activation of each block."""
    plan = BlockPlan.of(sizes)
    return sizes.batch, -(-sizes.n_filters // GROUP), plan.n_blocks, plan.hop


def _spectra(wavs: Tensor, plan: BlockPlan, padding: int) -> Tensor:
    """Spectra of the blocks, [batch, 1, n_blocks, fft_size // 2 + 1]."""
    cut = (plan.fft_size, plan.hop, plan.n_blocks)
    return torch.fft.rfft(op.overlapping_blocks(wavs, padding, *cut))[:, None]


def _places(few: Tensor) -> Tensor:
    """The bits [group, 1, 1] of a group's filters in the bytes of the masks."""
    places = torch.arange(few.shape[1], dtype=torch.uint8, device=few.device)
    return places[:, None, None]


def _at_a_time(wavs: Tensor) -> list[slice]:
    """Slices of the clips whose activations are in memory together."""
    size = 1 if wavs.device.type == "cpu" else len(wavs)  # a GPU needs more work
    return [slice(clip, clip + size) for clip in range(0, len(wavs), size)]


filter_and_pool = op.filter_and_pool_operator(
    "fft_filter_and_pool", _forward, _backward, _mask_shape
)
