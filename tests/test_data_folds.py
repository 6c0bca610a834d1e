"""Folds and validation parts: balance, identical tracks, and options out of range."""

import numpy as np
import pandas as pd
import pytest

from ms_sincresnet.data.folds import draw_valid, split_fold, stratified_folds
from ms_sincresnet.errors import HparamError

LABELS = np.repeat(["a", "b", "c"], 50)


# Pairs of identical tracks, one of them across genres.
GROUPS = np.array([f"track{n}" for n in range(150)])
GROUPS[[7, 57, 107, 120]] = GROUPS[[0, 50, 100, 40]]
RENAMED = np.array([name[::-1] for name in GROUPS])


def test_ten_folds_test_every_track_once_and_divide_no_group():
    tested = np.zeros(150, dtype=int)
    for fold in range(10):
        parts = split_fold(LABELS, fold, 10, 0.1, seed=5, groups=GROUPS)
        tested += parts == "test"
        # Names of groups are hashes of decoded audio, which differ between decoders.
        renamed = split_fold(LABELS, fold, 10, 0.1, seed=5, groups=RENAMED)
        assert parts.tolist() == renamed.tolist()
        assert len({*zip(GROUPS, parts, strict=True)}) == len({*GROUPS})
        table = pd.crosstab(LABELS, parts).to_numpy()  # test, train, valid
        assert (np.abs(table - [5, 40.5, 4.5]) <= [1, 1.5, 0.5]).all()
    assert (tested == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_folds": 1}, "n_folds: .* from 2 up, got 1"),
        ({"fold": 10}, "fold: .* from 0 to 9, got 10"),
        ({"valid_fraction": 1}, "valid_fraction: .* between 0 and 1"),
        ({"valid_fraction": 0.01}, "9 track.* of 'a' .* Choose another share"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    options = {"fold": 0, "n_folds": 10, "valid_fraction": 0.1, **options}
    with pytest.raises(HparamError, match=message):
        split_fold(LABELS[::5], seed=0, **options)


def test_a_genre_too_small_is_named_with_its_size():
    labels = ["jazz"] * 9 + ["rock"] * 10
    with pytest.raises(HparamError, match="'jazz' has 9 different .* 10 folds"):
        stratified_folds(labels, 10, seed=0)
    stratified_folds(labels, 9, seed=0)
    with pytest.raises(HparamError, match="'jazz' has 2 different"):  # twins count once
        stratified_folds(["jazz"] * 4, 3, seed=0, groups=[0, 0, 0, 1])
    with pytest.raises(HparamError, match="'a' .* identical tracks stay together"):
        draw_valid(["a"] * 4 + ["b"] * 4, 0.25, 0, groups=[0] * 4 + [1, 2, 3, 4])
