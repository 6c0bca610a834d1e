"""Fast paths as operators of PyTorch, which compiled and traced callers know."""

import torch

FORWARD = (
    "(Tensor wavs, Tensor filters, Tensor offsets, int n_frames, int padding, "
    "bool keep_masks) -> (Tensor, Tensor)"
)
BACKWARD = (
    "(Tensor grad_maps, Tensor wavs, Tensor masks, int kernel_size, int padding) "
    "-> (Tensor, Tensor)"
)


def filter_and_pool_operator(name, forward, backward, new_masks):
    """Makes ReLU(x ⋆ g + c), pooled, an operator, and its gradient another one.

    Arguments
    ---------
    name : str
        Its name in ``torch.ops.ms_sincresnet``; that of its gradient ends with
        ``_backward``.
    forward : callable
        (wavs, filters, offsets, n_frames, padding, keep_masks) → maps, masks. The masks
        tell which activations are positive, or are empty if not to be kept.
    backward : callable
        (grad_maps, wavs, masks, kernel_size, padding) → gradients of filters and
        offsets.
    new_masks : callable
        (wavs, filters, n_frames, padding, keep_masks) → masks, uninitialised.

    Returns
    -------
    callable
        (wavs [batch, time], filters [n_filters, kernel_size], offsets [n_filters],
        n_frames, padding=0) → maps [batch, n_filters, n_frames], differentiable in
        filters and offsets.

    Example
    -------
    >>> from ms_sincresnet.nnet.backends.fft import filter_and_pool
    >>> wavs, filters = torch.rand(2, 480), torch.ones(3, 5)
    >>> filter_and_pool(wavs, filters, torch.zeros(3), n_frames=16, padding=2).shape
    torch.Size([2, 3, 16])
    """
    options = {"mutates_args": ()}
    operator = torch.library.custom_op(
        f"ms_sincresnet::{name}", forward, schema=FORWARD, **options
    )
    gradient = torch.library.custom_op(
        f"ms_sincresnet::{name}_backward", backward, schema=BACKWARD, **options
    )

    @operator.register_fake
    def _fake(wavs, filters, offsets, n_frames, padding, keep_masks):
        """Shapes, for tracing."""
        maps = wavs.new_empty(wavs.shape[0], len(filters), n_frames)
        return maps, new_masks(wavs, filters, n_frames, padding, keep_masks)

    @gradient.register_fake
    def _fake_gradient(grad_maps, wavs, masks, kernel_size, padding):
        """Shapes, for tracing."""
        n_filters = grad_maps.shape[1]
        grad_filters = grad_maps.new_empty(n_filters, kernel_size)
        return grad_filters, grad_maps.new_empty(n_filters)

    def _keep(ctx, inputs, output):
        """Keeps the waveforms and the masks."""
        wavs, filters, _, _, padding, _ = inputs
        ctx.save_for_backward(wavs, output[1])
        ctx.arguments = filters.shape[1], padding
        ctx.set_materialize_grads(False)  # the masks' would be as large as they are

    def _propagate(ctx, grad_maps, _):
        """Gradients of the arguments; the waveform gets none."""
        if grad_maps is None:
            return (None,) * 6
        return (
            None,
            *gradient(grad_maps, *ctx.saved_tensors, *ctx.arguments),
            *[None] * 3,
        )

    operator.register_autograd(_propagate, setup_context=_keep)

    def filter_and_pool(wavs, filters, offsets, n_frames, padding=0):
        """Filters, adds, rectifies and averages: ReLU(x ⋆ g + c), pooled."""
        needs_masks = torch.is_grad_enabled() and (
            filters.requires_grad or offsets.requires_grad
        )
        return operator(wavs, filters, offsets, n_frames, padding, needs_masks)[0]

    return filter_and_pool


def needs_gradient(module, inputs):
    """Whether a backward pass may follow, so that shortcuts are out of the question.

    Arguments
    ---------
    module : torch.nn.Module
        A module.
    inputs : torch.Tensor
        What it is given.

    Returns
    -------
    bool
        Whether its parameters or the inputs may get a gradient.

    Example
    -------
    >>> with torch.no_grad():
    ...     needs_gradient(torch.nn.Linear(1, 1), torch.zeros(1))
    False
    """
    return torch.is_grad_enabled() and (
        inputs.requires_grad or any(p.requires_grad for p in module.parameters())
    )
