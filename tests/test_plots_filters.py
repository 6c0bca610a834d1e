"""Filters are drawn as the formulas of cut-offs and of windows say."""

import numpy as np
import pytest
import torch

from ms_sincresnet import MSSincResNet, SincNet
from ms_sincresnet.plots.filters import cutoff_table, plot_filters


def mel_cutoffs(n_filters):
    """SincNet's initial cut-offs at 16 kHz, by the formula of the mel scale."""
    ends = 2595 * np.log10(1 + np.array([30, 7900]) / 700)
    edges_hz = 700 * (10 ** (np.linspace(*ends, n_filters + 1) / 2595) - 1)
    low_hz = edges_hz[:-1] + 50
    return low_hz, np.minimum(low_hz + np.diff(edges_hz) + 50, 8000)


@pytest.mark.parametrize("model", [MSSincResNet(n_filters=8), SincNet(n_filters=8)])
def test_the_table_tells_how_far_cutoffs_moved(model):
    banks = [part for part in model.modules() if hasattr(part, "low_hz_")]
    with torch.no_grad():
        for scale, bank in enumerate(banks):
            bank.low_hz_ += 10 * (scale + 1)
            bank.band_hz_[2] += 25
    table = cutoff_table(model)
    low_hz, high_hz = mel_cutoffs(8)
    assert len(table) == 8 * len(banks)
    for scale, part in table.groupby("scale"):
        assert set(part.kernel_size) == {banks[scale].kernel_size}
        assert part["filter"].tolist() == list(range(8))
        moved_hz = 10 * (scale + 1)
        np.testing.assert_allclose(part.init_low_hz, low_hz, rtol=1e-6)
        np.testing.assert_allclose(part.init_high_hz, high_hz, rtol=1e-6)
        np.testing.assert_allclose(part.low_hz, low_hz + moved_hz, rtol=1e-6)
        moved_high_hz = high_hz + moved_hz + 25 * (np.arange(8) == 2)
        expected = np.minimum(moved_high_hz, 8000)  # half the sample rate
        np.testing.assert_allclose(part.high_hz, expected, rtol=1e-6)


def test_initial_cutoffs_are_those_of_the_models_init():
    table = cutoff_table(MSSincResNet(n_filters=4, init="linear"))
    expected = 80 + 1967.5 * np.arange(4)  # 30 to 7900 Hz in four, and 50 Hz
    np.testing.assert_allclose(table.init_low_hz[:4], expected, rtol=1e-6)


def test_filters_pass_what_lies_between_their_cutoffs():
    model = MSSincResNet(n_filters=8)
    bank = model.frontend.banks[1]
    with torch.no_grad():
        bank.low_hz_[3] += 300
        bank.band_hz_[5] += 200
    figure = plot_filters(model, "a model")
    assert figure.get_suptitle() == "a model"
    responses, shifts = figure.axes[2:4]
    low_hz, high_hz = mel_cutoffs(8)
    low_hz[3] += 300
    high_hz[3] += 300
    high_hz[5] += 200
    (image,) = responses.get_images()
    left, right, bottom, top = image.get_extent()
    values = np.asarray(image.get_array())
    bins_hz = left + (right - left) * (np.arange(values.shape[1]) + 0.5) / len(values.T)
    assert (bottom, top) == (-0.5, 7.5)
    for decibels, low, high in zip(values[:7], low_hz, high_hz, strict=False):
        at = {hz: np.interp(hz, bins_hz, decibels) for hz in (low, high)}
        assert all(-8 < level < -4.5 for level in at.values())  # half, by a window
        middle = (bins_hz > low + 40) & (bins_hz < high - 40)
        assert (decibels[middle] > -2).all()
        assert (decibels[(bins_hz < low - 60) | (bins_hz > high + 60)] < -40).all()
    assert responses.get_xlabel() == shifts.get_xlabel() == ""
    assert figure.axes[4].get_xlabel() == "frequency (Hz)"
    assert figure.axes[5].get_xlabel() == "initial cut-off (Hz)"

    assert shifts.get_ylabel() == "learned less initial cut-off (Hz)"
    assert shifts.get_title().endswith("0.0 Hz in the median, 300.0 Hz at most")
    lower, upper = (line.get_ydata() for line in shifts.lines[:2])
    np.testing.assert_allclose(lower, 300 * (np.arange(8) == 3), atol=1e-3)
    expected = 300 * (np.arange(8) == 3) + 200 * (np.arange(8) == 5)
    np.testing.assert_allclose(upper, expected, atol=1e-3)


def test_a_title_is_no_formula():
    figure = plot_filters(MSSincResNet(n_filters=8), r"my$\b$")
    figure.draw_without_rendering()
    assert figure.get_suptitle() == r"my$\b$"
