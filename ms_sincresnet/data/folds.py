"""Stratified folds and validation parts that keep identical tracks together."""

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedGroupKFold

from ms_sincresnet.errors import HparamError


def split_fold(
    labels: ArrayLike,
    fold: int,
    n_folds: int,
    valid_fraction: float,
    seed: int,
    groups: ArrayLike | None = None,
) -> np.ndarray:
    """Part of each track when one fold is tested.

    Arguments
    ---------
    labels
        Genre of each track. The result depends on their order: sort the tracks first.
    fold, n_folds
        The fold to test, from 0, of 2 folds up to the size of the smallest genre.
    valid_fraction
        Share of the training part that goes to validation, between 0 and 1.
    seed
        Seed of the folds and of the validation part.
    groups
        Tracks of equal value go to the same part. By default each is a group.

    Returns
    -------
    "train", "valid" or "test" for each track.

    Example
    -------
    >>> split_fold(["jazz"] * 4, 0, n_folds=4, valid_fraction=0.3, seed=0).tolist()
    ['train', 'train', 'test', 'valid']
    """
    genres = np.asarray(labels)
    groups = np.arange(len(genres)) if groups is None else np.asarray(groups)
    if not isinstance(n_folds, int) or n_folds < 2:
        raise HparamError(f"n_folds: expected an integer from 2 up, got {n_folds!r}")
    if fold not in range(n_folds):
        raise HparamError(
            f"fold: expected an integer from 0 to {n_folds - 1}, got {fold!r}"
        )
    folds = stratified_folds(genres, n_folds, seed, groups)
    rest = np.flatnonzero(folds != fold)
    in_valid = draw_valid(genres[rest], valid_fraction, seed, groups[rest])
    parts = np.where(folds == fold, "test", "train")
    parts[rest[in_valid]] = "valid"
    return parts


def stratified_folds(
    labels: ArrayLike, n_folds: int, seed: int, groups: ArrayLike | None = None
) -> np.ndarray:
    """Fold of each track; every fold has its share of each genre."""
    genres = np.asarray(labels)
    group_of = _numbered(groups, len(genres))
    for genre, count in pd.Series(group_of).groupby(genres).nunique().items():
        if count < n_folds:
            raise HparamError(
                f"n_folds: {genre!r} has {count} different track(s), too few for "
                f"{n_folds} folds. Lower n_folds, or add tracks of this genre."
            )
    # Shuffled here, as scikit-learn 1.9 would: the shuffle of 1.7, the last for Python
    # 3.10, deals groups without regard to their classes.
    order = np.random.RandomState(seed).permutation(group_of.max() + 1)
    shuffled = np.argsort(order)[group_of]
    folds = np.empty(len(genres), dtype=int)
    splitter = StratifiedGroupKFold(n_folds)
    for fold, (_, indices) in enumerate(splitter.split(genres, genres, shuffled)):
        folds[indices] = fold
    return folds


def draw_valid(
    labels: ArrayLike, valid_fraction: float, seed: int, groups: ArrayLike | None = None
) -> np.ndarray:
    """Mask of the tracks of a training part that validate, a share of each genre.

    Arguments
    ---------
    labels, valid_fraction, seed, groups
        As in ``split_fold``.

    Returns
    -------
    True for the tracks that validate.

    Example
    -------
    >>> draw_valid(["jazz"] * 4 + ["rock"] * 4, 0.25, seed=0).tolist()
    [False, False, True, False, True, False, False, False]
    """
    genres = np.asarray(labels)
    group_of = _numbered(groups, len(genres))
    if not (isinstance(valid_fraction, (int, float)) and 0 < valid_fraction < 1):
        raise HparamError(
            f"valid_fraction: expected a number between 0 and 1, got {valid_fraction!r}"
        )
    wanted: Counter[str] = Counter()
    for genre, count in sorted(Counter(genres.tolist()).items()):
        wanted[genre] = round(valid_fraction * count)
        if not 0 < wanted[genre] < count:
            raise HparamError(
                f"valid_fraction: {valid_fraction} of the {count} track(s) of "
                f"{genre!r} in the training part round to {wanted[genre]}. Choose "
                "another share, or add tracks of this genre."
            )
    in_valid = np.zeros(len(genres), dtype=bool)
    for group in np.random.default_rng(seed).permutation(group_of.max() + 1):
        members = group_of == group
        counts = Counter(genres[members].tolist())
        if counts <= wanted:
            in_valid |= members
            wanted -= counts
    for genre in sorted({*genres.tolist()} - {*genres[in_valid].tolist()}):
        raise HparamError(
            f"valid_fraction: too many tracks of {genre!r} are identical, and "
            "identical tracks stay together. Add tracks of this genre."
        )
    return in_valid


def _numbered(groups: ArrayLike | None, n_tracks: int) -> np.ndarray:
    """Groups as numbers from 0, in order of appearance; by default each is a track.

    Their names are hashes of decoded audio, which differ from one decoder to the next.
    """
    return (
        np.arange(n_tracks) if groups is None else pd.factorize(np.asarray(groups))[0]
    )
