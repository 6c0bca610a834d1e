"""Waveform and filters to pooled maps: the definition, and a choice of fast paths."""

import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import fft, simd, tensor_cores
from ms_sincresnet.nnet.moments import output_moments
from ms_sincresnet.nnet.sync_batch_norm import (
    SharedBatchNorm1d,
    moments_over_processes,
    scale_and_offset,
    update_running_statistics,
)

BACKENDS = ("auto", "reference", "fft", "simd", "tensor_cores")
OPERATORS = {"fft": fft, "simd": simd, "tensor_cores": tensor_cores}


def filtered_maps(wavs, filters, norm, n_frames, padding=0, backend="auto", half=False):
    """Filters → batch norm → ReLU → adaptive average pooling.

    The paper's eqs. (6) to (8) for one scale.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Normalised clips.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters, applied as convolutional layers do, by correlation.
    norm : torch.nn.BatchNorm1d
        The batch norm. In training its running statistics are updated.
    n_frames : int
        Frames of the map.
    padding : int
        Zeros on either side of the waveform. Half a kernel keeps its length.
    backend : str
        "reference": ``reference_maps``, the definition. "fft", "simd", "tensor_cores":
        ``fast_maps`` by the operator of that file. "auto": the fastest of these that
        can be used.
    half : bool
        Whether tensor cores may round factors to float16, as under autocast.

    Returns
    -------
    torch.Tensor [batch, n_filters, n_frames]
        The maps.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480), torch.rand(3, 5)
    >>> norm = torch.nn.BatchNorm1d(3)
    >>> filtered_maps(wavs, filters, norm, n_frames=16, padding=2).shape
    torch.Size([2, 3, 16])
    """
    if backend == "auto":
        backend = fastest_backend(wavs, filters, norm)
    if backend == "reference":
        return reference_maps(wavs, filters, norm, n_frames, padding)
    return fast_maps(wavs, filters, norm, n_frames, padding, backend, half)


def fastest_backend(wavs, filters, norm):
    """The fastest way to compute the maps that can be used.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Normalised clips.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.
    norm : torch.nn.Module
        The batch norm.

    Returns
    -------
    str
        One of ``BACKENDS``.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480, requires_grad=True), torch.rand(3, 5)
    >>> fastest_backend(wavs, filters, torch.nn.BatchNorm1d(3))
    'reference'
    """
    if (
        wavs.requires_grad
        or wavs.shape[1] < filters.shape[1]
        or wavs.shape[0] == 0  # FFTs take no empty batch
        or wavs.dtype not in (torch.float32, torch.float64)  # FFTs take no other
        # What others do to share statistics is their own business.
        or not isinstance(norm, torch.nn.BatchNorm1d)
    ):
        return "reference"
    if simd.suits(wavs, filters):
        return "simd"
    if (
        wavs.is_cuda
        and wavs.dtype == torch.float32
        and tensor_cores.AVAILABLE
        and torch.cuda.is_available()  # else the tensors are fake ones
        and torch.cuda.get_device_capability(wavs.device) >= (8, 0)
    ):
        return "tensor_cores"
    return "fft"


def reference_maps(wavs, filters, norm, n_frames, padding=0):
    """The definition, as a PyTorch user would write it. Arguments as ``filtered_maps``.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Normalised clips.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.
    norm : torch.nn.BatchNorm1d
        The batch norm.
    n_frames : int
        Frames of the map.
    padding : int
        Zeros on either side of the waveform.

    Returns
    -------
    torch.Tensor [batch, n_filters, n_frames]
        The maps.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480), torch.rand(3, 5)
    >>> norm = torch.nn.BatchNorm1d(3)
    >>> reference_maps(wavs, filters, norm, n_frames=16, padding=2).shape
    torch.Size([2, 3, 16])
    """
    filtered = F.conv1d(wavs[:, None], filters[:, None], padding=padding)
    return F.adaptive_avg_pool1d(norm(filtered).relu(), n_frames)


