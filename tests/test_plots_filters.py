"""Responses and shifts of cut-offs agree with the formulas."""

import numpy as np
import torch

from ms_sincresnet import MSSincResNet
from ms_sincresnet.cli.plot import cutoff_table
from ms_sincresnet.plots.filters import plot_filters


def draw(model, title=""):
    """The figure of a model's filters."""
    taps = [bank.filters().detach().numpy() for bank in model.frontend.banks]
    return plot_filters(cutoff_table(model), taps, 16000, title)


def test_filters_pass_the_band_between_their_cutoffs():
    model = MSSincResNet(n_filters=8)
    bank = model.frontend.banks[1]
    low_hz, high_hz = (hz.detach().numpy().copy() for hz in bank.cutoffs())
    with torch.no_grad():
        bank.low_hz_[3] += 300
        bank.band_hz_[5] += 200
    figure = draw(model, r"my$\b$")  # no formula
    figure.draw_without_rendering()
    assert figure.get_suptitle() == r"my$\b$"
    responses, shifts = figure.axes[2:4]
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
    assert shifts.get_ylabel() == "learned minus initial cut-off (Hz)"
    assert shifts.get_title().endswith("median 0.0 Hz, largest 300.0 Hz")
    lower, upper = (line.get_ydata() for line in shifts.lines[:2])
    np.testing.assert_allclose(lower, 300 * (np.arange(8) == 3), atol=1e-3)
    expected = 300 * (np.arange(8) == 3) + 200 * (np.arange(8) == 5)
    np.testing.assert_allclose(upper, expected, atol=1e-3)
