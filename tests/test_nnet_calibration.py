"""Temperatures of songs whose temperature is known, and errors counted by hand."""

import numpy as np
import pytest
import torch

from ms_sincresnet.nnet.calibration import calibration_error, fit_temperature
from ms_sincresnet.plots.calibration import plot_reliability


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_the_temperature_of_drawn_songs_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(20_000, 5, generator=generator)
    labels = scores.softmax(1).multinomial(1, generator=generator)[:, 0]
    sure = (temperature * scores).log_softmax(1)
    found = fit_temperature(sure.numpy(), labels.numpy())
    assert type(found) is float and found == pytest.approx(temperature, rel=0.03)


def test_few_songs_that_are_all_right_do_not_make_a_model_certain():
    songs = torch.tensor([[0.7, 0.2, 0.1]] * 1000).log()
    few, many = (fit_temperature(songs[:n], torch.zeros(n)) for n in (10, 1000))
    assert 0.25 < few < 0.9 and many < few  # the prior matters less


def test_impossible_genres_do_not_prevent_a_fit():
    songs = torch.tensor([[0.99, 0.01]] * 99 + [[1.0, 0.0]]).log()
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert 2 < fit_temperature(songs, labels) < 5
    with pytest.raises(ValueError, match="no song"):
        fit_temperature(songs[:0], [])


def test_errors_are_weighted_by_the_songs_of_a_bin():
    confidence = [0.95, 0.95, 0.95, 0.95, 0.15, 1.0]
    right = [True, True, True, True, False, False]
    by_hand = (abs(4 - 4.8) + 0.15) / 6  # 1.0 belongs to the last bin
    assert calibration_error(confidence, right) == pytest.approx(by_hand)


def test_the_diagram_shows_shares_and_counts():
    confidence = np.repeat([0.25, 0.85, 0.95], [4, 2, 10])
    right = np.array([True, False, False, False, True, False, *[True] * 10])
    curve, counts = plot_reliability(confidence, right, "a $title$").axes
    drawn = curve.lines[-1].get_xydata()
    np.testing.assert_allclose(drawn, [[0.25, 0.25], [0.85, 0.5], [0.95, 1]])
    heights = [[bar.get_height() for bar in bars] for bars in counts.containers]
    assert np.sum(heights, 0).tolist() == [0, 0, 4, 0, 0, 0, 0, 0, 2, 10]
    assert np.sum(heights, 1).tolist() == [12, 4]
