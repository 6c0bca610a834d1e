"""Waveform × filters → affine → ReLU → pooled map on an NVIDIA GPU's matrix units.

The fast path of ``filtering`` there. Both passes are matrix products in Triton whose
large side, the activations, stays in registers: the forward pass rectifies and
averages a tile of them before it is dropped, the backward pass makes a tile of their
gradient from that of the maps and one kept bit an activation.

Time is cut into octets, 8 neighbouring samples. With X[q, m] = x[8q + m] and the taps
shifted by the step p within an octet, G[m, p, k] = g_k[m − p], the filters' outputs
are y_k[8q + p] = Σ_m X[q, m] · G[m, p, k]. X is never stored: its rows overlap, each
begins 8 samples after the last. That makes 7 more lags m than there are taps, but a
row begins at a whole 16 bytes, and so is copied in one go rather than sample by
sample; and the 8 steps of an octet are one byte of the kept mask.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

try:
    import triton
    from triton import language as tl
    from triton.language import constexpr
except ImportError:  # PyTorch does not bring it where there are no NVIDIA GPUs
    triton = constexpr = None

AVAILABLE = triton is not None
_jit = triton.jit if AVAILABLE else lambda function: function

# Tiles by "half", and Triton's options for them. Compiled for an A100 or an H100 they
# spill no register in a loop, and in float16 two fit a multiprocessor, so that one is
# pooled while the other is multiplied.
FORWARD = {
    True: dict(OCTETS=128, FILTERS=16, LAGS=32, FRAMES=32, num_warps=4, num_stages=4),
    False: dict(OCTETS=64, FILTERS=16, LAGS=16, FRAMES=16, num_warps=4, num_stages=4),
}
BACKWARD = {
    True: dict(OCTETS=64, FILTERS=16, LAGS=128, num_warps=4, num_stages=3),
    False: dict(OCTETS=32, FILTERS=16, LAGS=64, num_warps=8, num_stages=3),
}
SPLITS = 16  # of time in the backward pass, so that every multiprocessor has work


@_jit
def _window_kernel(
    windows,
    weights,
    n_octets,
    n_samples,
    n_frames,
    N_WINDOWS: constexpr,
    BLOCK: constexpr,
):
    """The windows of adaptive_avg_pool1d that the samples of each octet are in.

    Sample t is in window i if i·N < (t + 1)·F and t·F < (i + 1)·N, for N samples and
    F frames. The first row of ``windows`` is an octet's first window; the others are,
    for that and the next ones, which of its samples they hold, a bit each.
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    position = index.to(tl.int64) * 8 * n_frames
    first = position // n_samples
    tl.store(windows + index, first.to(tl.int32), mask=index < n_octets)
    rest = (position - first * n_samples)[:, None]
    step = tl.arange(0, 8)[None, :]
    for n in tl.static_range(N_WINDOWS):
        begun = rest + (step + 1) * n_frames > n * n_samples
        inside = begun & (rest + step * n_frames < (n + 1) * n_samples)
        bits = tl.sum(inside.to(tl.int32) << step, axis=1)
        tl.store(windows + (n + 1) * n_octets + index, bits, mask=index < n_octets)

    frame = index.to(tl.int64)
    length = tl.cdiv((frame + 1) * n_samples, n_frames) - frame * n_samples // n_frames
    tl.store(weights + index, 1.0 / length.to(tl.float32), mask=index < n_frames)


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


def _octet_windows(n_samples, n_frames, n_octets, device):
    """What ``_window_kernel`` finds, and how many windows an octet meets at most."""
    n_windows = (n_samples + 8 * n_frames - 2) // n_samples + 1
    windows = torch.empty(n_windows + 1, n_octets, dtype=torch.int32, device=device)
    weights = torch.empty(n_frames, device=device)
    _window_kernel[(triton.cdiv(max(n_octets, n_frames), 128),)](
        *(windows, weights, n_octets, n_samples, n_frames),
        N_WINDOWS=n_windows,
        BLOCK=128,
    )
    return windows, weights, n_windows


def _round_up(n, multiple):
    """The next multiple."""
    return triton.cdiv(n, multiple) * multiple


def _pad(wavs, padding, n_octets, n_lags, half):
    """Zeros on either side of the waveforms, so that no tile reaches beyond them."""
    right = 8 * n_octets + n_lags - padding - wavs.shape[1]
    return F.pad(wavs.to(torch.half if half else torch.float), (padding, right))


def _taps_of(shifted, kernel_size):
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
    n_frames: int,
    padding: int,
    half: bool,
    keep_mask: bool,
) -> tuple[Tensor, Tensor]:
    """Maps, and which activations are positive: [batch, n_filters, bytes], a bit each.

    Where no backward pass follows there are 0 bytes.
    """
    tiles = FORWARD[half]
    batch, (n_filters, kernel_size) = len(wavs), filters.shape
    n_samples = wavs.shape[1] + 2 * padding - kernel_size + 1
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
    filters = F.pad(filters, (0, 0, 0, n_tiles * tiles["FILTERS"] - n_filters))
    filters = filters.unflatten(0, (n_tiles, tiles["FILTERS"]))
    _taps_of(shifted, kernel_size).copy_(filters[..., None])

    maps = offsets.new_empty(n_parts, batch, n_filters, n_frames)
    mask_bytes = triton.cdiv(n_samples, 8) if keep_mask else 0
    mask = maps.new_empty(batch, n_filters, mask_bytes, dtype=torch.uint8)
    grid = (n_tiles, triton.cdiv(n_frames, frames_a_tile) * n_parts, batch)
    with torch.cuda.device_of(wavs):
        windows, weights, n_windows = _octet_windows(
            n_samples, n_frames, n_octets, wavs.device
        )
        _forward_kernel[grid](
            *(wavs, shifted, offsets.contiguous(), windows, weights, maps, mask),
            *(mask_bytes, n_octets, n_lags, n_filters, n_samples, n_frames),
            *(frames_a_tile, n_parts),
            N_WINDOWS=n_windows,
            KEEP_MASK=keep_mask,
            **tiles,
        )
    return (maps.sum(0) if n_parts > 1 else maps[0]), mask


