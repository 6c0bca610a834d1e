"""Waveform × filters → affine → ReLU → pooled map by compiled loops.

The fast path of ``filtering`` on a CPU, where the package was installed with a C
compiler at hand. As in ``fft``, blocks are filtered by FFT and pooled while in
cache; ``simd.c`` does all of it in one go, for a group of filters at a time,
two in each lane of the processor's vectors: they are the real and the imaginary part
of a complex filter, and their outputs, of a real waveform, those of its output.
"""

import ctypes
import math
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.backends.op import filter_and_pool_operator

LANES_OF = {"avx512": 16, "avx2": 8}  # floats of a vector, as in setup.py
SIDE = 64
FFT_SIZE = SIDE**2
SPLITS = 8  # sums of gradients that are made side by side


def _load_library():
    """The loops compiled for this processor, and its lanes; None and 1 without them."""
    kind = torch.backends.cpu.get_cpu_capability().lower()
    for suffix in EXTENSION_SUFFIXES:
        file = Path(__file__).with_name(f"_simd_{kind}{suffix}")
        if kind in LANES_OF and file.is_file():
            return ctypes.CDLL(str(file)), LANES_OF[kind]
    return None, 1


LIBRARY, LANES = _load_library()
GROUP = 2 * LANES  # filters at a time
WORK = GROUP * SIDE * (SIDE + 1)  # floats of a block of their outputs


class Windows(ctypes.Structure):
    """``windows_t`` of the C file: the samples that each frame averages.

    Arguments
    ---------
    n_outputs : int
        Samples of output, N.
    n_frames : int
        Frames, F: from sample ⌊i N / F⌋ to ⌈(i + 1) N / F⌉ − 1, as in
        ``adaptive_avg_pool1d``.

    Example
    -------
    >>> starts, ends = Windows(n_outputs=5, n_frames=2).tensors
    >>> starts.tolist(), ends.tolist()
    ([0, 2], [3, 5])
    """

    _fields_ = [
        ("n_outputs", ctypes.c_int32),
        ("n_frames", ctypes.c_int32),
        ("starts", ctypes.c_void_p),
        ("ends", ctypes.c_void_p),
    ]

    def __init__(self, n_outputs, n_frames):
        edges = torch.arange(n_frames + 1) * n_outputs
        self.tensors = [
            edges.div(n_frames, rounding_mode="floor")[:-1].int(),
            -(-edges).div(n_frames, rounding_mode="floor")[1:].int(),
        ]
        super().__init__(n_outputs, n_frames, *(t.data_ptr() for t in self.tensors))


def suits(wavs, filters):
    """Whether this path can be used.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        InputCheck.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.

    Returns
    -------
    bool
        For float32 on the CPU, if the loops were compiled.

    Example
    -------
    >>> suits(torch.zeros(2, 480).double(), torch.zeros(3, 5).double())
    False
    """
    return (
        LIBRARY is not None
        and wavs.device.type == "cpu"
        and wavs.dtype == filters.dtype == torch.float32
        and filters.shape[1] <= FFT_SIZE // 2
    )


def column_by_column(values):
    """Puts 4096 values in the order in which the compiled loops take them.

    Arguments
    ---------
    values : torch.Tensor [..., 4096]
        Values by frequency; or in the loops' order, for that by frequency.

    Returns
    -------
    torch.Tensor [..., 4096]
        Value 64·row + column at 64·column + row.

    Example
    -------
    >>> column_by_column(torch.arange(4096))[:3]
    tensor([  0,  64, 128])
    """
    return values.unflatten(-1, (SIDE, SIDE)).mT.flatten(-2)


def in_lanes(values):
    """Groups of filters, two a lane; the last group is filled up with zeros.

    Arguments
    ---------
    values : torch.Tensor [n_filters, ...]
        What belongs to the filters.

    Returns
    -------
    torch.Tensor [groups, ..., 2, lanes]
        The same, contiguous.

    Example
    -------
    >>> in_lanes(torch.zeros(GROUP + 1, 7)).shape == (2, 7, 2, LANES)
    True
    """
    missing = -len(values) % GROUP
    values = torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
    return values.unflatten(0, (-1, 2, LANES)).movedim((1, 2), (-2, -1)).contiguous()


