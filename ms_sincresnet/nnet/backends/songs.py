"""The fast path for overlapping clips: a song is filtered once for all of them.

Filtering is linear, so a song is filtered in pieces, and a clip's output is the
overlap-add of its own pieces' outputs, with nothing of its neighbours in it. The layer
norm is an affine map per clip, x̂ = ρ (x − μ), and ρ > 0, so that
ReLU(x̂ ⋆ g + c) = ρ ReLU((x − μ) ⋆ g + c / ρ): only this is computed per clip.
"""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.simd import GROUP, LANES, WORK, in_lanes, pointer


class Pieces(NamedTuple):
    """A song in pieces, and the statistics of its clips."""

    centred: Tensor  # [pieces, time], each without its mean
    means: Tensor  # [pieces]
    clip_means: Tensor  # [clips]
    clip_variances: Tensor  # [clips]
    span: int  # pieces per clip
    hop: int  # pieces from the start of a clip to that of the next


def piece_size(clip_samples: int, hop_samples: int, kernel_size: int) -> int | None:
    """The longest part of a hop that suits the filters; None if no part does.

    Pieces must make up the clip too, fit the FFT, and be no shorter than a filter, so
    that the edges of a piece's output do not meet. Clips must overlap.

    >>> piece_size(48000, 8000, kernel_size=1001)
    2000
    """
    overlap = clip_samples > hop_samples and clip_samples % hop_samples == 0
    if not overlap or kernel_size > simd.FFT_SIZE // 2:
        return None
    parts = -(-hop_samples // (simd.FFT_SIZE - kernel_size + 1))
    while parts * (kernel_size - 1) <= hop_samples:
        if hop_samples % parts == 0:
            return hop_samples // parts
        parts += 1
    return None


def cut_song(
    wav: Tensor, clip_samples: int, hop_samples: int, piece_samples: int
) -> Pieces:
    """Pieces of a song [time] of at least a clip; the rest after the last is dropped.

    >>> song = cut_song(torch.tensor([1.0, 3.0, 1.0, 3.0, 5.0, 7.0, 9.0]), 4, 2, 2)
    >>> song.means.tolist(), song.clip_means.tolist(), song.clip_variances.tolist()
    ([2.0, 2.0, 6.0], [2.0, 4.0], [1.0, 5.0])
    """
    span, hop = clip_samples // piece_samples, hop_samples // piece_samples
    rest = (len(wav) - clip_samples) % hop_samples
    pieces = wav[: len(wav) - rest].view(-1, piece_samples)
    means = pieces.mean(1)
    centred = pieces - means[:, None]
    variances = centred.square().mean(1).unfold(0, span, hop)
    of_clips = means.unfold(0, span, hop)
    clip_means = of_clips.mean(1)
    steps = of_clips - clip_means[:, None]
    clip_variances = (variances + steps.square()).mean(1)
    return Pieces(centred, means, clip_means, clip_variances, span, hop)


def maps_of_clips(
    song: Pieces, scales: Tensor, banks: list[tuple[Tensor, Tensor, int]], n_frames: int
) -> Tensor:
    """ReLU(x̂ ⋆ g + c), pooled, of all clips: [clips, banks, n_filters, n_frames].

    ``scales`` are the clips' ρ. A bank holds filters g [n_filters, kernel_size],
    offsets c [n_filters] and the number of zeros at either end of each clip.
    """
    n_clips, n_filters = len(song.clip_means), len(banks[0][0])
    maps = song.centred.new_empty(n_clips, len(banks), n_filters, n_frames)
    gains = [simd.gains_of(filters, offsets) for filters, offsets, _ in banks]
    tasks = []
    for nth, (filters, offsets, padding) in enumerate(banks):
        bank = filters / gains[nth][:, None], offsets / gains[nth], padding
        loop = _loop_over(song, scales, bank, maps[:, nth])
        tasks += [(loop, group) for group in range(-(-n_filters // GROUP))]
    simd.parallel_map(lambda loop, group: loop(group), tasks)
    return maps.mul_(torch.stack(gains)[..., None])


class _Song(ctypes.Structure):
    """``song_t`` of the C file."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("n_pieces", "n_clips", "span", "hop")),
        *((name, ctypes.c_int32) for name in ("samples", "reach", "skip")),
        *((name, ctypes.c_void_p) for name in ("means", "clip_means", "clip_scales")),
    ]


def _loop_over(
    song: Pieces, scales: Tensor, bank: tuple[Tensor, Tensor, int], maps: Tensor
) -> Callable[[int], None]:
    """A function that computes the maps of one group of a bank's filters."""
    filters, offsets, padding = bank
    (n_clips, n_filters, n_frames), kernel_size = maps.shape, filters.shape[1]
    (n_pieces, samples), reach = song.centred.shape, kernel_size - 1
    windows = simd.Windows(song.span * samples + 2 * padding - reach, n_frames)
    layout = _Song(
        *(n_pieces, n_clips, song.span, song.hop, samples, reach, reach - padding),
        *map(pointer, (song.means, song.clip_means, scales)),
    )
    spectra = simd.spectra_of(F.pad(song.centred, (reach, 0)))
    roots, responses = simd.roots_of_unity(), simd.responses_of(filters)
    lanes, totals = in_lanes(offsets), in_lanes(filters.sum(1))
    # The output of a constant 1 in the reach beyond the piece that it ends with.
    fading = filters.sum(1, keepdim=True) - filters.flip(1).cumsum(1)
    fading = in_lanes(fading[:, :reach])
    n_active = -(-song.span // song.hop)

    def loop(group: int) -> None:
        first = GROUP * group
        buffers = torch.empty(4, WORK)
        sums = torch.empty(n_active, n_frames, 2, LANES)
        simd.LIBRARY.filter_song(
            *map(pointer, (spectra, responses[group], lanes[group], totals[group])),
            *map(pointer, (fading[group], roots)),
            *(ctypes.byref(windows), ctypes.byref(layout)),
            *(min(GROUP, n_filters - first), ctypes.c_int64(maps.stride(0))),
            *map(pointer, (buffers, sums, maps[0, first:])),
        )

    return loop