def _backward(
    grad_maps: Tensor,
    wavs: Tensor,
    mask: Tensor,
    kernel_size: int,
    padding: int,
    half: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the filters and of the offsets."""
    tiles = BACKWARD[half]
    batch, n_filters, n_frames = grad_maps.shape
    n_samples = wavs.shape[1] + 2 * padding - kernel_size + 1
    n_tiles = triton.cdiv(n_filters, tiles["FILTERS"])
    n_lags = _round_up(kernel_size + 7, tiles["LAGS"])
    n_octets = _round_up(mask.shape[2], tiles["OCTETS"])
    wavs = _pad(wavs, padding, n_octets, n_lags, half)
    # So that the smallest gradients do not vanish in float16.
    largest = torch.linalg.vector_norm(grad_maps, float("inf"))
    scale = 1024 / largest.clamp(min=1e-30)
    shifted = grad_maps.new_empty(SPLITS, n_tiles, 8, tiles["FILTERS"], n_lags)
    grad_offsets = grad_maps.new_empty(SPLITS, n_tiles * tiles["FILTERS"])
    grid = (n_tiles, n_lags // tiles["LAGS"], SPLITS)
    with torch.cuda.device_of(wavs):
        windows, weights, n_windows = _octet_windows(
            n_samples, n_frames, n_octets, wavs.device
        )
        _backward_kernel[grid](
            *(grad_maps.contiguous(), mask, wavs, windows, weights * scale),
            *(shifted, grad_offsets),
            *(mask.shape[2], n_octets, n_lags, batch, n_filters, n_frames),
            N_WINDOWS=n_windows,
            **tiles,
        )
    grad_filters = _taps_of(shifted.sum(0), kernel_size).sum(-1).flatten(0, 1)
    grad_offsets = grad_offsets.sum(0)
    return grad_filters[:n_filters] / scale, grad_offsets[:n_filters] / scale


_operator = partial(torch.library.custom_op, mutates_args=(), device_types="cuda")
_forward_operator = _operator("ms_sincresnet::filter_and_pool", _forward)
_backward_operator = _operator("ms_sincresnet::filter_and_pool_backward", _backward)


@_forward_operator.register_fake
def _(wavs, filters, offsets, n_frames, padding, half, keep_mask):
    """What ``_forward`` returns, without values."""
    rows = (wavs.shape[0], len(filters))
    n_samples = wavs.shape[1] + 2 * padding - filters.shape[1] + 1
    mask_bytes = (n_samples + 7) // 8 if keep_mask else 0
    mask = offsets.new_empty(*rows, mask_bytes, dtype=torch.uint8)
    return offsets.new_empty(*rows, n_frames), mask


@_backward_operator.register_fake
def _(grad_maps, wavs, mask, kernel_size, padding, half):
    """What ``_backward`` returns, without values."""
    n_filters = grad_maps.shape[1]
    return grad_maps.new_empty(n_filters, kernel_size), grad_maps.new_empty(n_filters)


def _keep(ctx, inputs, output):
    """Keeps for the backward pass the waveforms and a bit an activation."""
    wavs, filters, _, _, padding, half, _ = inputs
    ctx.save_for_backward(wavs, output[1])
    ctx.arguments = (filters.shape[1], padding, half)
    ctx.set_materialize_grads(False)  # the mask's would be as large as it is


def _propagate(ctx, grad_maps, _):
    """Gradients of ``_forward``'s arguments: filters and offsets have one."""
    if grad_maps is None:
        return (None,) * 7
    grads = _backward_operator(grad_maps, *ctx.saved_tensors, *ctx.arguments)
    return None, *grads, None, None, None, None


_forward_operator.register_autograd(_propagate, setup_context=_keep)


def filter_and_pool(wavs, filters, offsets, n_frames, padding=0, half=False):
    """Filters, adds, rectifies and averages: ReLU(x ⋆ g + c), pooled.

    Sums are of float32, in an order that does not change from call to call.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        InputCheck, float32, on an NVIDIA GPU of the Ampere generation (A100, RTX 30) or
        later; they get no gradient.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters, with the scale of the batch norm on them, float32.
    offsets : torch.Tensor [n_filters]
        What is added to each filter's output before the ReLU, float32.
    n_frames : int
        Frames of the map.
    padding : int
        Zeros on either side of the waveform.
    half : bool
        Whether factors are rounded to float16, as under autocast. If not, each is
        split in two, for products as exact as those of float32.

    Returns
    -------
    torch.Tensor [batch, n_filters, n_frames]
        The maps.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480, device="meta"), torch.ones(3, 5)
    >>> offsets = torch.zeros(3, device="meta")
    >>> filter_and_pool(wavs, filters.to("meta"), offsets, 16, padding=2).shape
    torch.Size([2, 3, 16])
    """
    keep_mask = torch.is_grad_enabled() and (
        filters.requires_grad or offsets.requires_grad
    )
    n_samples = wavs.shape[1] + 2 * padding - filters.shape[1] + 1
    # An octet would meet any number of windows if they could be shorter than a sample.
    maps, _ = _forward_operator(
        *(wavs.detach(), filters, offsets, min(n_frames, n_samples)),
        *(padding, half, keep_mask),
    )
    return maps if n_frames <= n_samples else F.adaptive_avg_pool1d(maps, n_frames)
