"""The genres of a song over time, below its envelope."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ms_sincresnet.data.audio import read_blocks
from ms_sincresnet.plots.drawing import ORANGE, THIN


def read_envelope(path: str | Path, sample_rate: int) -> pd.Series:
    """Largest absolute sample of each hundredth of a second, by its start in s."""
    step = sample_rate // 100
    peaks, rest = [], np.zeros(0, np.float32)
    for block in read_blocks(path, sample_rate):
        levels = np.abs(np.concatenate([rest, block]))
        whole = len(levels) // step * step
        peaks.append(levels[:whole].reshape(-1, step).max(1))
        rest = levels[whole:]
    if len(rest):
        peaks.append(rest.max(keepdims=True))
    envelope = np.concatenate(peaks)
    return pd.Series(envelope, np.arange(len(envelope)) * step / sample_rate)


def plot_timeline(
    posteriors: pd.DataFrame, duration: float, envelope: pd.Series, title: str = ""
) -> Figure:
    """Posteriors by genre and by the centre of a clip in s, NaN for a silent clip.

    Each moment shows the clip whose centre is nearest. The genre with the highest mean
    posterior is on top.
    """
    genres = posteriors.mean().sort_values().index
    values, centres_s = posteriors[genres].to_numpy(), posteriors.index.to_numpy()
    edges_s = [0, *(centres_s[1:] + centres_s[:-1]) / 2, duration]
    height = 1.6 + 0.32 * len(genres)
    figure = Figure(figsize=(11, height + 1), layout="constrained")
    top, axes = figure.subplots(2, sharex=True, height_ratios=[1, height])
    step = -(-len(envelope) // 1000)  # at most a thousand lines
    peaks = envelope.groupby(np.arange(len(envelope)) // step).max()
    top.vlines(envelope.index[::step], -peaks, peaks, color="grey", linewidth=0.7)
    top.set(ylabel="level", yticks=[])
    top.spines[["top", "right", "left"]].set_visible(False)
    rows = np.arange(len(genres) + 1) - 0.5
    image = axes.pcolormesh(edges_s, rows, values.T, cmap="Blues", rasterized=True)
    image.set_clim(0, 1)
    audible = ~np.isnan(values[:, 0])
    best = values[audible].argmax(1)
    label = "most likely genre of the clip"
    axes.plot(centres_s[audible], best, ".", color=ORANGE, label=label)
    axes.set_yticks(range(len(genres)), genres, parse_math=False)
    axes.set(xlabel="time (s)", xlim=(0, duration))
    top.set_title(title, parse_math=False)
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.08), frameon=False)
    figure.colorbar(image, label="posterior of the clip", **THIN)
    return figure
