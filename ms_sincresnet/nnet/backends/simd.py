"""The fast path on a CPU: the loops of simd.c, if there was a C compiler.

Blocks are filtered by FFT and pooled while in cache, as in ``fft``. Each lane of the
processor's vectors holds two filters, as the real and the imaginary part of a complex
one: the waveform is real, so that the parts of its output are theirs.
"""

import ctypes
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ms_sincresnet.nnet.backends import op
from ms_sincresnet.nnet.backends.op import Sizes

# Floats in a vector, as in setup.py.
LANES_OF = {"avx512": 16, "avx2": 8, "portable": 4}
SIDE = 64
FFT_SIZE = SIDE**2
SPLITS = 8  # partial sums of gradients, computed in parallel


def _load_library() -> tuple[Any, int]:
    """The loops compiled for this processor, and its lanes; None and 1 without them."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    kind = capability if capability in LANES_OF else "portable"
    for file in sorted(Path(__file__).parent.glob(f"_simd_{kind}.*")):
        return ctypes.CDLL(str(file)), LANES_OF[kind]
    return None, 1


LIBRARY, LANES = _load_library()
GROUP = 2 * LANES  # filters at a time
WORK = GROUP * SIDE * (SIDE + 1)  # floats in a block of their outputs


class Windows(ctypes.Structure):
    """``windows_t`` of the C file: the samples that each frame averages."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("n_outputs", "n_frames")),
        *((name, ctypes.c_void_p) for name in ("starts", "ends")),
    ]

    def __init__(self, n_outputs: int, n_frames: int):
        self.edges = [edges.int() for edges in op.pool_windows(n_outputs, n_frames)]
        super().__init__(n_outputs, n_frames, *map(pointer, self.edges))


def suits(wavs: Tensor, filters: Tensor) -> bool:
    """True for float32 on the CPU and kernels of half a block, if there are loops."""
    return (
        LIBRARY is not None
        and wavs.device.type == "cpu"
        and wavs.dtype == filters.dtype == torch.float32
        and filters.shape[1] <= FFT_SIZE // 2
    )


def column_by_column(values: Tensor) -> Tensor:
    """Transposes frequencies [..., 4096] to the order of the loops, and back."""
    return values.unflatten(-1, (SIDE, SIDE)).mT.flatten(-2)


def in_lanes(values: Tensor) -> Tensor:
    """Values [n_filters, ...] as [groups, ..., 2, lanes]; zeros fill the last group."""
    missing = -len(values) % GROUP
    values = torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
    return values.unflatten(0, (-1, 2, LANES)).movedim((1, 2), (-2, -1)).contiguous()


def gains_of(filters: Tensor, offsets: Tensor) -> Tensor:
    """Powers of two [n_filters] that filters are divided and maps multiplied by.

    Without them, a loud filter's rounding would be audible in its lane's other filter.
    """
    peaks = torch.maximum(filters.abs().amax(1), offsets.abs())
    return torch.where(peaks > 0, peaks, 1).log2().floor().exp2()


def responses_of(filters: Tensor) -> Tensor:
    """Responses [groups, 4096, 2, lanes] for correlation, divided by the FFT's size."""
    pairs = torch.view_as_complex(in_lanes(filters).movedim(-2, -1).contiguous())
    responses = column_by_column(torch.fft.ifft(pairs.mT, FFT_SIZE))
    return torch.view_as_real(responses.mT).movedim(-1, -2).contiguous()


def spectra_of(blocks: Tensor) -> Tensor:
    """Complex spectra [..., 4096] of blocks of a waveform, in the loops' order."""
    return column_by_column(torch.fft.fft(blocks, FFT_SIZE)).contiguous()


