"""The kernels for NVIDIA GPUs: in Triton's interpreter, compiled, and on a GPU.

Triton interprets its kernels, on the CPU, if TRITON_INTERPRET is set before it is
imported. So ``test_in_tritons_interpreter`` runs this file in a second pytest.
"""

import os
import runpy
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch

from ms_sincresnet.nnet.backends import op, tensor_cores
from ms_sincresnet.nnet.backends.tensor_cores import filter_and_pool

from . import backends
from .backends import maps_and_gradients, white_noise

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
OPERATORS = torch.ops.ms_sincresnet
needs_triton = pytest.mark.skipif(not tensor_cores.AVAILABLE, reason="needs Triton")
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="the first pytest runs it")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
where_kernels_run = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()), reason="needs a GPU"
)
each_half = pytest.mark.parametrize("half", [False, True])


def inputs(batch, n_samples, n_filters, kernel_size):
    wavs = white_noise(batch, n_samples)
    filters = white_noise(n_filters, kernel_size, seed=1) / kernel_size**0.5
    offsets = 0.3 * white_noise(n_filters, seed=2)
    return [tensor.to(DEVICE) for tensor in (wavs, filters, offsets)]


INTERPRETED_SIZES = [
    # 46 or 47 samples per frame, two tiles of filters
    (1, 939, 17, 25, 20, 12, False),
    (1, 2048, 2, 25, 43, 12, True),  # exactly two tiles of octets
    (1, 2100, 2, 25, 2, 12, True),  # a frame takes several tiles
    (2, 130, 16, 121, 9, 0, True),  # a frame is hardly longer than a sample
    (1, 40, 1, 9, 100, 4, False),  # and shorter
    (3, 3, 2, 9, 3, 4, True),
]
GPU_SIZES = [
    (8, 48000, 160, 1001, 1024, 0, False),
    (8, 48000, 160, 251, 1024, 125, True),
    (8, 47999, 160, 251, 7, 125, True),
    (8, 300, 160, 251, 1024, 125, False),
]


@where_kernels_run
@pytest.mark.parametrize(
    ("batch", "n_samples", "n_filters", "kernel_size", "n_frames", "padding", "half"),
    INTERPRETED_SIZES if INTERPRETED else GPU_SIZES,
)
def test_kernels_are_the_definition(
    batch, n_samples, n_filters, kernel_size, n_frames, padding, half
):
    factors = inputs(batch, n_samples, n_filters, kernel_size)
    found = maps_and_gradients(filter_and_pool, factors, n_frames, padding, half=half)
    if half:
        factors[:2] = (factor.half() for factor in factors[:2])
    call = (backends.filter_and_pool, [x.double() for x in factors], n_frames, padding)
    expected = maps_and_gradients(*call)
    tolerances = (5e-4, 5e-4, 1e-6) if half else (5e-7, 5e-7, 5e-7)
    if not INTERPRETED:
        # One activation in a million is so near to 0 that rounding decides its sign.
        tolerances = (5e-4 if half else 2e-6, 2e-3, 2e-3)
    for x, y, tolerance in zip(found, expected, tolerances, strict=True):
        assert x.dtype == torch.float32
        assert x.shape == y.shape
        assert (x - y).norm() < tolerance * y.norm()


@on_a_gpu
@each_half
def test_on_a_gpu_it_repeats_itself_to_the_bit(half):
    call = (filter_and_pool, inputs(8, 48000, 160, 1001), 1024, 500)
    first, second = (maps_and_gradients(*call, half=half) for _ in range(2))
    assert all(map(torch.equal, first, second))


@where_kernels_run
def test_gradients_neither_vanish_nor_overflow():
    call = (filter_and_pool, inputs(1, 100, 3, 7), 8, 3)
    _, *expected = maps_and_gradients(*call, half=True)
    for scale in (1e-12, 1e12, 0.0):
        _, *found = maps_and_gradients(*call, half=True, scale=scale)
        for x, y in zip(found, expected, strict=True):
            assert (x - scale * y).norm() <= 5e-4 * scale * y.norm()


@where_kernels_run
def test_kernels_propagate_nan():
    wavs, filters, offsets = inputs(2, 100, 3, 7)
    wavs[1, 50] = torch.nan
    maps = filter_and_pool(wavs, filters, offsets, 8, half=False)
    assert maps.isnan().any(2).any(1).tolist() == [False, True]
    call = (filter_and_pool, inputs(1, 100, 3, 7), 8)
    _, *found = maps_and_gradients(*call, half=False, scale=torch.nan)
    assert all(x.isnan().all() for x in found)


@where_kernels_run
def test_the_operators_keep_the_rules_of_pytorch():
    wavs, filters, offsets = inputs(1, 60, 2, 7)
    arguments = (wavs, filters.requires_grad_(), offsets, 9, 3, not INTERPRETED, True)
    # All backends are compiled alike.
    rules = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATORS.filter_and_pool, arguments, test_utils=rules)
    maps, masks = OPERATORS.filter_and_pool(*arguments)
    arguments = (maps.detach(), wavs, masks, 7, 3, not INTERPRETED)
    backward = OPERATORS.filter_and_pool_backward
    torch.library.opcheck(backward, arguments, test_utils=rules)


@needs_triton
@not_interpreted
def test_in_tritons_interpreter():
    options = ["-q", "--noconftest", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, *options],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted" in run.stdout:
        pytest.skip("the interpreter of this Triton is older than this NumPy")
    assert run.returncode == 0, run.stdout


def compiled_for(capability, kernel, half, **sizes):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    constants = {name: x for name, x in sizes.items() if name.isupper()}
    options = {name: x for name, x in sizes.items() if name not in constants}
    names, floats = kernel.arg_names, "*fp16" if half else "*fp32"
    pointers = names[: names.index("mask_bytes")]
    types = dict.fromkeys(pointers, "*fp32") | dict.fromkeys(constants, "constexpr")
    types |= {"wavs": floats, "taps": floats, "mask": "*u8", "windows": "*i32"}
    signature = {name: types.get(name, "i32") for name in names}
    values = {(names.index(name),): x for name, x in constants.items()}
    source = ASTSource(kernel, signature, values)
    return compile(source, GPUTarget("cuda", capability, 32), options)


@needs_triton
@not_interpreted
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


def test_it_is_imported_where_triton_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(op, "filter_and_pool_operator", Mock())
    assert runpy.run_path(tensor_cores.__file__)["AVAILABLE"] is False
