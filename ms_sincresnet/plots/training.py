"""How training went: losses of several runs, and the confusion matrix of a test."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ms_sincresnet.errors import UserError

LOG = "train_log.txt"

# What SpeechBrain's FileTrainLogger writes of an epoch; of a test, no train loss.
EPOCH_LINE = re.compile(r"\bepoch: (\d+)\b.* - train loss: ([^\s,]+)")


def read_losses(path):
    """The training losses of a run.

    Arguments
    ---------
    path : str or pathlib.Path
        The ``train_log.txt`` of a run, or the run's folder.

    Returns
    -------
    pandas.Series
        Mean loss of each epoch, by its number; where an epoch was logged again, the
        later line counts.

    Raises
    ------
    UserError
        If there is no such file, or it tells of no epoch.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> line = "epoch: 1, lr: 1.0000e-05 - train loss: 2.3026 - valid loss: 2.3010"
    >>> _ = path.write_text(line)
    >>> read_losses(path)
    epoch
    1    2.3026
    Name: train loss, dtype: float64
    """
    path = Path(path)
    if path.is_dir():
        path /= LOG
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; expected the {LOG} of a run, or the run's folder"
        )
    found = EPOCH_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
    try:
        losses = {int(epoch): float(loss) for epoch, loss in found}
    except ValueError as error:
        raise UserError(f"{path}: not a training log ({error})") from error
    if not losses:
        raise UserError(
            f"{path}: tells of no epoch; expected lines such as "
            '"epoch: 1, lr: 1.0000e-05 - train loss: 2.3026 - valid loss: 2.3010"'
        )
    return pd.Series(losses, name="train loss").rename_axis("epoch").sort_index()


def plot_losses(runs):
    """The paper's Fig. 5: training losses of several runs.

    Arguments
    ---------
    runs : dict of str to pandas.Series
        What ``read_losses`` returns, by the names of the runs.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Example
    -------
    >>> losses = pd.Series([2.3, 1.9], index=[1, 2])
    >>> figure = plot_losses({"SincNet": losses, "MS-SincResNet": losses / 2})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['SincNet', 'MS-SincResNet']
    """
    import matplotlib.style
    from matplotlib.artist import setp
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    colours = matplotlib.style.library["tableau-colorblind10"]["axes.prop_cycle"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(matplotlib.cycler(linestyle=["-", "--", ":"]) * colours)
    for name, losses in runs.items():
        # Marks, since a line through one epoch would not be seen.
        marker = "o" if len(losses) < 20 else None
        axes.plot(losses.index, losses, label=name, marker=marker, markersize=4)
    axes.set(
        title="training loss",
        xlabel="epoch",
        ylabel="mean negative log-likelihood of a clip (nats)",
    )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    setp(axes.legend().get_texts(), parse_math=False)
    return figure


def read_confusion_matrix(path):
    """A confusion matrix as a test writes it.

    Arguments
    ---------
    path : str or pathlib.Path
        A ``confusion_matrix.csv``.

    Returns
    -------
    pandas.DataFrame
        Numbers of tracks by genre (rows) and predicted genre (columns).

    Raises
    ------
    UserError
        If there is no such file, or it is none.

    Example
    -------
    >>> path = getfixture("tmp_path") / "confusion_matrix.csv"
    >>> _ = path.write_text("genre,jazz,rock\\njazz,3,1\\nrock,0,4\\n")
    >>> read_confusion_matrix(path).loc["jazz", "rock"].item()
    1
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a confusion_matrix.csv")
    try:
        matrix = pd.read_csv(path, index_col="genre", dtype={"genre": str})
    except (LookupError, TypeError, ValueError) as error:  # pandas and Unicode
        raise UserError(f"{path}: not a confusion matrix ({error})") from error
    counts = matrix.to_numpy()
    if (
        list(matrix.index) != list(matrix.columns)
        or counts.dtype.kind != "i"
        or (counts < 0).any()
    ):
        raise UserError(
            f"{path}: not a confusion matrix; expected a column genre and a column of "
            "counts for each genre, in the order of the rows"
        )
    return matrix


def plot_confusion_matrix(matrix, dataset):
    """The confusion matrix of a test.

    Arguments
    ---------
    matrix : pandas.DataFrame
        Numbers of tracks by genre (rows) and predicted genre (columns).
    dataset : str
        What was tested on.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Example
    -------
    >>> genres = ["jazz", "rock"]
    >>> matrix = pd.DataFrame([[3, 1], [0, 4]], genres, genres)
    >>> plot_confusion_matrix(matrix, "eight songs").axes[0].get_title()
    'eight songs: 8 tracks, 87.5% right'
    """
    from matplotlib.artist import setp
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    counts = matrix.to_numpy()
    display = ConfusionMatrixDisplay(counts, display_labels=matrix.columns)
    display.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    title = f"{dataset}: {counts.sum()} tracks, {accuracy:.1%} right"
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="predicted genre", ylabel="true genre")
    setp([*axes.get_xticklabels(), *axes.get_yticklabels()], parse_math=False)
    return figure
