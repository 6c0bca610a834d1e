"""Stratified folds and validation parts that keep identical tracks together."""

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ms_sincresnet.data.validation import draw_valid
from ms_sincresnet.errors import HparamError


def stratified_folds(labels, n_folds, seed, groups=None):
    """Deals items into folds that hold as many of each class as the others.

    Arguments
    ---------
    labels : list or numpy.ndarray [n]
        Class of each item. The result depends on their order: sort the items first.
    n_folds : int
        Folds, from 2 up to the size of the smallest class.
    seed : int
        Seed of the random choice.
    groups : list or numpy.ndarray [n], optional
        Items of equal value here share a fold. Without it each item is on its own.

    Returns
    -------
    folds : numpy.ndarray [n]
        Fold of each item, from 0 to ``n_folds - 1``.

    Raises
    ------
    HparamError
        If ``n_folds`` is below 2 or above the number of groups of a class.

    Example
    -------
    >>> stratified_folds(["jazz"] * 4 + ["rock"] * 4, n_folds=4, seed=0).tolist()
    [3, 2, 1, 0, 2, 1, 0, 3]
    """
    labels, groups = np.asarray(labels), _as_groups(groups, len(labels))
    _check_whole("n_folds", n_folds, least=2)
    for genre in np.unique(labels):
        count = len(np.unique(groups[labels == genre]))
        if count < n_folds:
            raise HparamError(
                f"n_folds: {str(genre)!r} has {count} different track(s), too few to "
                f"put one into each of {n_folds} folds. Lower n_folds, or add tracks "
                "of this genre."
            )
    # Shuffled here, as scikit-learn 1.9 would: the shuffle of 1.7, the last for Python
    # 3.10, deals groups without regard to their classes.
    order = np.random.RandomState(seed).permutation(groups.max() + 1)
    shuffled = np.argsort(order)[groups]
    folds = np.empty(len(labels), dtype=int)
    splitter = StratifiedGroupKFold(n_folds)
    for fold, (_, indices) in enumerate(splitter.split(labels, labels, shuffled)):
        folds[indices] = fold
    return folds


def split_fold(labels, fold, n_folds, valid_fraction, seed, groups=None):
    """Names the part that each item plays when one fold is tested.

    The test part is the fold. The validation part is drawn from the rest alone, as
    large a share of each class as of any other, and the test part has no say in it.

    Arguments
    ---------
    labels : list or numpy.ndarray [n]
        Class of each item. The result depends on their order: sort the items first.
    fold : int
        The fold to test, from 0 to ``n_folds - 1``.
    n_folds : int
        Folds, from 2 up to the size of the smallest class.
    valid_fraction : float
        Share of the training part that goes to validation, between 0 and 1. Rounded
        to whole tracks of each class.
    seed : int
        Seed of the folds and of the validation part.
    groups : list or numpy.ndarray [n], optional
        Items of equal value here play the same part.

    Returns
    -------
    parts : numpy.ndarray [n]
        "train", "valid" or "test".

    Raises
    ------
    HparamError
        If an argument is out of range, or if a class has too few items for it.

    Example
    -------
    >>> split_fold(["jazz"] * 4, 0, n_folds=4, valid_fraction=0.3, seed=0).tolist()
    ['train', 'train', 'test', 'valid']
    """
    labels, groups = np.asarray(labels), _as_groups(groups, len(labels))
    _check_whole("n_folds", n_folds, least=2)
    _check_whole("fold", fold, least=0, most=n_folds - 1)
    folds = stratified_folds(labels, n_folds, seed, groups)
    rest = np.flatnonzero(folds != fold)
    in_valid = draw_valid(labels[rest], valid_fraction, seed, groups[rest])
    parts = np.where(folds == fold, "test", "train")
    parts[rest[in_valid]] = "valid"
    return parts


def _as_groups(groups, n_items):
    """Groups as an array of whole numbers; each item its own group without any."""
    if groups is None:
        return np.arange(n_items)
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _check_whole(name, value, least, most=None):
    """Raises unless a value is a whole number in its range."""
    whole = isinstance(value, (int, np.integer))
    if not whole or value < least or (most is not None and value > most):
        bounds = f"from {least} to {most}" if most is not None else f"from {least} up"
        raise HparamError(f"{name}: expected a whole number {bounds}, got {value!r}")