def fast_maps(wavs, filters, norm, n_frames, padding=0, backend="fft", half=False):
    """As ``reference_maps``, many times faster; the waveform gets no gradient.

    The batch norm goes into the filters, so that one operator does all the rest.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Normalised clips.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.
    norm : torch.nn.BatchNorm1d
        The batch norm.
    n_frames : int
        Frames of the map.
    padding : int
        Zeros on either side of the waveform.
    backend : str
        "fft", "simd" or "tensor_cores".
    half : bool
        Whether tensor cores may round factors to float16, as under autocast.

    Returns
    -------
    torch.Tensor [batch, n_filters, n_frames]
        The maps.

    Raises
    ------
    ValueError
        If the backend cannot be used for these waveforms.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480), torch.rand(3, 5)
    >>> norm = torch.nn.BatchNorm1d(3)
    >>> fast_maps(wavs, filters, norm, n_frames=16, padding=2).shape
    torch.Size([2, 3, 16])
    """
    _refuse_unsuited(backend, wavs, filters, norm)
    if norm.training:
        mean, variance = output_moments(wavs, filters, padding)
        count = len(wavs) * (wavs.shape[1] + 2 * padding - filters.shape[1] + 1)
        if isinstance(norm, SharedBatchNorm1d):
            mean, variance, count = moments_over_processes(mean, variance, count)
        update_running_statistics(norm, mean, variance, count)
        filters, offsets = fold_norm(filters, norm, mean, variance)
    else:
        filters, offsets = fold_norm(filters, norm)
    arguments = (wavs, filters, offsets, n_frames, padding)
    if backend == "tensor_cores":
        arguments += (half,)
    return OPERATORS[backend].filter_and_pool(*arguments)


def _refuse_unsuited(backend, wavs, filters, norm):
    """Refuses what a backend would fail at, or compute wrongly."""
    if not isinstance(norm, torch.nn.BatchNorm1d):
        raise ValueError(
            f"backend={backend!r} needs a BatchNorm1d; got a {type(norm).__name__}, "
            "whose statistics it cannot share. backend='auto' takes what can be used"
        )
    if backend == "simd":
        suits = simd.suits(wavs, filters)
        needs = (
            f"float32 on the CPU, kernels of at most {simd.FFT_SIZE // 2} taps "
            "and an installation that found a C compiler"
        )
    elif backend == "tensor_cores":
        suits = wavs.device.type != "cpu" and wavs.dtype == torch.float32
        needs = "float32 on an NVIDIA GPU"
    else:
        suits = wavs.dtype in (torch.float32, torch.float64)
        needs = "float32 or float64"
    if not suits:
        loops = "" if simd.LIBRARY else ", and no compiled loops"
        raise ValueError(
            f"backend={backend!r} needs {needs}; got {wavs.dtype} on "
            f"{wavs.device.type}, {filters.shape[1]} taps{loops}. "
            "backend='auto' takes what can be used"
        )


def fold_norm(filters, norm, mean=None, variance=None):
    """Filters and offsets that do what filters and a batch norm do.

    With a = γ / √(v + ε), the batch norm of x ⋆ g is x ⋆ (a·g) + β − m·a.

    Arguments
    ---------
    filters : torch.Tensor [n_filters, kernel_size]
        Filters g.
    norm : torch.nn.BatchNorm1d
        The batch norm: γ, β and ε.
    mean : torch.Tensor [n_filters], optional
        Mean m of each filter's output; by default the running mean.
    variance : torch.Tensor [n_filters], optional
        Variance v of each filter's output; by default the running variance.

    Returns
    -------
    filters : torch.Tensor [n_filters, kernel_size]
        The scaled filters.
    offsets : torch.Tensor [n_filters]
        What is to be added to their outputs.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(1, eps=0)
    >>> mean, variance = torch.ones(1), torch.full((1,), 4)
    >>> filters, offsets = fold_norm(torch.ones(1, 3), norm, mean, variance)
    >>> filters.tolist(), offsets.tolist()
    ([[0.5, 0.5, 0.5]], [-0.5])
    """
    if mean is None:
        mean, variance = norm.running_mean, norm.running_var
    scale, offsets = scale_and_offset(norm, mean, variance)
    return (filters * scale[:, None]).to(filters.dtype), offsets.to(filters.dtype)
