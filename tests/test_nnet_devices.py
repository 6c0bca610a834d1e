"""Devices that lack what the network needs: PyTorch's meta plays MPS. Precisions."""

import platform
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from speechbrain.utils import distributed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ms_sincresnet import MSSincResNet, SincNet
from ms_sincresnet.nnet import devices

from .small_models import SMALL


class LikeMPS(TorchDispatchMode):
    """Refuses on meta what MPS lacks; copies from there to the CPU are noise."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].is_meta:
            dtype = kwargs.get("dtype") or args[0].dtype
            if kwargs.get("device", args[0].device).type == "cpu":
                return torch.randn(args[0].shape).to(dtype)
        found = func(*args, **kwargs)
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor) and value.is_meta:
                assert value.dtype not in (torch.float64, torch.complex128), func
                assert "adaptive" not in str(func)
        return found


@pytest.mark.parametrize(
    ("fastest", "expected"), [("mps", "cpu"), ("mps:0", "cpu"), ("cuda:1", "cuda:1")]
)
def test_the_default_device_is_not_a_limited_one(fastest, expected, monkeypatch):
    monkeypatch.setattr(distributed, "infer_device", lambda: fastest)
    assert devices.default_device() == expected


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("model_class", "options"),
    [
        *((each, {}) for each in SMALL),
        (MSSincResNet, {"parametrization": "relative", "padding": "valid"}),
        (MSSincResNet, {"backend": "reference"}),
    ],
)
def test_a_step_does_on_the_cpu_what_the_device_lacks(
    model_class, options, training, monkeypatch
):
    monkeypatch.setattr(devices, "LIMITED", {"meta"})
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    model = model_class(**SMALL[model_class] | options).train(training)
    wavs = torch.empty(2, 4800, device="meta")
    with LikeMPS():
        log_posteriors = model.to("meta")(wavs)
        log_posteriors.sum().backward()
        if model_class is MSSincResNet and not training:
            assert model.frontend.clip_maps(wavs[0], 1600, 800).is_meta
    assert log_posteriors.is_meta
    for name, parameter in model.named_parameters():
        assert parameter.grad.device == parameter.device, name
    learned = next(model.frontend.parameters(), None)
    assert learned is None or learned.is_meta == (model_class is SincNet)


FAULTS = """
import resource, torch
from ms_sincresnet.nnet.devices import keep_freed_memory
{call}
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept():
    def page_faults(call):
        command = [sys.executable, "-c", FAULTS.format(call=call)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert page_faults("keep_freed_memory()") < page_faults("")


AVX = {"avx2": True, "avx512_f": True, "avx512_bf16": False}


@pytest.mark.parametrize(
    ("device", "capabilities", "system", "machine", "expected"),
    [
        ("cpu", {"avx512_bf16": True}, "linux", "x86_64", "bf16"),
        ("cpu", AVX, "linux", "x86_64", "winograd"),
        ("cpu", AVX, "win32", "AMD64", "fp32"),
        ("mps", {"bf16": True}, "darwin", "arm64", "fp32"),
    ],
)
def test_precision_is_the_fastest(
    monkeypatch, device, capabilities, system, machine, expected
):
    found = SimpleNamespace(get_capabilities=lambda: capabilities)
    monkeypatch.setattr(torch, "cpu", found)
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert devices.fastest_precision(device) == expected
