"""The fast path on an NVIDIA GPU: matrix products on its tensor cores, in Triton.

In both passes the large side of the product, the activations, stays in registers: the
forward pass rectifies and averages a tile of them and drops it, the backward pass
rebuilds a tile of their gradient from that of the maps and one stored bit each.

Time is cut into octets, 8 neighbouring samples. With X[q, m] = x[8q + m] and the taps
shifted by the step p within an octet, G[m, p, k] = g_k[m − p], the filters' outputs are
y_k[8q + p] = Σ_m X[q, m] · G[m, p, k]. X is never stored: its rows overlap. There are 7
more lags m than taps, but rows are aligned to 16 bytes, for wide loads, and the 8 steps
of an octet fill one byte of the mask.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ms_sincresnet.nnet.backends.op import Sizes, filter_and_pool_operator, pool_windows

try:
    import triton
    from triton import language as tl
    from triton.language import constexpr
except ImportError:  # PyTorch installs it only for NVIDIA GPUs
    triton = constexpr = None

AVAILABLE = triton is not None
_jit = triton.jit if AVAILABLE else lambda function: function

# By "half". On an A100 or an H100 they spill no registers in a loop, and in float16 two
# fit a multiprocessor: one is pooled while the other is multiplied.
FORWARD = {
    True: dict(OCTETS=128, FILTERS=16, LAGS=32, FRAMES=32, num_warps=4, num_stages=4),
    False: dict(OCTETS=64, FILTERS=16, LAGS=16, FRAMES=16, num_warps=4, num_stages=4),
}
BACKWARD = {
    True: dict(OCTETS=64, FILTERS=16, LAGS=128, num_warps=4, num_stages=3),
    False: dict(OCTETS=32, FILTERS=16, LAGS=64, num_warps=8, num_stages=3),
}
SPLITS = 16  # of time in the backward pass, so that every multiprocessor has work


def suits(wavs: Tensor) -> bool:
    """True on an NVIDIA GPU that the kernels are made for: Ampere and later."""
    return (
        AVAILABLE
        and wavs.is_cuda
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(wavs.device) >= (8, 0)
    )


@_jit
def _forward_kernel(
    wavs,
    taps,
    offsets,
    windows,
    weights,
    maps,
    mask,
    mask_bytes,
    n_octets,
    n_lags,
    n_filters,
    n_samples,
    n_frames,
    frames_a_tile,
    n_parts,
    N_WINDOWS: constexpr,
    KEEP_MASK: constexpr,
    OCTETS: constexpr,
    FILTERS: constexpr,
    LAGS: constexpr,
    FRAMES: constexpr,
):
    """Maps of a few filters and frames of a clip, or one part of each window's sum."""
    clip = tl.program_id(2).to(tl.int64)
    first_frame = tl.program_id(1) // n_parts * frames_a_tile
    part = tl.program_id(1) % n_parts
    first_octet = (first_frame.to(tl.int64) * n_samples // n_frames // 8).to(tl.int32)
    octet = first_octet + part * OCTETS + tl.arange(0, OCTETS)
    step = tl.arange(0, 8)

    lag = tl.arange(0, LAGS)
    column = tl.program_id(0) * 8 * FILTERS + tl.arange(0, 8 * FILTERS)
    wav = wavs + clip * (8 * n_octets + n_lags) + 8 * octet[:, None] + lag[None, :]
    tap = taps + column[None, :] * n_lags + lag[:, None]
    filtered = tl.zeros((OCTETS, 8 * FILTERS), tl.float32)
    for _ in range(0, n_lags, LAGS):
        filtered = tl.dot(
            tl.load(wav), tl.load(tap), filtered, input_precision="tf32x3"
        )
        wav += LAGS
        tap += LAGS

    channel = tl.program_id(0) * FILTERS + tl.arange(0, FILTERS)
    exists = channel < n_filters
    offset = tl.load(offsets + channel, mask=exists, other=0.0)
    filtered = filtered.reshape(OCTETS, 8, FILTERS) + offset[None, None, :]
    rectified = tl.maximum(filtered, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if KEEP_MASK:
        # Tiles overlap, and write the same where they do.
        bits = tl.sum((rectified > 0).to(tl.int32) << step[None, :, None], axis=1)
        tl.store(
            mask + (clip * n_filters + channel[None, :]) * mask_bytes + octet[:, None],
            bits.to(tl.uint8),
            mask=exists[None, :] & (octet < mask_bytes)[:, None],
        )

    # What each octet adds to its windows; then, as a product, what each window gets.
    frame = first_frame + tl.arange(0, FRAMES)
    first_window = tl.load(windows + octet)
    sums = tl.zeros((FRAMES, FILTERS), tl.float32)
    for n in tl.static_range(N_WINDOWS):
        window = tl.load(windows + (n + 1) * n_octets + octet)
        inside = (window[:, None] >> step[None, :]) & 1 != 0
        share = tl.sum(tl.where(inside[:, :, None], rectified, 0.0), axis=1)
        gets = first_window[None, :] + n == frame[:, None]
        dtype = wavs.dtype.element_ty
        sums = tl.dot(gets.to(dtype), share.to(dtype), sums, input_precision="tf32x3")
    complete = (frame < first_frame + frames_a_tile) & (frame < n_frames)
    weight = tl.load(weights + frame, mask=complete, other=0.0)
    row = (part * tl.num_programs(2) + clip) * n_filters + channel
    tl.store(
        maps + row[None, :] * n_frames + frame[:, None],
        sums * weight[:, None],
        mask=exists[None, :] & complete[:, None],
    )


@_jit
def _backward_kernel(
    grad_maps,
    mask,
    wavs,
    windows,
    weights,
    grad_taps,
    grad_offsets,
    mask_bytes,
    n_octets,
    n_lags,
    n_clips,
    n_filters,
    n_frames,
    N_WINDOWS: constexpr,
    OCTETS: constexpr,
    FILTERS: constexpr,
    LAGS: constexpr,
):
    """Gradients of a few filters' shifted taps, at a few lags, over a split of time."""
    split = tl.program_id(2)
    channel = tl.program_id(0) * FILTERS + tl.arange(0, FILTERS)
    exists = channel < n_filters
    lag = tl.program_id(1) * LAGS + tl.arange(0, LAGS)
    step = tl.arange(0, 8)[:, None, None]
    grad = tl.zeros((8 * FILTERS, LAGS), tl.float32)
    total = tl.zeros((FILTERS, OCTETS), tl.float32)
    tiles_a_clip = tl.cdiv(mask_bytes, OCTETS)
    for tile in range(split, n_clips * tiles_a_clip, tl.num_programs(2)):
        clip = (tile // tiles_a_clip).to(tl.int64)
        octet = tile % tiles_a_clip * OCTETS + tl.arange(0, OCTETS)
        row = (clip * n_filters + channel)[:, None]
        positive = tl.load(
            mask + row * mask_bytes + octet[None, :],
            mask=exists[:, None] & (octet < mask_bytes)[None, :],
            other=0,
        ).to(tl.int32)
        first_window = tl.load(windows + octet)
        spread = tl.zeros((8, FILTERS, OCTETS), tl.float32)
        for n in tl.static_range(N_WINDOWS):
            frame = first_window + n
            share = tl.load(
                grad_maps + row * n_frames + frame[None, :],
                mask=exists[:, None] & (frame < n_frames)[None, :],
                other=0.0,
            )
            share *= tl.load(weights + frame, mask=frame < n_frames, other=0.0)[None, :]
            window = tl.load(windows + (n + 1) * n_octets + octet)
            gets = ((positive & window[None, :])[None] >> step) & 1 != 0
            spread += tl.where(gets, share[None], 0.0)
        total += tl.sum(spread, axis=0)
        wav = tl.load(
            wavs + clip * (8 * n_octets + n_lags) + 8 * octet[:, None] + lag[None, :]
        )
        spread = spread.to(wav.dtype).reshape(8 * FILTERS, OCTETS)
        grad = tl.dot(spread, wav, grad, input_precision="tf32x3")

    column = tl.program_id(0) * 8 * FILTERS + tl.arange(0, 8 * FILTERS)
    column += split * tl.num_programs(0) * 8 * FILTERS
    tl.store(grad_taps + column.to(tl.int64)[:, None] * n_lags + lag[None, :], grad)
    if tl.program_id(1) == 0:  # the offsets have no lags
        row = split * tl.num_programs(0) * FILTERS + channel
        tl.store(grad_offsets + row, tl.sum(total, axis=1))


def _octet_windows(
    sizes: Sizes, n_octets: int, device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """The pooling windows of the octets, their weights, and the most per octet.

    Row 0 is an octet's first window; row 1 + n has a bit for each of its samples in
    the n-th window from there.
    """
    n_samples, n_frames = sizes[-2:]
    n_windows = (n_samples + 8 * n_frames - 2) // n_samples + 1
    starts, ends = pool_windows(n_samples, n_frames, device)
    step = torch.arange(8, device=device)
    time = 8 * torch.arange(n_octets, device=device)[:, None] + step
    first = time[:, 0] * n_frames // n_samples
    window = (first + torch.arange(n_windows, device=device)[:, None])[..., None]
    begun = window * n_samples < (time + 1) * n_frames
    inside = begun & (time * n_frames < (window + 1) * n_samples)
    windows = torch.cat([first[None], (inside.int() << step).sum(-1)]).int()
    return windows, 1 / (ends - starts), n_windows


def _round_up(n: int, multiple: int) -> int:
    """The next multiple."""
    return n + -n % multiple


def _pad(wavs: Tensor, padding: int, n_octets: int, n_lags: int, half: bool) -> Tensor:
    """Waveforms with zeros at either end, so that every tile lies within them."""
    right = 8 * n_octets + n_lags - padding - wavs.shape[1]
    return F.pad(wavs.to(torch.half if half else torch.float), (padding, right))


def _taps_of(shifted: Tensor, kernel_size: int) -> Tensor:
    """View on shifted taps [tiles, 8, filters, lags] as [tiles, filters, taps, 8]."""
    n_tiles, _, n_filters, _ = shifted.shape
    tile, step, channel, lag = shifted.stride()
    return shifted.as_strided(
        (n_tiles, n_filters, kernel_size, 8), (tile, channel, lag, step + lag)
    )


def _forward(
    wavs: Tensor,
    filters: Tensor,
    offsets: Tensor,
    sizes: Sizes,
    masks: Tensor | None,
    half: bool,
) -> Tensor:
    """Maps; the masks [batch, n_filters, octets] hold one bit per activation."""
    tiles = FORWARD[half]
    batch, n_filters, kernel_size, padding, n_samples, n_frames = sizes
    # As many frames as fit a tile whose first octet begins up to 7 samples before them
    # and whose windows end up to a sample after; where none fits, parts of one.
    frames_a_tile = (8 * tiles["OCTETS"] - 9) * n_frames // n_samples
    frames_a_tile = max(1, min(frames_a_tile, tiles["FRAMES"]))
    octets = (triton.cdiv(frames_a_tile * n_samples, n_frames) + 15) // 8
    n_parts = triton.cdiv(octets, tiles["OCTETS"])

    n_tiles = triton.cdiv(n_filters, tiles["FILTERS"])
    n_lags = _round_up(kernel_size + 7, tiles["LAGS"])
    n_octets = _round_up(n_samples, 128) // 8 + n_parts * tiles["OCTETS"]
    wavs = _pad(wavs, padding, n_octets, n_lags, half)
    shifted = wavs.new_zeros(n_tiles, 8, tiles["FILTERS"], n_lags)
    filters = F.pad(filters, (0, 0, 0, -n_filters % tiles["FILTERS"]))
    filters = filters.unflatten(0, (-1, tiles["FILTERS"]))
    _taps_of(shifted, kernel_size).copy_(filters[..., None])

    maps = offsets.new_empty(n_parts, batch, n_filters, n_frames)
    stored = maps.new_empty(0, dtype=torch.uint8) if masks is None else masks
    grid = (n_tiles, triton.cdiv(n_frames, frames_a_tile) * n_parts, batch)
    with torch.cuda.device_of(wavs):
        windows, weights, n_windows = _octet_windows(sizes, n_octets, wavs.device)
        _forward_kernel[grid](
            *(wavs, shifted, offsets.contiguous(), windows, weights, maps, stored),
            *(triton.cdiv(n_samples, 8), n_octets, n_lags, n_filters, n_samples),
            *(n_frames, frames_a_tile, n_parts),
            N_WINDOWS=n_windows,
            KEEP_MASK=masks is not None,
            **tiles,
        )
    return maps.sum(0) if n_parts > 1 else maps[0]


def _backward(
    grad_maps: Tensor, wavs: Tensor, masks: Tensor, sizes: Sizes, half: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of filters and offsets."""
    tiles = BACKWARD[half]
    batch, n_filters, kernel_size, padding, n_samples, n_frames = sizes
    n_tiles = triton.cdiv(n_filters, tiles["FILTERS"])
    n_lags = _round_up(kernel_size + 7, tiles["LAGS"])
    n_octets = _round_up(masks.shape[2], tiles["OCTETS"])
    wavs = _pad(wavs, padding, n_octets, n_lags, half)
    # So that the smallest gradients do not vanish in float16.
    largest = torch.linalg.vector_norm(grad_maps, float("inf"))
    scale = 1024 / largest.clamp(min=1e-30)
    shifted = grad_maps.new_empty(SPLITS, n_tiles, 8, tiles["FILTERS"], n_lags)
    grad_offsets = grad_maps.new_empty(SPLITS, n_tiles * tiles["FILTERS"])
    grid = (n_tiles, n_lags // tiles["LAGS"], SPLITS)
    with torch.cuda.device_of(wavs):
        windows, weights, n_windows = _octet_windows(sizes, n_octets, wavs.device)
        _backward_kernel[grid](
            *(grad_maps.contiguous(), masks, wavs, windows, weights * scale),
            *(shifted, grad_offsets),
            *(masks.shape[2], n_octets, n_lags, batch, n_filters, n_frames),
            N_WINDOWS=n_windows,
            **tiles,
        )
    grad_filters = _taps_of(shifted.sum(0), kernel_size).sum(-1).flatten(0, 1)
    grad_offsets = grad_offsets.sum(0)
    return grad_filters[:n_filters] / scale, grad_offsets[:n_filters] / scale


# Sums are accumulated in float32, in an order that is the same from call to call. With
# ``half``, factors are rounded to float16, as under autocast; otherwise each is split
# in two, for products as exact as those of float32.
filter_and_pool = filter_and_pool_operator(
    "filter_and_pool",
    _forward,
    _backward,
    lambda sizes: (sizes.batch, sizes.n_filters, (sizes.n_outputs + 7) // 8),
    options=", bool half",
)
