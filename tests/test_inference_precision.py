"""The choice of the fastest precision."""

from types import SimpleNamespace

import pytest
import torch

from ms_sincresnet.inference.precision import fastest_precision

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
    assert fastest_precision(device) == expected
