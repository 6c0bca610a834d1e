"""The kernels for NVIDIA GPUs: in Triton's interpreter, compiled, and on a GPU.

Triton interprets its kernels, on the CPU, if TRITON_INTERPRET is set before it is
imported. So the tests named "interpreted" run in a second pytest that
``test_in_tritons_interpreter`` starts. There tf32x3, three products in place of one,
is plain float32: the interpreter does not show its accuracy on a GPU.
"""

import os
import runpy
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import op, tensor_cores
from ms_sincresnet.nnet.backends.tensor_cores import filter_and_pool

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
OPERATORS = torch.ops.ms_sincresnet
needs_triton = pytest.mark.skipif(not tensor_cores.AVAILABLE, reason="needs Triton")
interpreted = pytest.mark.skipif(not INTERPRETED, reason="a second pytest runs it")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
each_half = pytest.mark.parametrize("half", [False, True])


def inputs(batch, n_samples, n_filters, kernel_size, device="cpu"):
    """Normalised noise, filters that leave its scale, and offsets."""
    generator = torch.Generator().manual_seed(0)
    wavs = torch.randn(batch, n_samples, generator=generator)
    filters = torch.randn(n_filters, kernel_size, generator=generator)
    offsets = 0.3 * torch.randn(n_filters, generator=generator)
    filters = filters / kernel_size**0.5
    return [tensor.to(device) for tensor in (wavs, filters, offsets)]


def definition(wavs, filters, offsets, n_frames, padding):
    filtered = F.conv1d(wavs[:, None], filters[:, None], offsets, padding=padding)
    return F.adaptive_avg_pool1d(filtered.relu(), n_frames)


def maps_and_gradients(function, factors, *arguments, scale=1.0, **options):
    """Maps, and the gradients of a random sum of them."""
    wavs, *learned = factors
    learned = [x.detach().requires_grad_() for x in learned]
    maps = function(wavs, *learned, *arguments, **options)
    generator = torch.Generator().manual_seed(1)
    grad_maps = scale * torch.randn(maps.shape, generator=generator)
    maps.backward(grad_maps.to(maps))
    return maps.detach(), *(x.grad for x in learned)


def relative_error(found, expected):
    """Root mean square of the error, over the root mean square expected."""
    assert found.shape == expected.shape
    return ((found - expected).norm() / expected.norm()).item()


def check(sizes, n_frames, padding, half, tolerances, device="cpu"):
    """Compares maps and gradients with those of the rounded factors in float64."""
    factors = inputs(*sizes, device)
    found = maps_and_gradients(filter_and_pool, factors, n_frames, padding, half=half)
    if half:
        factors[:2] = (factor.half() for factor in factors[:2])
    factors = [factor.double() for factor in factors]
    expected = maps_and_gradients(definition, factors, n_frames, padding)
    for x, y, tolerance in zip(found, expected, tolerances, strict=True):
        assert x.dtype == torch.float32
        assert relative_error(x, y) < tolerance


def check_operators(wavs, filters, offsets, n_frames, padding, half):
    """Checks schemas, gradients and shapes; all backends are compiled alike."""
    filters.requires_grad_()
    arguments = (wavs, filters, offsets, n_frames, padding, half, True)
    rules = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATORS.filter_and_pool, arguments, test_utils=rules)
    maps, masks = OPERATORS.filter_and_pool(*arguments)
    arguments = (maps.detach(), wavs, masks, filters.shape[1], padding, half)
    backward = OPERATORS.filter_and_pool_backward
    torch.library.opcheck(backward, arguments, test_utils=rules)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="it is this test that interprets")
