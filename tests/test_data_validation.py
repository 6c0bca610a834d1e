"""Validation parts: sizes, strata, groups, and what cannot be drawn."""

import numpy as np
import pytest

from ms_sincresnet.data.validation import draw_valid
from ms_sincresnet.errors import HparamError

GENRES = np.repeat(["a", "b", "c", "d", "e", "f"], [320, 115, 26, 45, 101, 122])


def test_a_tenth_of_729_tracks_in_six_classes_are_73():
    for seed in range(5):
        in_valid = draw_valid(GENRES, 0.1, seed)
        counts = np.unique(GENRES[in_valid], return_counts=True)[1]
        assert counts.tolist() == [32, 12, 3, 4, 10, 12]


@pytest.mark.parametrize("fraction", [0.02, 0.123, 0.25, 0.5, 0.75, 0.99])
def test_each_class_gives_its_share_to_half_an_item(fraction):
    labels = np.repeat(["jazz", "rock"], [75, 150])
    in_valid = draw_valid(labels, fraction, seed=0)
    for label, count in [("jazz", 75), ("rock", 150)]:
        assert abs(np.sum(in_valid[labels == label]) - fraction * count) <= 0.5


def test_seeds_draw_other_items_and_each_the_same_again():
    drawn = [draw_valid(GENRES, 0.1, seed) for seed in (1, 2, 1)]
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    n_drawn = sum(draw_valid(GENRES, 0.1, seed).astype(int) for seed in range(100))
    assert n_drawn.max() < 30  # each is drawn ten times or so of a hundred


def test_groups_are_drawn_whole_and_leave_the_shares_as_they_are():
    groups = np.arange(729)
    groups[:320:7] = groups[1:320:7]  # pairs
    groups[435:448] = groups[461:474]  # of the third class with one of the fourth
    for seed in range(5):
        in_valid = draw_valid(GENRES, 0.1, seed, groups)
        assert len(set(zip(groups, in_valid, strict=True))) == len(set(groups))
        counts = np.unique(GENRES[in_valid], return_counts=True)[1]
        assert counts.tolist() == [32, 12, 3, 4, 10, 12]


def test_a_class_of_identical_items_cannot_validate():
    with pytest.raises(HparamError, match="'a' .* identical tracks stay together"):
        draw_valid(["a"] * 4 + ["b"] * 4, 0.25, 0, groups=[0] * 4 + [1, 2, 3, 4])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, "0.1", None, True, np.nan])
def test_a_share_out_of_range_is_refused(fraction):
    with pytest.raises(HparamError, match="^valid_fraction: .* between 0 and 1"):
        draw_valid(["a"] * 20, fraction, seed=0)


@pytest.mark.parametrize(
    ("fraction", "told", "usable"),
    [(0.1, "0.25 or more", 0.25), (0.9, "0.75 or less", 0.75)],
)
def test_a_share_of_no_item_names_one_that_works(fraction, told, usable):
    labels = np.array(["a"] * 4 + ["b"] * 50)
    with pytest.raises(HparamError, match=f"'a' has 4 .* {told}"):
        draw_valid(labels, fraction, seed=0)
    assert 0 < np.sum(draw_valid(labels, usable, seed=0)[:4]) < 4


def test_a_class_of_one_item_is_told_to_grow():
    with pytest.raises(HparamError, match="'a' has 1 track.* Add tracks"):
        draw_valid(["a"] + ["b"] * 20, 0.5, seed=0)
