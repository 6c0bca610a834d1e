"""The precision that is fastest on a device."""

import platform
import sys

import torch
from speechbrain.utils.distributed import infer_device

NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # of PyTorch's capabilities


def fastest_precision(device: str | None = None) -> str:
    """ "bf16" where a device (None: the default one) has it natively.

    Elsewhere PyTorch emulates it, several times slower than "fp32". "winograd" is
    faster, but was measured on Linux for x86 alone.
    """
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
