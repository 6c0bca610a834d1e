"""Mean and variance of filters' outputs, without computing the outputs."""

import torch
from torch.nn import functional as F


def output_moments(wavs, filters, padding=0):
    """Mean and variance of every filter's output, without computing the output.

    What batch norm needs in training. With y = x ⋆ g, the sum of y is the product of
    g with sliding sums of x, and the sum of y² over the whole support of y is that
    of the autocorrelations of x and g; the outputs beyond the edges, which the
    support has and the output has not, are few, computed and subtracted.
    Differentiable in the filters. In float64, since a narrow band is a small
    difference of large numbers.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        InputCheck; they get no gradient.
    filters : torch.Tensor [n_filters, kernel_size]
        Filters.
    padding : int
        Zeros on either side of the waveform, less than a kernel.

    Returns
    -------
    mean : torch.Tensor [n_filters]
        Mean over batch and time, in float64.
    variance : torch.Tensor [n_filters]
        Biased variance over batch and time, in float64.

    Example
    -------
    >>> wavs, filters = torch.rand(2, 480), torch.rand(3, 5)
    >>> mean, variance = output_moments(wavs, filters, padding=2)
    >>> plain = F.conv1d(wavs[:, None], filters[:, None], padding=2)
    >>> bool((mean - plain.mean((0, 2))).abs().max() < 1e-5)
    True
    """
    wavs, filters = wavs.double(), filters.double()
    n_samples, kernel_size = wavs.shape[1], filters.shape[1]
    n_outputs = n_samples + 2 * padding - kernel_size + 1
    total = len(wavs) * n_outputs

    # Tap j meets the samples j − padding … j − padding + n_outputs − 1.
    sums = F.pad(wavs.sum(0).cumsum(0), (1, 0))
    first = torch.arange(kernel_size, device=wavs.device) - padding
    first, past_last = (
        bound.clamp(0, n_samples) for bound in (first, first + n_outputs)
    )
    sliding = sums[past_last] - sums[first]
    mean = filters @ sliding / total

    # Lags reach to kernel_size − 1: the FFT must not wrap them.
    fft_size = 1 << (n_samples + kernel_size - 1).bit_length()
    lags_of_x = torch.fft.irfft(torch.fft.rfft(wavs, fft_size).abs().square().sum(0))
    fft_size = 1 << (2 * kernel_size - 1).bit_length()
    lags_of_g = torch.fft.irfft(torch.fft.rfft(filters, fft_size).abs().square())
    products = lags_of_g[:, :kernel_size] @ lags_of_x[:kernel_size]
    energy = 2 * products - lags_of_g[:, 0] * lags_of_x[0]

    beyond = kernel_size - 1 - padding  # outputs of the support beyond either edge
    if beyond:
        ends = [wavs[:, :beyond].flip(1), wavs[:, -beyond:]]
        for taps, end in zip([filters.flip(1), filters], ends, strict=True):
            end = F.pad(end, (beyond - end.shape[1], 0))  # of a very short waveform
            energy = energy - _energy_beyond(end, taps)
    return mean, energy / total - mean.square()


def _energy_beyond(end, filters):
    """Energy of the outputs that see only the last samples of a waveform.

    With e_i the last n samples, output t is Σ_i g_i e_(t + i). The energy of all of
    them is Σ g_i R_ij g_j, where R_ij is the sum of e_(i + t) e_(j + t) over t ≥ 0.
    """
    n = end.shape[1]
    filters = filters[:, :n]
    # Row i of the view has what is right of the diagonal, from element (i, i) on.
    products = F.pad(end.mT @ end, (0, n)).flatten()
    sums = torch.zeros_like(products)
    along = {"dimension": 0, "size": n, "step": 2 * n + 1}
    sums.unfold(**along).copy_(products.unfold(**along).flip(0).cumsum(0).flip(0))
    right = sums.view(n, 2 * n)[:, :n]
    both = right + right.mT - right.diag().diag()
    return ((filters @ both) * filters).sum(1)