def roots_of_unity() -> Tensor:
    """e^(2πi k / 4096) for k from 0 to 4095."""
    angles = torch.arange(FFT_SIZE, dtype=torch.float64) * (2 * math.pi / FFT_SIZE)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Address of a contiguous tensor, valid as long as the tensor; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def parallel_map(task: Callable[..., Any], arguments: Iterable[tuple]) -> list:
    """Results of a task per tuple of arguments, in as many threads as PyTorch uses."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(lambda each: task(*each), arguments))


def _forward(
    wavs: Tensor, filters: Tensor, offsets: Tensor, sizes: Sizes, masks: Tensor | None
) -> Tensor:
    """Maps; the masks hold one bit per activation."""
    batch, n_filters, _, _, n_outputs, n_frames = sizes
    windows, (hop, spectra) = Windows(n_outputs, n_frames), _spectra(wavs, sizes)
    gains = gains_of(filters, offsets)
    responses = responses_of(filters / gains[:, None])
    lanes, roots = in_lanes(offsets / gains), roots_of_unity()
    maps = wavs.new_empty(batch, n_filters, n_frames)

    def task(clip: int, group: int) -> None:
        first = GROUP * group
        work, sums = torch.empty(WORK), torch.empty(n_frames, 2, LANES)
        mask = None if masks is None else masks[clip, group]
        LIBRARY.filter_and_pool(
            *map(pointer, (spectra[clip], responses[group], lanes[group], roots)),
            *(ctypes.byref(windows), hop, min(GROUP, n_filters - first)),
            *map(pointer, (work, sums, maps[clip, first:], mask)),
        )

    parallel_map(task, product(range(batch), range(len(lanes))))
    return maps.mul_(gains[:, None])


def _backward(
    grad_maps: Tensor, wavs: Tensor, masks: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """Gradients of filters and offsets."""
    batch, n_filters, kernel_size, _, n_outputs, n_frames = sizes
    windows, (hop, spectra) = Windows(n_outputs, n_frames), _spectra(wavs, sizes)
    roots, grad_maps = roots_of_unity(), grad_maps.contiguous()
    splits, groups = min(SPLITS, batch), masks.shape[1]
    sums = grad_maps.new_zeros(splits, groups, FFT_SIZE, 2, LANES)
    offset_sums = grad_maps.new_zeros(splits, groups, 2, LANES)

    def task(split: int, group: int) -> None:
        first = GROUP * group
        work, frames = torch.empty(WORK), torch.empty(n_frames, 2, LANES)
        for clip in range(split, batch, splits):
            inputs = (spectra[clip], grad_maps[clip, first:], masks[clip, group], roots)
            outputs = (work, frames, sums[split, group], offset_sums[split, group])
            LIBRARY.filter_and_pool_backward(
                *map(pointer, inputs),
                *(ctypes.byref(windows), hop, min(GROUP, n_filters - first)),
                *map(pointer, outputs),
            )

    parallel_map(task, product(range(splits), range(groups)))
    sums = column_by_column(sums.sum(0).movedim(1, -1))  # [groups, 2, lanes, 4096]
    # The gradient of tap j is found at time −j.
    taps = torch.fft.ifft(torch.complex(sums[:, 0], sums[:, 1])).flip(-1).roll(1, -1)
    grad_filters = torch.stack([taps.real, taps.imag], 1)[..., :kernel_size]
    grad_offsets = offset_sums.sum(0).flatten()[:n_filters]
    return grad_filters.flatten(0, 2)[:n_filters].contiguous(), grad_offsets.clone()


def _mask_shape(sizes: Sizes) -> tuple[int, ...]:
    """One bit per activation of each block, as the loops leave them."""
    hop, n_blocks = _blocks(sizes)
    return sizes.batch, -(-sizes.n_filters // GROUP), n_blocks, hop // 8, 2, LANES


def _blocks(sizes: Sizes) -> tuple[int, int]:
    """Outputs per block, a multiple of the 8 in a byte of the masks; and the blocks."""
    hop = (FFT_SIZE - sizes.kernel_size + 1) // 8 * 8
    return hop, -(-sizes.n_outputs // hop)


def _spectra(wavs: Tensor, sizes: Sizes) -> tuple[int, Tensor]:
    """Outputs per block, and the spectra of the input of all blocks."""
    hop, n_blocks = _blocks(sizes)
    blocks = op.overlapping_blocks(wavs, sizes.padding, FFT_SIZE, hop, n_blocks)
    return hop, spectra_of(blocks)


filter_and_pool = op.filter_and_pool_operator(
    "simd_filter_and_pool", _forward, _backward, _mask_shape
)
