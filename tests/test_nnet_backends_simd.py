"""The compiled loops beside PyTorch in float64.

Clips and filters are integers and offsets halves, so that no activation is nearer to 0
than a half, and rounding does not decide what passes the ReLU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.simd import filter_and_pool

from .backends import needs_compiler


def problem(batch, n_samples, n_filters, kernel_size):
    """Clips, and filters and offsets that need a gradient."""
    generator = torch.Generator().manual_seed(0)

    def integers(*shape):
        return torch.randint(-2, 3, shape, generator=generator).float()

    filters, offsets = integers(n_filters, kernel_size), 0.5 + integers(n_filters)
    wavs = integers(batch, n_samples)
    return wavs, filters.requires_grad_(), offsets.requires_grad_()


def definition(wavs, filters, offsets, n_frames, padding):
    wavs, filters, offsets = (x.double() for x in (wavs, filters, offsets))
    filtered = F.conv1d(wavs[:, None], filters[:, None], offsets, padding=padding)
    return filtered, F.adaptive_avg_pool1d(filtered.relu(), n_frames)


@needs_compiler
@pytest.mark.parametrize(
    ("batch", "n_samples", "n_filters", "kernel_size", "padding", "n_frames"),
    [
        (1, 97, 1, 5, 0, 8),
        (2, 300, 11, 7, 3, 1024),  # more frames than samples
        (2, 4096, 32, 1, 0, 64),  # a full block
        (1, 4097, 33, 1, 0, 64),  # and one sample more
        (3, 5003, 33, 251, 125, 61),  # a prime
        (9, 200, 2, 11, 5, 16),  # more clips than sums of gradients
        (2, 4001, 5, 1001, 500, 7),
        (1, 2048, 3, 2048, 0, 16),  # a single output
        (2, 700, 2, 1000, 500, 64),  # shorter than a filter, of even length
        (1, 3, 2, 251, 125, 5),
    ],
)
def test_maps_and_gradients_are_those_of_pytorch(
    batch, n_samples, n_filters, kernel_size, padding, n_frames
):
    wavs, *learned = problem(batch, n_samples, n_filters, kernel_size)
    activations, expected = definition(wavs, *learned, n_frames, padding)
    found = filter_and_pool(wavs, *learned, n_frames, padding)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape == (batch, n_filters, n_frames)
    largest = activations.abs().max().item()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 * largest)

    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((found * weights).sum(), learned)
    expected_grads = torch.autograd.grad((expected * weights).sum(), learned)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.shape == expected_grad.shape
        assert (grad - expected_grad).norm() < 1e-6 * expected_grad.norm()


@needs_compiler
def test_tensors_need_not_be_contiguous():
    song, filters, offsets = problem(1, 900, 17, 31)
    wavs = song[0].unfold(0, 500, 200)
    scattered = torch.stack([filters, filters], -1)[..., 0]
    found = filter_and_pool(wavs, scattered, offsets, 64, 15)
    expected = filter_and_pool(wavs.clone(), filters, offsets, 64, 15)
    assert found.equal(expected)
    grads = torch.autograd.grad(found.sum(), [filters, offsets])
    ones = torch.ones_like(expected)
    expected_grads = torch.autograd.grad(expected, [filters, offsets], ones)
    assert all(map(torch.equal, grads, expected_grads))


@needs_compiler
def test_the_same_to_the_bit_in_any_number_of_threads_and_each_time():
    wavs, weights = torch.randn(10, 5003), torch.randn(10, 40, 64)
    learned = [torch.randn(40, 101).requires_grad_(), torch.randn(40).requires_grad_()]
    steps, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 1, 2, 3):
            torch.set_num_threads(n_threads)
            maps = filter_and_pool(wavs, *learned, 64, 50)
            grads = torch.autograd.grad((maps * weights).sum(), learned)
            steps.append([maps, *grads])
    finally:
        torch.set_num_threads(before)
    for step in steps[1:]:
        assert all(map(torch.equal, step, steps[0]))


@needs_compiler
@pytest.mark.parametrize("spoilt", ["filters", "wavs"])
def test_nan_is_not_hidden(spoilt):
    arguments = {"wavs": torch.randn(1, 600), "filters": torch.randn(1, 7)}
    arguments[spoilt][0, 3] = torch.nan
    maps = filter_and_pool(**arguments, offsets=torch.zeros(1), n_frames=8)
    assert maps.isnan().all()


@needs_compiler
@pytest.mark.skipif(simd.LANES == 4, reason="all tests are of four lanes here")
def test_four_lanes_for_any_processor_pass_the_same_tests():
    """In a process that takes the processor for one without AVX2 and AVX-512."""
    command = (
        "import sys, pytest; from ms_sincresnet.nnet.backends import simd; "
        "assert simd.LIBRARY and simd.LANES == 4; sys.exit(pytest.main(sys.argv[1:]))"
    )
    here = Path(__file__)
    files = [str(here), str(here.with_name("test_nnet_backends_songs.py"))]
    some = "maps_and_gradients or songs_have_the_maps"
    run = subprocess.run(
        [sys.executable, "-c", command, "-q", "--noconftest", *files, "-k", some],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "28 passed" in run.stdout
