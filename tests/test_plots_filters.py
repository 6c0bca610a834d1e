"""Responses, shifts and counts of filters agree with the formulas."""

import numpy as np
import pandas as pd
import torch

from ms_sincresnet import SincFilterbank
from ms_sincresnet.plots.filters import plot_filters


def table_of(bank, epoch):
    low_hz, high_hz = (hz.detach().numpy() for hz in bank.cutoffs())
    columns = {"epoch": epoch, "scale": 0, "taps": bank.kernel_size}
    columns |= {"filter": np.arange(8), "low_hz": low_hz, "high_hz": high_hz}
    return pd.DataFrame(columns)


def test_filters_pass_the_band_between_their_cutoffs():
    bank = SincFilterbank(8, 501)
    first, taps = table_of(bank, 0), [bank.filters().detach().numpy()]
    with torch.no_grad():
        bank.low_hz_[3] += 300
        bank.band_hz_[5] += 200
    last = table_of(bank, 9)
    taps.append(bank.filters().detach().numpy())
    table = pd.concat([first, last])
    figure = plot_filters(table, [tuple(taps)], 16000, r"my$\b$")  # no formula
    figure.draw_without_rendering()
    assert figure.get_suptitle() == r"my$\b$"
    before, after, shifts, counts = figure.axes[:4]
    for axes, cutoffs in [(before, first), (after, last)]:
        (image,) = axes.get_images()
        left, right, bottom, top = image.get_extent()
        values = np.asarray(image.get_array())
        step_hz = (right - left) / len(values.T)
        bins_hz = left + step_hz * (np.arange(len(values.T)) + 0.5)
        assert (bottom, top) == (-0.5, 7.5)
        bands = cutoffs[["low_hz", "high_hz"]].to_numpy()
        for decibels, (low, high) in list(zip(values, bands, strict=True))[:7]:
            for hz in (low, high):
                assert -8 < np.interp(hz, bins_hz, decibels) < -4.5  # half, by a window
            middle = (bins_hz > low + 40) & (bins_hz < high - 40)
            assert (decibels[middle] > -2).all()
            assert (decibels[(bins_hz < low - 60) | (bins_hz > high + 60)] < -40).all()
    low_shift_hz = 300 * (np.arange(8) == 3)
    high_shift_hz = low_shift_hz + 200 * (np.arange(8) == 5)
    assert shifts.get_title().endswith("median 0.0 Hz, largest 300.0 Hz")
    lower, upper = shifts.lines[:2]
    assert lower.get_label() == "lower cut-off"
    np.testing.assert_allclose(lower.get_ydata(), low_shift_hz, atol=1e-3)
    np.testing.assert_allclose(upper.get_ydata(), high_shift_hz, atol=1e-3)
    np.testing.assert_allclose(upper.get_xdata(), first.high_hz, rtol=1e-6)
    hz, start = counts.lines[0].get_data()
    gained = counts.lines[1].get_ydata() - start
    assert gained[np.abs(hz - first.high_hz[5] - 100).argmin()] > 0  # it became wider
    np.testing.assert_array_equal(gained[hz > last.high_hz[5] * 1.1], 0)
