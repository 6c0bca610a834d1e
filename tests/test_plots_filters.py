"""Responses and shifts of cut-offs agree with the formulas."""

import numpy as np
import torch

from ms_sincresnet import MSSincResNet
from ms_sincresnet.cli.plot import cutoff_table
from ms_sincresnet.plots.filters import plot_filters


def test_filters_pass_the_band_between_their_cutoffs():
    model = MSSincResNet(n_filters=8)
    bank = model.frontend.banks[1]
    low_hz, high_hz = (hz.detach().numpy().copy() for hz in bank.cutoffs())
    with torch.no_grad():
        bank.low_hz_[3] += 300
        bank.band_hz_[5] += 200
    taps = [bank.filters().detach().numpy() for bank in model.frontend.banks]
    figure = plot_filters(cutoff_table(model), taps, 16000, r"my$\b$")  # no formula
    figure.draw_without_rendering()
    assert figure.get_suptitle() == r"my$\b$"
    responses, shifts = figure.axes[2:4]
    low_shift_hz = 300 * (np.arange(8) == 3)
    high_shift_hz = low_shift_hz + 200 * (np.arange(8) == 5)
    (image,) = responses.get_images()
    left, right, bottom, top = image.get_extent()
    values = np.asarray(image.get_array())
    bins_hz = left + (right - left) * (np.arange(values.shape[1]) + 0.5) / len(values.T)
    assert (bottom, top) == (-0.5, 7.5)
    bands = zip(low_hz + low_shift_hz, high_hz + high_shift_hz, strict=True)
    for decibels, (low, high) in list(zip(values, bands, strict=True))[:7]:
        for hz in (low, high):
            assert -8 < np.interp(hz, bins_hz, decibels) < -4.5  # half, by a window
        middle = (bins_hz > low + 40) & (bins_hz < high - 40)
        assert (decibels[middle] > -2).all()
        assert (decibels[(bins_hz < low - 60) | (bins_hz > high + 60)] < -40).all()
    assert shifts.get_title().endswith("median 0.0 Hz, largest 300.0 Hz")
    lower, upper = shifts.lines[:2]
    assert lower.get_label() == "lower cut-off"
    np.testing.assert_allclose(lower.get_ydata(), low_shift_hz, atol=1e-3)
    np.testing.assert_allclose(upper.get_ydata(), high_shift_hz, atol=1e-3)
    np.testing.assert_allclose(upper.get_xdata(), high_hz, rtol=1e-6)
