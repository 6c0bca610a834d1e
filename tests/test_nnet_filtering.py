"""The maps' definition and its fast paths, against PyTorch in float64."""

import pytest
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

from .backends import FAST, music, trained

N_FILTERS = 11  # not a multiple of how many the fast path takes at a time


def clips(n_samples, batch=2):
    return normalize_clips(music(batch, n_samples))


def trained_norm():
    return trained(nn.BatchNorm1d(N_FILTERS, momentum=0.3))


def odd_filters(kernel_size):
    filters = SincFilterbank(N_FILTERS, kernel_size).filters().detach()
    return filters * torch.linspace(0.5, 1.5, kernel_size)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize(
    ("n_samples", "kernel_size", "padding", "n_frames"),
    [
        (16000, 1001, 500, 1024),
        (47999, 251, 0, 100),
        (1001, 1001, 0, 1),
        (3, 251, 125, 5),  # shorter than half a filter
    ],
)
def test_evaluation_is_as_defined(backend, n_samples, kernel_size, padding, n_frames):
    wavs, filters = clips(n_samples), odd_filters(kernel_size)
    norm = trained_norm().eval()
    with torch.no_grad():
        found = filtered_maps(wavs, filters, norm, n_frames, padding, backend)
        assert found.dtype == torch.float32
        assert norm.num_batches_tracked == 0
        wavs, filters = wavs.double()[:, None], filters.double()[:, None]
        filtered = F.conv1d(wavs, filters, padding=padding)
        expected = F.adaptive_avg_pool1d(norm.double()(filtered).relu(), n_frames)
    rounding = {"rtol": 0, "atol": 1e-5 * expected.max().item()}
    torch.testing.assert_close(found.double(), expected, **rounding)


@pytest.mark.parametrize(
    ("n_samples", "padding"),
    [(5000, 125), (5000, 0), (5000, 250), (131, 60), (126, 125), (125, 125), (3, 125)],
)
def test_output_statistics_are_those_of_the_output(n_samples, padding):
    wavs = clips(n_samples, 3).double() + torch.tensor([[0.5], [0.0], [-3.0]])
    filters = torch.randn(11, 251, dtype=torch.float64)
    output = F.conv1d(wavs[:, None], filters[:, None], padding=padding)
    variance, mean = torch.var_mean(output, dim=(0, 2), correction=0)
    found = output_statistics(wavs, filters, padding)
    rounding = {"rtol": 1e-9, "atol": 1e-9 * output.square().mean().item()}
    torch.testing.assert_close(found, (mean, variance), **rounding)


FASTEST = "simd" if simd.LIBRARY else "fft"


@pytest.mark.parametrize(
    ("wavs", "kernel_size", "backend"),
    [
        pytest.param(clips(4000), 251, FASTEST, id="usual"),
        pytest.param(clips(4000), 2049, "fft", id="long filters"),
        pytest.param(clips(4000).double(), 251, "fft", id="double"),
        pytest.param(clips(4000).half(), 251, "reference", id="half"),
        pytest.param(clips(250), 251, "reference", id="shorter than a filter"),
        pytest.param(torch.zeros(0, 4000), 251, "reference", id="missing"),
        pytest.param(clips(4000).requires_grad_(), 251, "reference", id="to learn"),
    ],
)
def test_auto_suits_the_clips_and_the_machine(wavs, kernel_size, backend, monkeypatch):
    filters, norm = odd_filters(kernel_size).to(wavs), trained_norm().to(wavs.dtype)
    assert fastest_backend(wavs, filters, norm) == backend
    arguments = wavs, filters, norm.eval(), 64, 125
    maps = filtered_maps(*arguments)
    assert maps.shape[1:] == (11, 64) and maps.isfinite().all()
    assert maps.equal(filtered_maps(*arguments, backend))
    if wavs.requires_grad:
        assert torch.autograd.grad(maps.sum(), wavs)[0].abs().max() > 0
    monkeypatch.setattr(simd, "LIBRARY", None)
    without_loops = "fft" if backend == "simd" else backend
    assert fastest_backend(wavs, filters, norm) == without_loops


@pytest.mark.parametrize(
    ("backend", "dtype", "kernel_size", "norm", "message"),
    [
        ("simd", torch.float64, 11, nn.BatchNorm1d, "float32.*got torch.float64"),
        ("simd", torch.float32, 2049, nn.BatchNorm1d, "most 2048 taps.*got .* 2049 "),
        ("tensor_cores", torch.float32, 11, nn.BatchNorm1d, "NVIDIA GPU; got .* cpu"),
        ("fft", torch.bfloat16, 11, nn.BatchNorm1d, "or float64; got torch.bfloat16"),
        ("simd", torch.float32, 11, nn.SyncBatchNorm, "BatchNorm1d; got a SyncBatchN"),
    ],
)
def test_a_backend_names_what_it_needs(backend, dtype, kernel_size, norm, message):
    wavs, filters = clips(4000).to(dtype), odd_filters(kernel_size).to(dtype)
    arguments = wavs, filters, norm(N_FILTERS)
    with pytest.raises(ValueError, match=f"'{backend}' needs .*{message}"):
        filtered_maps(*arguments, 64, 125, backend)
    assert fastest_backend(*arguments) in {"reference", "fft", "simd"} - {backend}
