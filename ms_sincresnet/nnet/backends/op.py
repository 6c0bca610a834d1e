"""The autograd operators of the backends, and the geometry that these share."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Sizes(NamedTuple):
    """The sizes of a call, which fix the blocks and masks of a backend."""

    batch: int
    n_filters: int
    kernel_size: int
    padding: int  # zeros at either end of a clip
    n_outputs: int  # samples of a filter's output
    n_frames: int

    @classmethod
    def of(
        cls, wavs: Tensor, n_filters: int, kernel_size: int, padding: int, n_frames: int
    ) -> "Sizes":
        """The sizes of a call for these clips [batch, time]."""
        n_outputs = wavs.shape[1] + 2 * padding - kernel_size + 1
        return cls(wavs.shape[0], n_filters, kernel_size, padding, n_outputs, n_frames)


def filter_and_pool_operator(
    name: str,
    forward: Callable[..., Tensor],
    backward: Callable[..., tuple[Tensor, Tensor]],
    mask_shape: Callable[[Sizes], tuple[int, ...]],
    options: str = "",
) -> Callable[..., Tensor]:
    """Registers ReLU(x ⋆ g + c), pooled, and its gradient as operators of PyTorch.

    So callers can be traced, compiled and exported. The masks hold one bit per
    activation, its sign, in ``mask_shape(sizes)`` bytes:
    ``forward(wavs, filters, offsets, sizes, masks, *options)`` returns the maps, and
    fills the masks, if given; ``backward(grad_maps, wavs, masks, sizes, *options)``
    returns the gradients of filters and offsets. ``options`` declares a backend's own
    arguments, as in ", bool half".
    """

    def new_masks(wavs, sizes, keep_masks):
        shape = mask_shape(sizes) if keep_masks else (0,)
        return wavs.new_empty(shape, dtype=torch.uint8)

    def compute(wavs, filters, offsets, n_frames, padding, *rest):
        *options, keep_masks = rest
        sizes = Sizes.of(wavs, *filters.shape, padding, n_frames)
        masks = new_masks(wavs, sizes, keep_masks)
        arguments = (sizes, masks if keep_masks else None, *options)
        return forward(wavs, filters, offsets, *arguments), masks

    def differentiate(grad_maps, wavs, masks, kernel_size, padding, *options):
        _, n_filters, n_frames = grad_maps.shape
        sizes = Sizes.of(wavs, n_filters, kernel_size, padding, n_frames)
        return backward(grad_maps, wavs, masks, sizes, *options)

    operator = torch.library.custom_op(
        f"ms_sincresnet::{name}",
        compute,
        mutates_args=(),
        schema="(Tensor wavs, Tensor filters, Tensor offsets, SymInt n_frames, "
        f"SymInt padding{options}, bool keep_masks) -> (Tensor, Tensor)",
    )
    gradient = torch.library.custom_op(
        f"ms_sincresnet::{name}_backward",
        differentiate,
        mutates_args=(),
        schema="(Tensor grad_maps, Tensor wavs, Tensor masks, SymInt kernel_size, "
        f"SymInt padding{options}) -> (Tensor, Tensor)",
    )

    @operator.register_fake
    def _(wavs, filters, offsets, n_frames, padding, *rest):
        sizes = Sizes.of(wavs, *filters.shape, padding, n_frames)
        maps = wavs.new_empty(sizes.batch, sizes.n_filters, n_frames)
        return maps, new_masks(wavs, sizes, keep_masks=rest[-1])

    @gradient.register_fake
    def _(grad_maps, wavs, masks, kernel_size, padding, *options):
        grad_filters = grad_maps.new_empty(grad_maps.shape[1], kernel_size)
        return grad_filters, grad_maps.new_empty(grad_maps.shape[1])

    def setup_context(ctx, inputs, output):
        wavs, filters, _, _, padding, *options, _ = inputs
        ctx.save_for_backward(wavs, output[1])
        ctx.arguments = filters.shape[1], padding, *options
        ctx.set_materialize_grads(False)  # those of the masks are as large as the masks

    def propagate(ctx, grad_maps, _):
        grads = None, None
        if grad_maps is not None:
            grads = gradient(grad_maps, *ctx.saved_tensors, *ctx.arguments)
        return None, *grads, *[None] * (1 + len(ctx.arguments))

    operator.register_autograd(propagate, setup_context=setup_context)

    def filter_and_pool(wavs, filters, offsets, n_frames, padding=0, **options):
        """ReLU(x ⋆ g + c) of clips [batch, time], pooled: [batch, n_filters, n_frames].

        Filters [n_filters, kernel_size] and offsets [n_filters] get a gradient.
        """
        learns = filters.requires_grad or offsets.requires_grad
        keep_masks = torch.is_grad_enabled() and learns
        n_samples = Sizes.of(wavs, *filters.shape, padding, n_frames).n_outputs
        # Backends have no frames shorter than a sample.
        rest = (min(n_frames, n_samples), padding, *options.values(), keep_masks)
        maps, _ = operator(wavs.detach(), filters, offsets, *rest)
        return maps if n_frames <= n_samples else F.adaptive_avg_pool1d(maps, n_frames)

    return filter_and_pool


def overlapping_blocks(
    wavs: Tensor, padding: int, size: int, hop: int, n_blocks: int
) -> Tensor:
    """The input [batch, n_blocks, size] that each block of ``hop`` outputs needs."""
    reach = (n_blocks - 1) * hop + size
    return F.pad(wavs, (padding, reach - padding - wavs.shape[1])).unfold(1, size, hop)


def pool_windows(
    n_samples: int, n_frames: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Start and end of each frame's samples in ``adaptive_avg_pool1d``."""
    edges = torch.arange(n_frames + 1, device=device) * n_samples
    return edges[:-1] // n_frames, -(-edges[1:] // n_frames)
