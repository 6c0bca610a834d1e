"""Devices: their limits, memory and fastest precision."""

import ctypes
import platform
import sys
from contextlib import suppress

import torch
from torch import Tensor

# MPS has neither float64 nor averages of unequal blocks, such as five rows in halves.
LIMITED = {"mps"}
NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # of PyTorch's capabilities


def capable(values: Tensor) -> Tensor:
    """Values on their device, or on the CPU if their device is limited."""
    return values.cpu() if values.device.type in LIMITED else values


def default_device() -> str:
    """The fastest device, unless it is limited."""
    from speechbrain.utils.distributed import infer_device  # takes seconds to load

    device = infer_device()
    return "cpu" if device.partition(":")[0] in LIMITED else device


def keep_freed_memory() -> None:
    """Lets this process keep freed memory, up to 1 GB, if its C library is glibc.

    By default the memory of large activations is fetched anew from the system each
    time, which takes up to a tenth of the ResNet's time.
    """
    with suppress(AttributeError, OSError, TypeError):  # of other systems
        mallopt = ctypes.CDLL(None).mallopt
        # M_MMAP_THRESHOLD, which old versions refuse; then M_TRIM_THRESHOLD.
        if mallopt(-3, 2**30):
            mallopt(-1, 2**30)


def fastest_precision(device: str | None = None) -> str:
    """ "bf16" where a device (None: the default one) has it natively.

    Elsewhere PyTorch emulates it, several times slower than "fp32". "winograd" is
    faster, but was measured on Linux for x86 alone.
    """
    from speechbrain.utils.distributed import infer_device

    device = device or infer_device()
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Before PyTorch 2.14 there is no such function.
        capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
        native = device == "cpu" and any(map(capabilities.get, NATIVE))
        here = sys.platform, platform.machine(), device
        if not native and here == ("linux", "x86_64", "cpu"):
            return "winograd"
    return "bf16" if native else "fp32"
