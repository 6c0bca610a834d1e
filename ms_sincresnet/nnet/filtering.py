"""Waveform and filters to pooled maps: the definition, and a choice of fast paths."""

import torch
from torch.nn import functional as F

from ms_sincresnet.nnet import fft_blocks
from ms_sincresnet.nnet.moments import output_moments

BACKENDS = ("auto", "reference", "fft")


def filtered_maps(wavs, filters, norm, n_frames, padding=0, backend="auto"):
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
        "reference": ``reference_maps``, the definition. "fft": ``fft_maps``. "auto":
        "fft" where it is faster and can be used, else "reference".

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
        backend = "fft" if _suits_fft(wavs, filters, norm) else "reference"
    maps = {"reference": reference_maps, "fft": fft_maps}[backend]
    return maps(wavs, filters, norm, n_frames, padding)


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


def fft_maps(wavs, filters, norm, n_frames, padding=0):
    """As ``reference_maps``, several times faster; the waveform gets no gradient.

    Batch norm and ReLU of y = x ⋆ g are ReLU(x ⋆ (a·g) + c) with a = γ / √(v + ε) and
    c = β − m·a, so the batch norm goes into the filters.

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
    >>> fft_maps(wavs, filters, norm, n_frames=16, padding=2).shape
    torch.Size([2, 3, 16])
    """
    if norm.training:
        mean, variance = output_moments(wavs, filters, padding)
        n_outputs = wavs.shape[1] + 2 * padding - filters.shape[1] + 1
        _update_running_statistics(norm, mean, variance, len(wavs) * n_outputs)
    else:
        mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    offsets = norm.bias - mean * scale
    return fft_blocks.filter_and_pool(
        wavs,
        (filters * scale[:, None]).to(wavs.dtype),
        offsets.to(wavs.dtype),
        n_frames,
        padding,
    )


def _suits_fft(wavs, filters, norm):
    """Whether the fast path can be used, and is faster."""
    return (
        wavs.device.type == "cpu"
        and wavs.dtype in (torch.float32, torch.float64)  # FFTs take no other
        and not wavs.requires_grad
        and wavs.shape[1] >= filters.shape[1]
        # Statistics of several processes are the batch norm's own business.
        and isinstance(norm, torch.nn.BatchNorm1d)
    )


@torch.no_grad()
def _update_running_statistics(norm, mean, variance, count):
    """What BatchNorm1d does to its running statistics in training."""
    norm.num_batches_tracked += 1
    unbiased = variance * (count / max(count - 1, 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
