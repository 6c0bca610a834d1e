"""Rank of this process among those that ``torchrun`` started."""

from torch import distributed


def rank_and_processes() -> tuple[int, int]:
    """Rank of this process, 0 for the main one, and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
