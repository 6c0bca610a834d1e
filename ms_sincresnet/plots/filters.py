"""Filters of a run: responses before and after, shifts, and filters per band."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ms_sincresnet.errors import UserError
from ms_sincresnet.plots import drawing

RESPONSE_SAMPLES = 4096  # bins of 4 Hz at 16 kHz; filters of 1001 taps resolve 16 Hz
COLUMNS = ["epoch", "scale", "taps", "filter", "low_hz", "high_hz"]


def read_cutoffs(path: Path) -> pd.DataFrame:
    """The cut-offs of a run's filters, epoch by epoch; epoch 0 is the start."""
    try:
        table = pd.read_csv(path)
        if [*table] != COLUMNS or table.isna().any(axis=None) or table.empty:
            raise ValueError(f"expected the columns {', '.join(COLUMNS)}")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; expected the folder of a run with learned filters"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not a table of cut-offs: {error}") from error
    return table


def plot_filters(
    table: pd.DataFrame,
    taps: Sequence[tuple[np.ndarray, np.ndarray]],
    sample_rate: int,
    title: str = "",
) -> Figure:
    """Draws a run's table and, for each scale, its first and last taps [filters, L]."""
    figure = Figure(figsize=(20, 1.5 + 3.3 * len(taps)), layout="constrained")
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(len(taps), 4, squeeze=False)
    for row, (_, scale), banks in zip(
        panels, table.groupby("scale"), taps, strict=True
    ):
        first = scale[scale.epoch == scale.epoch.min()]
        last = scale[scale.epoch == scale.epoch.max()]
        for axes, bank, cutoffs in zip(row, banks, (first, last), strict=False):
            image = _draw_responses(axes, bank, cutoffs, sample_rate)
        _draw_shifts(row[2], first, last)
        _draw_filters_per_band(row[3], first, last, sample_rate)
    for axes in panels[-1]:
        axes.set_xlabel("frequency (Hz)")
    panels[-1, 2].set_xlabel("initial cut-off (Hz)")
    label = "relative to the filter's maximum (dB)"
    figure.colorbar(image, ax=panels[:, :2], label=label, **drawing.THIN)
    return figure


def _draw_responses(
    axes: Axes, taps: np.ndarray, cutoffs: pd.DataFrame, sample_rate: int
) -> AxesImage:
    """Draws the frequency responses of one scale at one epoch."""
    responses = np.abs(np.fft.rfft(taps.astype(float), RESPONSE_SAMPLES))
    decibels = drawing.to_decibels(responses / responses.max(1, keepdims=True), 1.0)
    bins_hz = np.linspace(0, sample_rate / 2, responses.shape[1])
    span_hz = drawing.outer_edges(bins_hz)
    image = drawing.draw_image(axes, decibels, span_hz, vmin=-60, vmax=0)
    centres_hz = (cutoffs["low_hz"] + cutoffs["high_hz"]).to_numpy() / 2
    drawing.label_rows(axes, centres_hz, "filter")
    epoch = cutoffs["epoch"].iloc[0]
    when = f"after epoch {epoch}" if epoch else "at the start"
    axes.set(title=f"filters of {taps.shape[1]} taps {when}", xlim=(0, bins_hz[-1]))
    return image


def _draw_shifts(axes: Axes, first: pd.DataFrame, last: pd.DataFrame) -> None:
    """Draws how far each cut-off of one scale moved."""
    initial = first[["low_hz", "high_hz"]].to_numpy()
    shifts = last[["low_hz", "high_hz"]].to_numpy() - initial
    lower, upper = axes.plot(initial, shifts, "o", markersize=4)
    lower.set(color=drawing.BLUE, label="lower cut-off")
    upper.set(color=drawing.ORANGE, label="upper cut-off", marker="x")
    axes.axhline(0, color="grey", linewidth=0.8)
    median, largest = np.median(np.abs(shifts)), np.abs(shifts).max()
    title = f"shift of the cut-offs: median {median:.1f} Hz, largest {largest:.1f} Hz"
    axes.set(title=title, ylabel="learned minus initial cut-off (Hz)")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_filters_per_band(
    axes: Axes, first: pd.DataFrame, last: pd.DataFrame, sample_rate: int
) -> None:
    """Draws how many filters of one scale pass each frequency, before and after."""
    hz = np.geomspace(50, sample_rate / 2, 2000)
    bands_hz = hz.reshape(40, -1).mean(1)
    for cutoffs, color, label in [
        (first, drawing.SKY, "at the start"),
        (last, drawing.ORANGE, f"after epoch {last['epoch'].iloc[0]}"),
    ]:
        low_hz, high_hz = (cutoffs[[name]].to_numpy() for name in ("low_hz", "high_hz"))
        passed = ((low_hz <= hz) & (hz <= high_hz)).sum(0)
        axes.plot(bands_hz, passed.reshape(40, -1).mean(1), color=color, label=label)
    axes.set(title="filters that pass a frequency", xscale="log", xlim=(hz[0], hz[-1]))
    axes.grid(alpha=0.3)
    axes.legend()
