"""Validation parts: a share of a training part, drawn by class and in whole groups."""

import numpy as np

from ms_sincresnet.errors import HparamError


def draw_valid(labels, valid_fraction, seed, groups=None):
    """Draws the items of a training part that validate instead of training.

    Each class gives the same share, rounded to whole items. Halves go to the even
    number, so that they do not add up: a tenth of ISMIR2004's 729 training tracks in
    classes of 320, 115, 26, 45, 101 and 122 are 73.

    Arguments
    ---------
    labels : list or numpy.ndarray [n]
        Class of each item. The result depends on their order: sort the items first.
    valid_fraction : float
        Share of the items, between 0 and 1.
    seed : int
        Seed of the random choice.
    groups : list or numpy.ndarray [n], optional
        Items of equal value here are drawn together or not at all; a class may then
        give less than its share. Without it each item is on its own.

    Returns
    -------
    in_valid : numpy.ndarray [n]
        Whether an item validates.

    Raises
    ------
    HparamError
        If ``valid_fraction`` is out of range, if it leaves a class nothing to validate
        or to train with, or if the groups of a class are too large for it.

    Example
    -------
    >>> draw_valid(["jazz"] * 4 + ["rock"] * 4, 0.25, seed=0).tolist()
    [False, False, True, False, True, False, False, False]
    """
    labels = np.asarray(labels)
    if groups is None:
        groups = np.arange(len(labels))
    groups = np.unique(np.asarray(groups), return_inverse=True)[1]
    wanted = _count_wanted(labels, valid_fraction)
    in_valid = np.zeros(len(labels), dtype=bool)
    for group in np.random.default_rng(seed).permutation(np.unique(groups)):
        members = groups == group
        classes, counts = np.unique(labels[members], return_counts=True)
        if all(wanted[c] >= n for c, n in zip(classes, counts, strict=True)):
            in_valid |= members
            for c, n in zip(classes, counts, strict=True):
                wanted[c] -= n
    for genre in wanted:
        if not in_valid[labels == genre].any():
            raise HparamError(
                f"valid_fraction: the tracks of {str(genre)!r} in the training part "
                f"are too much alike to validate with {valid_fraction} of them: "
                "identical tracks stay together. Add tracks of this genre."
            )
    return in_valid


def _count_wanted(labels, fraction):
    """How many items of each class make the fraction; raises where none or all do."""
    if not (isinstance(fraction, (int, float)) and 0 < fraction < 1):
        raise HparamError(
            "valid_fraction: expected a number between 0 and 1, the share of the "
            f"training part that validates, for example 0.1; got {fraction!r}"
        )
    wanted = {}
    for genre, count in zip(*np.unique(labels, return_counts=True), strict=True):
        wanted[genre] = round(fraction * int(count))
        if not 0 < wanted[genre] < count:
            raise HparamError(_share_advice(str(genre), count, fraction, wanted[genre]))
    return wanted


def _share_advice(genre, count, fraction, wanted):
    """The message for a class of which validation would get none, or all."""
    found = (
        f"valid_fraction: {genre!r} has {count} track(s) in the training part, and "
        f"{fraction} of them round to {wanted}: nothing is left to "
        f"{'validate' if wanted == 0 else 'train'} with."
    )
    if count < 2:
        return f"{found} Add tracks of this genre."
    # Rounded up to a number worth typing: one track at the least.
    usable = 1 / count if wanted == 0 else (count - 1) / count
    rounded = np.ceil(usable * 100) / 100 if wanted == 0 else int(usable * 100) / 100
    return (
        f"{found} Set it to {rounded:g} or {'more' if wanted == 0 else 'less'}, "
        "or add tracks of this genre."
    )
