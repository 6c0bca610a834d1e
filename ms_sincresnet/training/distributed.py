"""Which of the processes of ``torchrun`` this is."""

from torch import distributed


def rank_and_processes():
    """The number of this process, and how many there are.

    Returns
    -------
    rank : int
        From 0; 0 is the main process.
    n_processes : int
        1 unless a process group was made, as ``ddp_init_group`` does.

    Example
    -------
    >>> rank_and_processes()
    (0, 1)
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
