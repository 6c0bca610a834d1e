"""Devices that lack what the network needs."""

from torch import Tensor

# MPS has neither float64 nor averages of unequal blocks, such as five rows in halves.
LIMITED = {"mps"}


def capable(values: Tensor) -> Tensor:
    """Values on their device, or on the CPU if their device is limited."""
    return values.cpu() if values.device.type in LIMITED else values


def default_device() -> str:
    """The fastest device, unless it is limited."""
    from speechbrain.utils.distributed import infer_device

    device = infer_device()
    return "cpu" if device.partition(":")[0] in LIMITED else device
