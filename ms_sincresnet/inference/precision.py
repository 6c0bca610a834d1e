"""The precision that is fastest on a device."""

import torch
from speechbrain.utils.distributed import infer_device

NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # of PyTorch's capabilities


def fastest_precision(device: str | None = None) -> str:
    """ "bf16" where a device (None: the default one) has it natively, otherwise "fp32".

    Elsewhere PyTorch emulates it, several times slower than fp32.
    """
    device = device or infer_device()
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Before PyTorch 2.14 there is no such function.
        capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
        native = device == "cpu" and any(map(capabilities.get, NATIVE))
    return "bf16" if native else "fp32"
