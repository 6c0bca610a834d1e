"""Folds and validation parts: balance, identical tracks, and options out of range."""

import numpy as np
import pytest

import ms_sincresnet.data.folds as folds_module
from ms_sincresnet.data.folds import draw_valid, split_fold, stratified_folds
from ms_sincresnet.errors import HparamError

GENRES = [f"genre{n}" for n in range(10)]
GTZAN_LABELS = np.repeat(GENRES, 100)
ISMIR_COUNTS = [320, 115, 26, 45, 101, 122]
ISMIR_LABELS = np.repeat(["a", "b", "c", "d", "e", "f"], ISMIR_COUNTS)


@pytest.fixture(scope="module")
def groups():
    """GTZAN's 14 pairs of identical tracks, one of them across genres."""
    groups = np.array([f"track{n}" for n in range(1000)])
    for pair in range(13):
        groups[50 * pair + 7] = groups[50 * pair]
    groups[658] = groups[916]
    return groups


def count_table(labels, parts):
    """Number of tracks of each genre (row) in each part (column)."""
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


def test_uneven_genres_are_spread_evenly():
    labels = np.repeat(["a", "b", "c"], [26, 45, 320])
    table = count_table(labels, stratified_folds(labels, n_folds=10, seed=0))
    assert (np.ptp(table, axis=1) <= 1).all()


def test_folds_are_random_but_for_the_seed():
    folds, again, other = (
        stratified_folds(GTZAN_LABELS[:300], 10, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(folds, again)
    assert 240 < np.sum(folds != other) < 295  # nine in ten by chance


def test_a_tenth_of_the_training_part_validates():
    parts = split_fold(GTZAN_LABELS, 3, n_folds=10, valid_fraction=0.1, seed=1234)
    assert np.unique(parts).tolist() == ["test", "train", "valid"]
    assert (count_table(GTZAN_LABELS, parts) == [10, 81, 9]).all()


def test_ten_folds_test_every_track_once_and_divide_no_group(groups):
    labels, groups = GTZAN_LABELS[:300], groups[:300]
    tested = np.zeros(300, dtype=int)
    for fold in range(10):
        parts = split_fold(labels, fold, 10, 0.1, seed=5, groups=groups)
        tested += parts == "test"
        assert len(set(zip(groups, parts, strict=True))) == len(set(groups))
        assert (np.abs(count_table(labels, parts)[:, 2] - 9) <= 1).all()
    assert (tested == 1).all()


def test_the_test_part_does_not_influence_the_validation_part(monkeypatch):
    def parts_with(test_labels):
        labels = np.array(["jazz"] * 20 + ["rock"] * 20 + test_labels)
        tested = np.arange(len(labels)) >= 40
        monkeypatch.setattr(folds_module, "stratified_folds", lambda *_: tested * 1)
        return split_fold(labels, 1, n_folds=2, valid_fraction=0.2, seed=3)[:40]

    expected = parts_with(["jazz", "rock"])
    assert np.sum(expected == "valid") == 8
    np.testing.assert_array_equal(parts_with(["metal"] * 30), expected)


@pytest.mark.parametrize("n_folds", [1, 0, -3, 2.5, "10", True])
def test_a_number_of_folds_out_of_range_is_refused(n_folds):
    with pytest.raises(HparamError, match=f"n_folds: .* from 2 up, got {n_folds!r}"):
        split_fold(GTZAN_LABELS, 0, n_folds, 0.1, seed=0)


@pytest.mark.parametrize("fold", [-1, 10, 2.5, "0", None])
def test_a_fold_out_of_range_is_refused(fold):
    with pytest.raises(HparamError, match=f"^fold: .* from 0 to 9, got {fold!r}"):
        split_fold(GTZAN_LABELS, fold, 10, 0.1, seed=0)


@pytest.mark.parametrize(
    ("labels", "n_folds", "groups", "message"),
    [
        (["jazz"] * 9 + ["rock"] * 10, 10, None, "'jazz' has 9 different .* 10 folds"),
        # Identical tracks count once.
        (["jazz"] * 4, 3, [0, 0, 0, 1], "'jazz' has 2 different"),
    ],
)
def test_a_genre_too_small_is_named_with_its_size(labels, n_folds, groups, message):
    with pytest.raises(HparamError, match=message):
        stratified_folds(labels, n_folds, seed=0, groups=groups)
    stratified_folds(labels, n_folds - 1, seed=0, groups=groups)


def test_a_tenth_of_729_tracks_in_six_classes_are_73():
    for seed in range(5):
        in_valid = draw_valid(ISMIR_LABELS, 0.1, seed)
        counts = np.unique(ISMIR_LABELS[in_valid], return_counts=True)[1]
        assert counts.tolist() == [32, 12, 3, 4, 10, 12]


@pytest.mark.parametrize("fraction", [0.02, 0.123, 0.25, 0.3, 0.5, 0.75, 0.99])
def test_each_genre_gives_its_share_to_half_a_track(fraction):
    labels = np.repeat(["jazz", "rock"], [75, 150])
    in_valid = draw_valid(labels, fraction, seed=0)
    for label, count in [("jazz", 75), ("rock", 150)]:
        assert abs(np.sum(in_valid[labels == label]) - fraction * count) <= 0.5


def test_seeds_draw_other_tracks_and_each_the_same_again():
    drawn = [draw_valid(ISMIR_LABELS, 0.1, seed) for seed in (1, 2, 1)]
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    n_drawn = sum(draw_valid(ISMIR_LABELS, 0.1, seed).astype(int) for seed in range(30))
    assert n_drawn.max() < 15  # about three times each


def test_groups_are_drawn_whole_and_the_shares_remain():
    groups = np.arange(729)
    groups[:320:7] = groups[1:320:7]  # pairs
    groups[435:448] = groups[461:474]  # of the third class with one of the fourth
    for seed in range(5):
        in_valid = draw_valid(ISMIR_LABELS, 0.1, seed, groups)
        assert len(set(zip(groups, in_valid, strict=True))) == len(set(groups))
        counts = np.unique(ISMIR_LABELS[in_valid], return_counts=True)[1]
        assert counts.tolist() == [32, 12, 3, 4, 10, 12]


def test_a_genre_of_identical_tracks_cannot_validate():
    with pytest.raises(HparamError, match="'a' .* identical tracks stay together"):
        draw_valid(["a"] * 4 + ["b"] * 4, 0.25, 0, groups=[0] * 4 + [1, 2, 3, 4])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, "0.1", None, True, np.nan])
def test_a_share_out_of_range_is_refused(fraction):
    with pytest.raises(HparamError, match="^valid_fraction: .* between 0 and 1"):
        draw_valid(["a"] * 20, fraction, seed=0)


@pytest.mark.parametrize(("fraction", "usable"), [(0.1, 1 / 4), (0.9, 3 / 4)])
def test_a_share_of_no_track_names_shares_that_work(fraction, usable):
    labels = np.array(["a"] * 4 + ["b"] * 50)
    with pytest.raises(HparamError, match="'a' has 4 .* share from 1/4 to 3/4"):
        draw_valid(labels, fraction, seed=0)
    assert 0 < np.sum(draw_valid(labels, usable, seed=0)[:4]) < 4


def test_a_genre_of_one_track_needs_more():
    with pytest.raises(HparamError, match=r"'a' has 1 track.* 0\. Add tracks"):
        draw_valid(["a"] + ["b"] * 20, 0.5, seed=0)
