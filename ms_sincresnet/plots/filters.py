"""Learned filters: frequency responses, and the shift of their cut-offs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ms_sincresnet.plots import drawing

RESPONSE_SAMPLES = 4096  # bins of 4 Hz at 16 kHz; filters of 1001 taps resolve 16 Hz


def plot_filters(
    table: pd.DataFrame, taps: Sequence[np.ndarray], sample_rate: int, title: str = ""
) -> Figure:
    """Responses and cut-offs of filters, given as taps [filters, time] per scale."""
    figure = Figure(figsize=(13, 1.5 + 3.3 * len(taps)), layout="constrained")
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(len(taps), 2, squeeze=False, sharex=True)
    scales = [cutoffs for _, cutoffs in table.groupby("scale")]
    for (left, right), bank, cutoffs in zip(panels, taps, scales, strict=True):
        image = _draw_responses(left, bank, cutoffs, sample_rate)
        _draw_shifts(right, cutoffs)
    left.set_xlabel("frequency (Hz)")
    right.set_xlabel("initial cut-off (Hz)")
    label = "relative to the filter's maximum (dB)"
    figure.colorbar(image, ax=panels[:, 0], label=label, **drawing.THIN)
    return figure


def _draw_responses(
    axes: Axes, taps: np.ndarray, cutoffs: pd.DataFrame, sample_rate: int
) -> AxesImage:
    """Draws the frequency responses of one scale and its initial cut-offs."""
    responses = np.abs(np.fft.rfft(taps.astype(float), RESPONSE_SAMPLES))
    decibels = drawing.to_decibels(responses / responses.max(1, keepdims=True), 1.0)
    bins_hz = np.linspace(0, sample_rate / 2, responses.shape[1])
    span_hz = drawing.outer_edges(bins_hz)
    image = drawing.draw_image(axes, decibels, span_hz, vmin=-60, vmax=0)
    for name in ("init_low_hz", "init_high_hz"):
        axes.plot(cutoffs[name], cutoffs["filter"], color=drawing.SKY, linewidth=0.8)
    centres_hz = (cutoffs["low_hz"] + cutoffs["high_hz"]).to_numpy() / 2
    drawing.label_rows(axes, centres_hz, "filter")
    title = f"filters of {taps.shape[1]} taps (lines: initial cut-offs)"
    axes.set(title=title, xlim=(0, bins_hz[-1]))
    return image


def _draw_shifts(axes: Axes, cutoffs: pd.DataFrame) -> None:
    """Draws how far the cut-offs of one scale moved."""
    initial = cutoffs[["init_low_hz", "init_high_hz"]].to_numpy()
    shifts = cutoffs[["low_hz", "high_hz"]].to_numpy() - initial
    lower, upper = axes.plot(initial, shifts, "o", markersize=4)
    lower.set(color=drawing.BLUE, label="lower cut-off")
    upper.set(color=drawing.ORANGE, label="upper cut-off", marker="x")
    axes.axhline(0, color="grey", linewidth=0.8)
    median, largest = np.median(np.abs(shifts)), np.abs(shifts).max()
    title = f"shift of the cut-offs: median {median:.1f} Hz, largest {largest:.1f} Hz"
    axes.set(title=title, ylabel="learned minus initial cut-off (Hz)")
    axes.grid(alpha=0.3)
    axes.legend()
