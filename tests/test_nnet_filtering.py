"""The maps' definition and its fast path, against SciPy and PyTorch in float64."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.filtering import (
    fastest_backend,
    filtered_maps,
    output_statistics,
)
from ms_sincresnet.nnet.frontend import normalize_clips

from .backends import FAST

N_FILTERS = 11  # not a multiple of how many the fast path takes at a time


def music(n_samples, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    wavs = torch.randn(batch, n_samples, generator=generator)
    return normalize_clips(wavs + torch.sin(0.17 * torch.arange(n_samples)))


def trained_norm(n_filters=N_FILTERS, seed=0):
    """A batch norm with statistics and an affine part, also of negative weight."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(n_filters, momentum=0.3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias, std=0.5)
    nn.init.normal_(norm.running_mean, std=0.3)
    nn.init.uniform_(norm.running_var, 0.1, 4)
    assert norm.weight.min() < 0 < norm.weight.max()
    return norm


def odd_filters(kernel_size, n_filters=N_FILTERS):
    filters = SincFilterbank(n_filters, kernel_size).filters().detach()
    return filters * torch.linspace(0.5, 1.5, kernel_size)


def definition(wavs, filters, norm, n_frames, padding):
    """Correlation, batch norm as in evaluation, ReLU and averages, in float64."""
    tensors = (wavs, filters, *norm.parameters(), norm.running_mean, norm.running_var)
    wavs, filters, weight, bias, mean, variance = (
        tensor.detach().double().numpy() for tensor in tensors
    )
    padded = np.pad(wavs, ((0, 0), (padding, padding)))[:, None]
    filtered = scipy.signal.oaconvolve(padded, filters[None, :, ::-1], "valid", axes=-1)
    scale = weight / np.sqrt(variance + norm.eps)
    activations = (filtered - mean[:, None]) * scale[:, None] + bias[:, None]
    sums = np.maximum(activations, 0).cumsum(-1)
    sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], -1)
    frame, n = np.arange(n_frames), filtered.shape[-1]
    first, past_last = frame * n // n_frames, -(-(frame + 1) * n // n_frames)
    return (sums[..., past_last] - sums[..., first]) / (past_last - first)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize(
    ("n_samples", "kernel_size", "padding", "n_frames"),
    [
        (48000, 1001, 500, 1024),
        (48000, 251, 0, 1024),
        (47999, 251, 125, 1024),  # a prime: one block
        (32000, 501, 0, 100),
        (16000, 501, 250, 1),
        (1001, 1001, 0, 16),
        (700, 1001, 500, 64),  # shorter than a filter
        (3, 251, 125, 5),  # and than half of one
    ],
)
def test_evaluation_is_as_defined(backend, n_samples, kernel_size, padding, n_frames):
    n_filters, batch = (3, 1) if n_samples > 16000 else (N_FILTERS, 2)
    wavs, norm = music(n_samples, batch), trained_norm(n_filters).eval()
    filters = odd_filters(kernel_size, n_filters)
    expected = definition(wavs, filters, norm, n_frames, padding)
    with torch.no_grad():
        found = filtered_maps(wavs, filters, norm, n_frames, padding, backend)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("n_samples", "padding"),
    [
        *((5000, 125), (5000, 0), (5000, 60), (5000, 250)),
        *((251, 0), (250, 60), (131, 60)),
        *((126, 125), (125, 125), (124, 125), (3, 125)),  # half a filter, and less
    ],
)
def test_output_statistics_are_those_of_the_output(n_samples, padding):
    wavs = music(n_samples, 3).double() + torch.tensor([[0.5], [0.0], [-3.0]])
    filters = torch.randn(11, 251, dtype=torch.float64)
    output = F.conv1d(wavs[:, None], filters[:, None], padding=padding)
    variance, mean = torch.var_mean(output, dim=(0, 2), correction=0)
    found = output_statistics(wavs, filters, padding)
    rounding = {"rtol": 1e-9, "atol": 1e-9 * output.square().mean().item()}
    torch.testing.assert_close(found, (mean, variance), **rounding)


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_output_statistics_have_the_gradient_of_the_output(padding):
    filters = torch.rand(2, 7, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda filters: output_statistics(music(40, 3).double(), filters, padding),
        filters,
    )


def test_auto_is_the_fastest_on_a_cpu(monkeypatch):
    wavs, arguments = music(4000), (odd_filters(251), trained_norm().eval(), 64, 125)
    for backend in ("simd", "fft") if simd.LIBRARY else ("fft",):
        fast = filtered_maps(wavs, *arguments, backend)
        assert filtered_maps(wavs, *arguments).equal(fast)
        # Rounding distinguishes them.
        assert not fast.equal(filtered_maps(wavs, *arguments, "reference"))
        monkeypatch.setattr(simd, "LIBRARY", None)


CLIPS = {
    "half": music(4000).half(),
    "shorter than a filter": music(250),
    "missing": torch.zeros(0, 4000),
    "to learn": music(4000).requires_grad_(),
    "double": music(4000).double(),
}


@pytest.mark.parametrize("clips", CLIPS)
def test_auto_suits_the_clips(clips):
    wavs = CLIPS[clips]
    filters, norm = odd_filters(251).to(wavs.dtype), trained_norm().to(wavs.dtype)
    backend = "fft" if clips == "double" else "reference"
    assert fastest_backend(wavs, filters, norm) == backend
    maps = filtered_maps(wavs, filters, norm.eval(), 64, 125)
    assert maps.shape[1:] == (11, 64)
    if clips == "to learn":
        assert torch.autograd.grad(maps.sum(), wavs)[0].abs().max() > 0


def test_a_sync_batch_norm_takes_the_reference():
    filters, norm = odd_filters(251), nn.SyncBatchNorm(N_FILTERS)
    assert fastest_backend(music(4000), filters, norm) == "reference"
    for backend in ("fft", "simd"):
        with pytest.raises(ValueError, match="needs a BatchNorm1d; got a SyncBatchN"):
            filtered_maps(music(4000), filters, norm, 64, 125, backend)
