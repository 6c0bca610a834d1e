"""Training losses of several runs, and the confusion matrix of a test."""

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator

from ms_sincresnet.errors import UserError

LOG = "train_log.txt"

# One epoch in the log of SpeechBrain's FileTrainLogger; a test has no train loss.
EPOCH_LINE = re.compile(r"\bepoch: (\d+)\b.* - train loss: ([^\s,]+)")


def read_losses(path: str | Path) -> pd.Series:
    """Training loss per epoch; of an epoch that was logged twice, the later."""
    path = Path(path)
    if path.is_dir():
        path /= LOG
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a run's folder or its {LOG}")
    found = EPOCH_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise UserError(f"{path}: no epochs found; expected the {LOG} of a run")
    try:
        losses = {int(epoch): float(loss) for epoch, loss in found}
    except ValueError as error:
        raise UserError(f"{path}: not a training log ({error})") from error
    return pd.Series(losses).sort_index()


def plot_losses(runs: Mapping[str, pd.Series]) -> Figure:
    """The paper's Fig. 5: training losses of several runs, by their names."""
    colours = matplotlib.style.library["tableau-colorblind10"]["axes.prop_cycle"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * colours)
    for name, losses in runs.items():
        # Markers, as a line through a single epoch would be invisible.
        marker = "o" if len(losses) < 20 else None
        axes.plot(losses.index, losses, label=name, marker=marker, markersize=4)
    label = "mean negative log-likelihood of a clip (nats)"
    axes.set(title="training loss", xlabel="epoch", ylabel=label)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    return figure


def read_confusion_matrix(path: str | Path) -> pd.DataFrame:
    """Track counts by true genre (rows) and predicted genre, from a test's csv file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a confusion_matrix.csv")
    try:
        matrix = pd.read_csv(path, index_col="genre", dtype={"genre": str})
    except (LookupError, TypeError, ValueError) as error:  # pandas and Unicode
        raise UserError(f"{path}: not a confusion matrix ({error})") from error
    counts = matrix.to_numpy()
    square = list(matrix.index) == list(matrix.columns)
    if not square or counts.dtype.kind != "i" or (counts < 0).any():
        expected = "a column named genre, then one of counts per row, in their order"
        raise UserError(f"{path}: not a confusion matrix; expected {expected}")
    return matrix


def plot_confusion_matrix(matrix: pd.DataFrame, title: str) -> Figure:
    """The confusion matrix of a test; its tracks and accuracy follow the title."""
    from sklearn.metrics import ConfusionMatrixDisplay  # a second to import

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    counts = matrix.to_numpy()
    display = ConfusionMatrixDisplay(counts, display_labels=matrix.columns)
    display.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    title = f"{title}: {counts.sum()} tracks, {accuracy:.1%} correct"
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="predicted genre", ylabel="true genre")
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        text.set_parse_math(False)
    return figure