def gains_of(filters, offsets):
    """Powers of two by which filters and offsets are divided, and maps multiplied.

    Two filters share a transform; if one were far louder, its rounding would be heard
    in the other.

    Arguments
    ---------
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.
    offsets : torch.Tensor [n_filters]
        What is added to their outputs.

    Returns
    -------
    torch.Tensor [n_filters]
        The gains.

    Example
    -------
    >>> gains_of(torch.tensor([[3.0, 300.0], [0.0, 0.0]]), torch.zeros(2))
    tensor([256.,   1.])
    """
    peaks = torch.maximum(filters.abs().amax(1), offsets.abs())
    return torch.where(peaks > 0, peaks, 1).log2().floor().exp2()


def responses_of(filters):
    """Frequency responses of groups of filters, for correlation.

    Arguments
    ---------
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.

    Returns
    -------
    torch.Tensor [groups, 4096, 2, lanes]
        Their responses over 4096, which the inverse transform leaves to be divided by.

    Example
    -------
    >>> responses_of(torch.zeros(GROUP + 1, 7)).shape == (2, 4096, 2, LANES)
    True
    """
    pairs = torch.view_as_complex(in_lanes(filters).movedim(-2, -1).contiguous())
    responses = column_by_column(torch.fft.ifft(pairs.mT, FFT_SIZE))
    return torch.view_as_real(responses.mT).movedim(-1, -2).contiguous()


def spectra_of(blocks):
    """Spectra of blocks of a waveform.

    Arguments
    ---------
    blocks : torch.Tensor [..., at most 4096]
        The blocks.

    Returns
    -------
    torch.Tensor [..., 4096]
        Complex spectra.

    Example
    -------
    >>> spectra_of(torch.zeros(2, 16, 4000)).shape
    torch.Size([2, 16, 4096])
    """
    return column_by_column(torch.fft.fft(blocks, FFT_SIZE)).contiguous()


