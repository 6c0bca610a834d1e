"""Reliability diagram: share of right predictions by their confidence."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ms_sincresnet.plots.drawing import BLUE, ORANGE

N_BINS = 10


def plot_reliability(confidence: Any, right: Any, title: str = "") -> Figure:
    """Share of right predictions by confidence, above the number of either.

    Arguments
    ---------
    confidence
        Posteriors [songs] of the predicted genres.
    right
        True [songs] where the prediction is right.
    title
        Heading.

    Returns
    -------
    The figure.

    Example
    -------
    >>> figure = plot_reliability([0.3, 0.7, 0.9], [False, True, True])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['share that is right', 'songs']
    """
    from sklearn.calibration import CalibrationDisplay, calibration_curve

    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    figure = Figure(figsize=(5, 6), layout="constrained")
    curve, counts = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    shares, means = calibration_curve(right, confidence, n_bins=N_BINS, pos_label=True)
    display = CalibrationDisplay(shares, means, confidence)
    display.plot(ax=curve, color=BLUE, name="songs, in bins of 0.1")
    curve.set(xlabel="", ylabel="share that is right")
    curve.set_title(title, parse_math=False)
    parts = [confidence[right], confidence[~right]]
    edges, colours = np.linspace(0, 1, N_BINS + 1), [BLUE, ORANGE]
    labels = ["right", "wrong"]
    counts.hist(parts, bins=edges, stacked=True, color=colours, label=labels)
    counts.set(xlabel="posterior of the predicted genre", ylabel="songs", xlim=(0, 1))
    counts.legend()
    return figure
