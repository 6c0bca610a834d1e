"""The autograd operators of the backends, and the geometry that these share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def filter_and_pool_operator(
    name: str,
    forward: Callable[..., Tensor],
    backward: Callable[..., tuple[Tensor, Tensor]],
    mask_shape: Callable[..., tuple[int, ...]],
    options: str = "",
) -> Callable[..., Tensor]:
    """Registers ReLU(x ⋆ g + c), pooled, and its gradient as operators of PyTorch.

    So callers can be traced, compiled and exported. The backward pass needs one bit per
    activation, its sign, in masks whose layout is the backend's own:

    * ``mask_shape(batch, n_filters, kernel_size, n_outputs, n_frames)``, in bytes
    * ``forward(wavs, filters, offsets, n_frames, padding, masks, *options)`` returns
      the maps, and fills the masks unless they are None
    * ``backward(grad_maps, wavs, masks, kernel_size, padding, *options)`` returns the
      gradients of filters and offsets; the waveform gets none

    ``options`` declares further arguments, as in "bool half, ".
    """

    def new_masks(wavs, filters, n_frames, padding, keep_masks):
        shape: tuple[int, ...] = (0,)
        if keep_masks:
            n_samples = n_outputs(wavs, filters.shape[1], padding)
            shape = mask_shape(wavs.shape[0], *filters.shape, n_samples, n_frames)
        return wavs.new_empty(shape, dtype=torch.uint8)

    def compute(wavs, filters, offsets, n_frames, padding, *rest):
        *options, keep_masks = rest
        masks = new_masks(wavs, filters, n_frames, padding, keep_masks)
        kept = masks if keep_masks else None
        maps = forward(wavs, filters, offsets, n_frames, padding, kept, *options)
        return maps, masks

    operator = torch.library.custom_op(
        f"ms_sincresnet::{name}",
        compute,
        mutates_args=(),
        schema="(Tensor wavs, Tensor filters, Tensor offsets, SymInt n_frames, "
        f"SymInt padding, {options}bool keep_masks) -> (Tensor, Tensor)",
    )
    gradient = torch.library.custom_op(
        f"ms_sincresnet::{name}_backward",
        backward,
        mutates_args=(),
        schema="(Tensor grad_maps, Tensor wavs, Tensor masks, SymInt kernel_size, "
        f"SymInt padding, {options}".rstrip(", ")
        + ") -> (Tensor, Tensor)",
    )

    @operator.register_fake
    def _(wavs, filters, offsets, n_frames, padding, *rest):
        maps = wavs.new_empty(wavs.shape[0], filters.shape[0], n_frames)
        return maps, new_masks(wavs, filters, n_frames, padding, rest[-1])

    @gradient.register_fake
    def _(grad_maps, wavs, masks, kernel_size, padding, *options):
        n_filters = grad_maps.shape[1]
        grad_filters = grad_maps.new_empty(n_filters, kernel_size)
        return grad_filters, grad_maps.new_empty(n_filters)

    def setup_context(ctx, inputs, output):
        wavs, filters, _, _, padding, *options, _ = inputs
        ctx.save_for_backward(wavs, output[1])
        ctx.arguments = filters.shape[1], padding, *options
        ctx.set_materialize_grads(False)  # those of the masks are as large as the masks

    def propagate(ctx, grad_maps, _):
        constants = [None] * (len(ctx.arguments) + 1)
        if grad_maps is None:
            return None, None, None, *constants
        return (
            None,
            *gradient(grad_maps, *ctx.saved_tensors, *ctx.arguments),
            *constants,
        )

    operator.register_autograd(propagate, setup_context=setup_context)

    def filter_and_pool(wavs, filters, offsets, n_frames, padding=0, *options):
        """ReLU(x ⋆ g + c) of clips [batch, time], pooled: [batch, n_filters, n_frames].

        Filters [n_filters, kernel_size] and offsets [n_filters] get a gradient.
        """
        learns = filters.requires_grad or offsets.requires_grad
        keep_masks = torch.is_grad_enabled() and learns
        n_samples = n_outputs(wavs, filters.shape[1], padding)
        # Frames shorter than a sample are copies: backends need not know of them.
        maps, _ = operator(
            *(wavs.detach(), filters, offsets, min(n_frames, n_samples), padding),
            *(*options, keep_masks),
        )
        return maps if n_frames <= n_samples else F.adaptive_avg_pool1d(maps, n_frames)

    return filter_and_pool


def n_outputs(wavs: Tensor, kernel_size: int, padding: int) -> int:
    """Samples of a filter's output, for clips with zeros at either end."""
    return wavs.shape[1] + 2 * padding - kernel_size + 1


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


def needs_gradient(module: nn.Module, inputs: Tensor) -> bool:
    """True if a backward pass may follow, which rules out inference's shortcuts."""
    return torch.is_grad_enabled() and (
        inputs.requires_grad or any(p.requires_grad for p in module.parameters())
    )
