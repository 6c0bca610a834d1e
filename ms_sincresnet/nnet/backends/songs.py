"""Maps of a song's overlapping clips, from the song filtered once.

Filtering is linear and the layer norm one affine a clip, x̂ = ρ (x − μ). So a song is
filtered in pieces, each alone, and a clip's output is the overlap-add of its own
pieces', with nothing of its neighbours in it. Then, as ρ > 0,
ReLU(x̂ ⋆ g + c) = ρ ReLU((x − μ) ⋆ g + c / ρ), and only what follows the filter is done
clip by clip, by the compiled loops of ``simd``.
"""

import ctypes
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.simd import GROUP, LANES, WORK, in_lanes, pointer


class Pieces(NamedTuple):
    """A song in pieces, and the statistics of its clips.

    Arguments
    ---------
    centred : torch.Tensor [pieces, time]
        The pieces, each without its mean.
    means : torch.Tensor [pieces]
        Their means.
    clip_means : torch.Tensor [clips]
        Mean of each clip.
    clip_variances : torch.Tensor [clips]
        Variance of each clip.
    span : int
        Pieces of a clip.
    hop : int
        Pieces from the start of one clip to the next.
    """

    centred: torch.Tensor
    means: torch.Tensor
    clip_means: torch.Tensor
    clip_variances: torch.Tensor
    span: int
    hop: int


def piece_size(clip_samples, hop_samples, kernel_size):
    """Length of pieces of which hop and clip are made, and that fit the filters.

    Arguments
    ---------
    clip_samples : int
        Samples of a clip.
    hop_samples : int
        Samples from the start of one clip to the next.
    kernel_size : int
        Taps of the longest filters.

    Returns
    -------
    int or None
        Samples of a piece: a hop, or a part of it; None if there is no such length.

    Example
    -------
    >>> piece_size(48000, 8000, kernel_size=1001)
    2000
    """
    if clip_samples % hop_samples or kernel_size > simd.FFT_SIZE // 2:
        return None
    longest = simd.FFT_SIZE - kernel_size + 1
    parts = -(-hop_samples // longest)
    while parts * (kernel_size - 1) <= hop_samples:
        if hop_samples % parts == 0:
            return hop_samples // parts
        parts += 1
    return None


def cut_song(wav, clip_samples, hop_samples, piece_samples):
    """Cuts a song into pieces.

    Arguments
    ---------
    wav : torch.Tensor [time]
        The song, a clip long at least; what follows the last clip is left out.
    clip_samples : int
        Samples of a clip.
    hop_samples : int
        Samples from the start of one clip to the next.
    piece_samples : int
        Samples of a piece, a part of the hop, as the hop is of the clip.

    Returns
    -------
    Pieces
        The pieces.

    Example
    -------
    >>> song = cut_song(torch.tensor([1.0, 3.0, 1.0, 3.0, 5.0, 7.0, 9.0]), 4, 2, 2)
    >>> song.means.tolist(), song.clip_means.tolist()
    ([2.0, 2.0, 6.0], [2.0, 4.0])
    >>> song.clip_variances.tolist()
    [1.0, 5.0]
    """
    n_clips = (len(wav) - clip_samples) // hop_samples + 1
    span, hop = clip_samples // piece_samples, hop_samples // piece_samples
    pieces = wav[: (n_clips - 1) * hop_samples + clip_samples].view(-1, piece_samples)
    means = pieces.mean(1)
    centred = pieces - means[:, None]
    variances = centred.square().mean(1).unfold(0, span, hop)
    of_clips = means.unfold(0, span, hop)
    clip_means = of_clips.mean(1)
    steps = of_clips - clip_means[:, None]
    clip_variances = (variances + steps.square()).mean(1)
    return Pieces(centred, means, clip_means, clip_variances, span, hop)


class _Song(ctypes.Structure):
    """``song_t`` of the C file."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("n_pieces", "n_clips", "span", "hop")),
        *((name, ctypes.c_int32) for name in ("samples", "reach", "skip")),
        *((name, ctypes.c_void_p) for name in ("means", "clip_means", "clip_scales")),
    ]


def maps_of_clips(song, scales, banks, n_frames):
    """ReLU(x̂ ⋆ g + c), pooled, of the clips x̂ of a song.

    Arguments
    ---------
    song : Pieces
        The song.
    scales : torch.Tensor [clips]
        What each clip, without its mean, is multiplied with; ρ > 0.
    banks : list of tuple
        For each scale of the map its filters g [n_filters, kernel_size], with the scale
        of the batch norm on them, its offsets c [n_filters], and how many zeros there
        are on either side of each clip.
    n_frames : int
        Frames of the maps.

    Returns
    -------
    torch.Tensor [clips, banks, n_filters, n_frames]
        The maps.

    Example
    -------
    >>> song = cut_song(torch.randn(8 * 480), 4 * 480, 480, piece_samples=480)
    >>> bank = (torch.ones(3, 5), torch.zeros(3), 2)
    >>> maps_of_clips(song, torch.ones(5), [bank], 16).shape  # doctest: +SKIP
    torch.Size([5, 1, 3, 16])
    """
    n_clips, n_filters = len(song.clip_means), len(banks[0][0])
    maps = song.centred.new_empty(n_clips, len(banks), n_filters, n_frames)
    gains = [simd.gains_of(filters, offsets) for filters, offsets, _ in banks]
    tasks = []
    for nth, (filters, offsets, padding) in enumerate(banks):
        bank = filters / gains[nth][:, None], offsets / gains[nth], padding
        loop = _loop_over(song, scales, bank, maps[:, nth])
        tasks += [(loop, group) for group in range(-(-n_filters // GROUP))]
    simd.parallel_map(lambda task: task[0](task[1]), tasks)
    return maps.mul_(torch.stack(gains)[..., None])


def _loop_over(song, scales, bank, maps):
    """The function that makes the maps of a group of filters of a bank."""
    filters, offsets, padding = bank
    (n_clips, n_filters, n_frames), kernel_size = maps.shape, filters.shape[1]
    (n_pieces, samples), reach = song.centred.shape, kernel_size - 1
    n_outputs = song.span * samples + 2 * padding - reach
    windows = simd.Windows(n_outputs, n_frames)
    statistics = [song.means, song.clip_means, scales]
    layout = _Song(
        *(n_pieces, n_clips, song.span, song.hop, samples, reach, reach - padding),
        *(values.data_ptr() for values in statistics),
    )
    spectra = simd.spectra_of(F.pad(song.centred, (reach, 0)))
    roots, responses = simd.roots_of_unity(), simd.responses_of(filters)
    lanes, totals = in_lanes(offsets), in_lanes(filters.sum(1))
    # What a constant of 1 gives in the reach beyond the piece that it ends with.
    fading = filters.sum(1, keepdim=True) - filters.flip(1).cumsum(1)
    fading = in_lanes(fading[:, :reach])
    n_active = -(-song.span // song.hop)

    def loop(group):
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
        return statistics  # kept until here

    return loop
