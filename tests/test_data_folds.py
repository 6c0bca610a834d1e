"""Folds and validation parts: balance, identical tracks, and options out of range."""

import numpy as np
import pytest

import ms_sincresnet.data.folds as folds_module
from ms_sincresnet.data.folds import split_fold, stratified_folds
from ms_sincresnet.errors import HparamError

GENRES = [f"genre{n}" for n in range(10)]
GTZAN_LABELS = np.repeat(GENRES, 100)


@pytest.fixture(scope="module")
def groups():
    """GTZAN's 14 pairs of identical tracks, one of them across genres."""
    groups = np.array([f"track{n}" for n in range(1000)])
    for pair in range(13):
        groups[50 * pair + 7] = groups[50 * pair]
    groups[658] = groups[916]
    return groups


def count_table(labels, parts):
    """Items of each class (row) in each part (column)."""
    return np.array(
        [
            [np.sum((labels == label) & (parts == part)) for part in np.unique(parts)]
            for label in np.unique(labels)
        ]
    )


def test_gtzan_gives_ten_tracks_of_a_genre_to_each_of_ten_folds():
    folds = stratified_folds(GTZAN_LABELS, n_folds=10, seed=1234)
    assert (count_table(GTZAN_LABELS, folds) == 10).all()
    assert sorted(set(folds)) == list(range(10))


def test_identical_tracks_share_a_fold(groups):
    folds = stratified_folds(GTZAN_LABELS, n_folds=10, seed=1234, groups=groups)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    table = count_table(GTZAN_LABELS, folds)
    assert table.min() >= 9
    assert table.max() <= 11


def test_uneven_classes_are_spread_evenly():
    labels = np.repeat(["a", "b", "c"], [26, 45, 320])
    table = count_table(labels, stratified_folds(labels, n_folds=10, seed=0))
    assert (np.ptp(table, axis=1) <= 1).all()


def test_folds_are_random_but_for_the_seed():
    folds = stratified_folds(GTZAN_LABELS, n_folds=10, seed=1)
    again = stratified_folds(GTZAN_LABELS, n_folds=10, seed=1)
    other = stratified_folds(GTZAN_LABELS, n_folds=10, seed=2)
    np.testing.assert_array_equal(folds, again)
    assert 800 < np.sum(folds != other) < 980  # nine in ten by chance


@pytest.mark.parametrize("n_folds", [1, 0, -3, 2.5, "10", True])
def test_a_number_of_folds_out_of_range_is_refused(n_folds):
    with pytest.raises(HparamError, match=f"n_folds: .* from 2 up, got {n_folds!r}"):
        stratified_folds(GTZAN_LABELS, n_folds=n_folds, seed=0)


def test_a_class_too_small_is_named_with_its_size():
    labels = ["jazz"] * 9 + ["rock"] * 10
    with pytest.raises(HparamError, match=r"'jazz' has 9 different .* of 10 folds"):
        stratified_folds(labels, n_folds=10, seed=0)
    stratified_folds(labels, n_folds=9, seed=0)


def test_identical_tracks_count_once_for_a_class_too_small():
    with pytest.raises(HparamError, match="'jazz' has 2 different"):
        stratified_folds(["jazz"] * 4, n_folds=3, seed=0, groups=[0, 0, 0, 1])


def test_a_tenth_of_the_training_part_validates():
    parts = split_fold(GTZAN_LABELS, 3, n_folds=10, valid_fraction=0.1, seed=1234)
    assert np.unique(parts).tolist() == ["test", "train", "valid"]
    assert (count_table(GTZAN_LABELS, parts) == [10, 81, 9]).all()


@pytest.mark.parametrize("fraction", [0.02, 0.123, 0.25, 0.3, 0.5, 0.75, 0.99])
def test_any_share_is_kept_to_the_track_in_each_class(fraction):
    labels = np.repeat(["jazz", "rock"], 200)
    parts = split_fold(labels, 0, 4, valid_fraction=fraction, seed=0)
    assert (np.abs(count_table(labels, parts)[:, 2] - 150 * fraction) <= 0.5).all()


def test_ten_folds_test_every_track_once_and_divide_no_group(groups):
    tested = np.zeros(1000, dtype=int)
    for fold in range(10):
        parts = split_fold(GTZAN_LABELS, fold, 10, 0.1, seed=5, groups=groups)
        tested += parts == "test"
        assert len(set(zip(groups, parts, strict=True))) == len(set(groups))
        assert (np.abs(count_table(GTZAN_LABELS, parts)[:, 2] - 9) <= 1).all()
    assert (tested == 1).all()


def test_the_test_part_has_no_say_in_what_validates(monkeypatch):
    def parts_beside(test_labels):
        labels = np.array(["jazz"] * 20 + ["rock"] * 20 + test_labels)
        tested = np.arange(len(labels)) >= 40
        monkeypatch.setattr(folds_module, "stratified_folds", lambda *_: tested * 1)
        return split_fold(labels, 1, n_folds=2, valid_fraction=0.2, seed=3)[:40]

    expected = parts_beside(["jazz", "rock"])
    assert np.sum(expected == "valid") == 8
    np.testing.assert_array_equal(parts_beside(["metal"] * 30), expected)


@pytest.mark.parametrize("fold", [-1, 10, 2.0, "0", None])
def test_a_fold_out_of_range_is_refused(fold):
    with pytest.raises(HparamError, match=f"^fold: .* from 0 to 9, got {fold!r}"):
        split_fold(GTZAN_LABELS, fold, 10, 0.1, seed=0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, "0.1", None, True, np.nan])
def test_a_share_out_of_range_is_refused(fraction):
    with pytest.raises(HparamError, match="valid_fraction: .* between 0 and 1"):
        split_fold(["jazz"] * 20, 0, 10, fraction, seed=0)


@pytest.mark.parametrize(
    ("fraction", "told", "usable"),
    [(0.1, "0.25 or more", 0.25), (0.9, "0.75 or less", 0.75)],
)
def test_a_share_of_no_track_names_one_that_works(fraction, told, usable):
    labels = ["jazz"] * 5 + ["rock"] * 50
    with pytest.raises(HparamError, match=f"'jazz' has 4 .* {told}"):
        split_fold(labels, 0, 5, fraction, seed=0)
    parts = split_fold(labels, 0, 5, usable, seed=0)
    assert 0 < np.sum(parts[:5] == "valid") < 4


def test_a_genre_with_one_track_to_train_with_is_told_to_grow():
    with pytest.raises(HparamError, match="'jazz' has 1 track.* Add tracks"):
        split_fold(["jazz"] * 2 + ["rock"] * 20, 0, 2, 0.5, seed=0)


def test_a_genre_of_identical_tracks_cannot_validate():
    labels, groups = ["jazz"] * 8 + ["rock"] * 8, [0] * 4 + [1] * 4 + list(range(2, 10))
    with pytest.raises(HparamError, match="'jazz' .* identical tracks stay together"):
        split_fold(labels, 0, 2, 0.2, seed=0, groups=groups)