def test_in_tritons_interpreter():
    command = [sys.executable, "-m", "pytest", __file__, "-k", "interpreted"]
    options = ["-q", "--noconftest", "-p", "no:cacheprovider"]
    run = subprocess.run(
        command + options,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted" in run.stdout:
        pytest.skip("the interpreter of this Triton is older than this NumPy")
    assert run.returncode == 0, run.stdout


@interpreted
@pytest.mark.parametrize(
    ("batch", "n_samples", "n_filters", "kernel_size", "n_frames", "padding", "half"),
    [
        # 46 or 47 samples per frame, two tiles of filters
        (1, 939, 17, 57, 20, 28, False),
        (1, 2048, 2, 25, 43, 12, True),  # exactly two tiles of octets
        (1, 2100, 2, 25, 2, 12, True),  # a frame takes several tiles
        (2, 130, 16, 121, 9, 0, True),  # a frame is hardly longer than a sample
        (1, 40, 1, 9, 100, 4, False),  # and shorter
        (3, 3, 2, 9, 3, 4, True),
    ],
)
def test_interpreted_kernels_are_the_definition(
    batch, n_samples, n_filters, kernel_size, n_frames, padding, half
):
    sizes = (batch, n_samples, n_filters, kernel_size)
    tolerances = (5e-4, 5e-4, 1e-6) if half else (5e-7, 5e-7, 5e-7)
    check(sizes, n_frames, padding, half, tolerances)


@interpreted
def test_interpreted_gradients_neither_vanish_nor_overflow():
    call = (filter_and_pool, inputs(1, 100, 3, 7), 8, 3)
    _, *expected = maps_and_gradients(*call, half=True)
    for scale in (1e-12, 1e12, 0.0):
        _, *found = maps_and_gradients(*call, half=True, scale=scale)
        for x, y in zip(found, expected, strict=True):
            assert (x - scale * y).norm() <= 5e-4 * scale * y.norm()


@interpreted
def test_interpreted_kernels_propagate_nan():
    wavs, filters, offsets = inputs(2, 100, 3, 7)
    wavs[1, 50] = torch.nan
    maps = filter_and_pool(wavs, filters, offsets, 8, half=False)
    np.testing.assert_array_equal(maps.isnan().any(2).any(1), [False, True])
    call = (filter_and_pool, inputs(1, 100, 3, 7), 8)
    _, *found = maps_and_gradients(*call, half=False, scale=torch.nan)
    assert all(x.isnan().all() for x in found)


@interpreted
def test_interpreted_operators_keep_the_rules_of_pytorch():
    check_operators(*inputs(1, 60, 2, 7), 9, 3, False)


def compiled_for(capability, kernel, half, **sizes):
    """A kernel compiled as for 48,000 samples and 1024 frames, without a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    options = {name: x for name, x in sizes.items() if name.startswith("num_")}
    floats = "*fp16" if half else "*fp32"
    constants = {name: x for name, x in sizes.items() if name.isupper()}
    types = {"wavs": floats, "taps": floats, "mask": "*u8", "windows": "*i32"}
    types |= dict.fromkeys(["offsets", "weights", "maps", "grad_maps"], "*fp32")
    types |= dict.fromkeys(["grad_taps", "grad_offsets"], "*fp32")
    types |= dict.fromkeys(constants, "constexpr")
    names = kernel.arg_names
    undivided = {"frames_a_tile", "n_parts", "n_clips", *constants}
    divided = [i for i, name in enumerate(names) if name not in undivided]
    source = ASTSource(
        kernel,
        {name: types.get(name, "i32") for name in names},
        {(names.index(name),): x for name, x in constants.items()},
        {(index,): [["tt.divisibility", 16]] for index in divided},
    )
    return compile(source, GPUTarget("cuda", capability, 32), options)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize(("capability", "half"), [(90, True), (80, False)])
def test_kernels_compile_without_a_gpu(capability, half, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    forward = tensor_cores.FORWARD[half] | {"N_WINDOWS": 2, "KEEP_MASK": True}
    backward = tensor_cores.BACKWARD[half] | {"N_WINDOWS": 2}
    for kernel in (
        compiled_for(capability, tensor_cores._forward_kernel, half, **forward),
        compiled_for(capability, tensor_cores._backward_kernel, half, **backward),
    ):
        assert kernel.metadata.shared <= 99 * 1024  # of every GPU since Ampere
        assert ("wgmma" if capability == 90 else "mma.sync") in kernel.asm["ptx"]
        assert "0x10" in kernel.asm["ptx"].split("cp.async.cg", 1)[1].split(";")[0]


def test_it_is_imported_where_triton_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(op, "filter_and_pool_operator", Mock())
    assert runpy.run_path(tensor_cores.__file__)["AVAILABLE"] is False


@on_a_gpu
@each_half
@pytest.mark.parametrize(
    ("n_samples", "kernel_size", "n_frames", "padding"),
    [
        (48000, 251, 1024, 125),
        (48000, 1001, 1024, 0),
        (47999, 251, 7, 125),
        (300, 251, 1024, 125),
    ],
)
def test_on_a_gpu_it_is_the_definition(n_samples, kernel_size, n_frames, padding, half):
    sizes = (8, n_samples, 160, kernel_size)
    # One activation in a million is so near to 0 that rounding decides its sign.
    tolerances = (5e-4 if half else 2e-6, 2e-3, 2e-3)
    check(sizes, n_frames, padding, half, tolerances, "cuda")


@on_a_gpu
@each_half
def test_on_a_gpu_it_repeats_itself_to_the_bit(half):
    call = (filter_and_pool, inputs(8, 48000, 160, 1001, "cuda"), 1024, 500)
    first, second = (maps_and_gradients(*call, half=half) for _ in range(2))
    assert all(map(torch.equal, first, second))


@on_a_gpu
def test_on_a_gpu_the_operators_keep_the_rules_of_pytorch():
    check_operators(*inputs(2, 4800, 20, 251, "cuda"), 100, 125, True)