def roots_of_unity():
    """e^(2πi k / 4096).

    Returns
    -------
    torch.Tensor [4096]
        The roots.

    Example
    -------
    >>> roots_of_unity()[1024].imag.item()
    1.0
    """
    angles = torch.arange(FFT_SIZE, dtype=torch.float64) * (2 * math.pi / FFT_SIZE)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def pointer(tensor):
    """Where a tensor's values lie, as long as the tensor is kept.

    Arguments
    ---------
    tensor : torch.Tensor or None
        A contiguous tensor.

    Returns
    -------
    ctypes.c_void_p
        The address of its first value; of None, the null pointer.

    Example
    -------
    >>> pointer(None).value is None
    True
    """
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def parallel_map(task, *arguments):
    """Runs a task that waits for compiled loops, in as many threads as PyTorch has.

    Arguments
    ---------
    task : callable
        The task.
    *arguments : iterables
        Its arguments, as for ``map``.

    Returns
    -------
    list
        What it returned.

    Example
    -------
    >>> parallel_map(pow, [2, 3], [2, 2])
    [4, 9]
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(task, *arguments))


def _forward(wavs, filters, offsets, n_frames, padding, keep_masks):
    """Maps, and of each activation whether it is positive, if that is to be kept."""
    batch, (n_filters, kernel_size) = len(wavs), filters.shape
    windows = Windows(wavs.shape[1] + 2 * padding - kernel_size + 1, n_frames)
    hop = _hop(kernel_size)
    spectra = spectra_of(_blocks(wavs, padding, windows.n_outputs, kernel_size))
    gains = gains_of(filters, offsets)
    responses = responses_of(filters / gains[:, None])
    lanes, roots = in_lanes(offsets / gains), roots_of_unity()
    maps = wavs.new_empty(batch, n_filters, n_frames)
    masks = _new_masks(wavs, filters, n_frames, padding, keep_masks)

    def task(clip, group):
        first = GROUP * group
        work, sums = torch.empty(WORK), torch.empty(n_frames, 2, LANES)
        LIBRARY.filter_and_pool(
            *map(pointer, (spectra[clip], responses[group], lanes[group], roots)),
            *(ctypes.byref(windows), hop, min(GROUP, n_filters - first)),
            *map(pointer, (work, sums, maps[clip, first:])),
            pointer(masks[clip, group] if keep_masks else None),
        )

    parallel_map(task, *_pairs(range(batch), range(len(lanes))))
    return maps.mul_(gains[:, None]), masks


def _backward(grad_maps, wavs, masks, kernel_size, padding):
    """Gradients of filters and offsets."""
    batch, n_filters, n_frames = grad_maps.shape
    windows = Windows(wavs.shape[1] + 2 * padding - kernel_size + 1, n_frames)
    hop = _hop(kernel_size)
    spectra = spectra_of(_blocks(wavs, padding, windows.n_outputs, kernel_size))
    roots, grad_maps = roots_of_unity(), grad_maps.contiguous()
    splits, groups = min(SPLITS, batch), masks.shape[1]
    sums = grad_maps.new_zeros(splits, groups, FFT_SIZE, 2, LANES)
    offset_sums = grad_maps.new_zeros(splits, groups, 2, LANES)

    def task(split, group):
        first = GROUP * group
        work, frames = torch.empty(WORK), torch.empty(n_frames, 2, LANES)
        for clip in range(split, batch, splits):
            LIBRARY.filter_and_pool_backward(
                *(pointer(spectra[clip]), pointer(grad_maps[clip, first:])),
                *(pointer(masks[clip, group]), pointer(roots), ctypes.byref(windows)),
                *(hop, min(GROUP, n_filters - first)),
                *map(pointer, (work, frames)),
                *map(pointer, (sums[split, group], offset_sums[split, group])),
            )

    parallel_map(task, *_pairs(range(splits), range(groups)))
    sums = column_by_column(sums.sum(0).movedim(1, -1))  # [groups, 2, lanes, 4096]
    # At time −j is the gradient of tap j.
    taps = torch.fft.ifft(torch.complex(sums[:, 0], sums[:, 1])).flip(-1).roll(1, -1)
    grad_filters = torch.stack([taps.real, taps.imag], 1)[..., :kernel_size]
    grad_offsets = offset_sums.sum(0).flatten()[:n_filters]
    return grad_filters.flatten(0, 2)[:n_filters].contiguous(), grad_offsets.clone()


def _new_masks(wavs, filters, n_frames, padding, keep):
    """Uninitialised masks, a bit an activation, or none."""
    if not keep:
        return wavs.new_empty(0, dtype=torch.int8)
    n_filters, kernel_size = filters.shape
    n_outputs = wavs.shape[1] + 2 * padding - kernel_size + 1
    hop = _hop(kernel_size)
    groups, n_blocks = -(-n_filters // GROUP), -(-n_outputs // hop)
    shape = wavs.shape[0], groups, n_blocks, hop // 8, 2, LANES
    return wavs.new_empty(shape, dtype=torch.int8)


def _hop(kernel_size):
    """Outputs a block, a multiple of the 8 that a byte of the masks holds."""
    return (FFT_SIZE - kernel_size + 1) // 8 * 8


def _blocks(wavs, padding, n_outputs, kernel_size):
    """The overlapping stretches of input that the blocks of output need."""
    hop = _hop(kernel_size)
    reach = (-(-n_outputs // hop) - 1) * hop + FFT_SIZE
    padded = F.pad(wavs, (padding, reach - padding - wavs.shape[1]))
    return padded.unfold(-1, FFT_SIZE, hop)


def _pairs(first, second):
    """All pairs, as two lists."""
    return zip(*[(a, b) for a in first for b in second], strict=True)


filter_and_pool = filter_and_pool_operator(
    "simd_filter_and_pool", _forward, _backward, _new_masks
)
