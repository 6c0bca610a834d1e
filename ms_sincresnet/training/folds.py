"""Summary of a cross-validation: accuracies over the folds, and over all tracks.

Standard deviation and interval of the mean are over the folds' accuracies, the latter
by Student's t. Folds share most of their training tracks, so they vary less than runs
on fresh data would, and the interval is rather too narrow (Y. Bengio, Y. Grandvalet,
"No unbiased estimator of the variance of K-fold cross-validation", JMLR 5, 2004). The
share of all tracks comes with the interval of Clopper and Pearson.
"""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import atomic_path, read_json, write_json
from ms_sincresnet.plots.drawing import save_figure
from ms_sincresnet.plots.training import plot_confusion_matrix, read_confusion_matrix
from ms_sincresnet.pretrained.model_folder import is_model_folder
from ms_sincresnet.training.comparison import read_predictions

LEVEL = 0.95  # of the intervals


def is_finished(folder: str | Path) -> bool:
    """True if a fold was tested and its model written, which ``train.py`` does last.

    Arguments
    ---------
    folder
        Output folder of ``train.py``.

    Returns
    -------
    False also if the folder is missing.

    Example
    -------
    >>> is_finished("results/nowhere")
    False
    """
    folder = Path(folder)
    is_tested = (folder / "test_summary.json").is_file()
    return is_tested and is_model_folder(folder / "model")


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more values, by Student's t."""
    mean, error = float(np.mean(values)), stats.sem(values)
    if error == 0:  # of which SciPy makes NaN
        return mean, mean
    low, high = stats.t.interval(LEVEL, len(values) - 1, mean, error)
    return float(low), float(high)


def clopper_pearson_interval(right: int, tracks: int) -> tuple[float, float]:
    """The exact 95 % interval of the share of tracks that were predicted right.

    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated
    in the case of the binomial", Biometrika 26(4), 1934.
    """
    interval = stats.binomtest(right, tracks).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


def write_summary(folder: str | Path, n_folds: int, **about: Any) -> str:
    """Writes the summary of the finished folds in a folder.

    Files: ``summary.json`` (``song_accuracy`` and ``clip_accuracy`` are over the folds,
    ``pooled_song_accuracy`` over all tracks), ``predictions.csv`` (one row per track)
    and the sum of the folds' confusion matrices, ``confusion_matrix.csv`` and ``.png``.

    Arguments
    ---------
    folder
        Holds the output folders of ``train.py``, ``fold_0``, ``fold_1`` …
    n_folds
        Folds of the split.
    **about
        More to write into ``summary.json``, such as the name of the model.

    Returns
    -------
    The summary in words.

    Raises
    ------
    UserError
        If no fold is finished, a file is damaged, or two folds tested the same track.

    Example
    -------
    >>> write_summary("results/nowhere", n_folds=10)
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.UserError: results/nowhere: no fold of 10 is finished there
    """
    folder = Path(folder)
    folders = {fold: folder / f"fold_{fold}" for fold in range(n_folds)}
    folders = {fold: path for fold, path in folders.items() if is_finished(path)}
    if not folders:
        raise UserError(f"{folder}: no fold of {n_folds} is finished there")
    folds = [
        {"fold": fold, **read_json(path / "test_summary.json")}
        for fold, path in folders.items()
    ]
    tables = {fold: read_predictions(path) for fold, path in folders.items()}
    predictions = pd.concat(tables, names=["fold"]).reset_index()
    twins = predictions[predictions.ID.duplicated(keep=False)].sort_values("ID")
    if len(twins):
        first, second = twins.fold.iloc[:2]
        raise UserError(
            f"{folder}: folds {first} and {second} both tested {twins.ID.iloc[0]}, so "
            "they are not of one split: split_seed, n_folds or the data differ"
        )
    paths = [path / "confusion_matrix.csv" for path in folders.values()]
    matrix = reduce(pd.DataFrame.add, map(read_confusion_matrix, paths))
    right = int((predictions.genre == predictions.predicted).sum())
    summary = {
        "dataset": folds[0]["dataset"],
        "n_folds": n_folds,
        "folds_done": len(folds),
        "tracks": len(predictions),
        "clips": sum(fold["clips"] for fold in folds),
        "song_accuracy": _spread([fold["song_accuracy"] for fold in folds]),
        "clip_accuracy": _spread([fold["clip_accuracy"] for fold in folds]),
        "pooled_song_accuracy": {
            "accuracy": right / len(predictions),
            "right": right,
            "interval": list(clopper_pearson_interval(right, len(predictions))),
        },
        "folds": folds,
        **about,
    }
    title = f"{summary['dataset']}, {summary['folds_done']} of {n_folds} folds"
    save_figure(plot_confusion_matrix(matrix, title), folder / "confusion_matrix.png")
    with atomic_path(folder / "confusion_matrix.csv") as path:
        matrix.to_csv(path)
    with atomic_path(folder / "predictions.csv") as path:
        predictions.to_csv(path, index=False)
    write_json(summary, folder / "summary.json")
    return describe(summary)


def _spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation and interval of the folds' accuracies."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return {"mean": mean, "sd": None, "interval": None}
    interval = np.clip(student_interval(values), 0, 1).tolist()
    return {"mean": mean, "sd": float(np.std(values, ddof=1)), "interval": interval}


def describe(summary: dict[str, Any]) -> str:
    """A summary in words.

    Example
    -------
    >>> spread = {"mean": 0.85, "sd": 0.05, "interval": [0.80, 0.90]}
    >>> pooled = {"accuracy": 0.85, "right": 85, "interval": [0.765, 0.914]}
    >>> done = {"n_folds": 10, "folds_done": 3, "tracks": 100}
    >>> accuracies = {"song_accuracy": spread, "clip_accuracy": spread}
    >>> print(describe(done | accuracies | {"pooled_song_accuracy": pooled}))
    3 of 10 folds: mean ± standard deviation, 95 % interval of the mean (Student's t)
      songs: 85.0 ± 5.0 %, 80.0 to 90.0 %
      clips: 85.0 ± 5.0 %, 80.0 to 90.0 %
    85 of 100 songs, 85.0 %, 95 % interval 76.5 to 91.4 % (Clopper-Pearson)
    """
    pooled, several = summary["pooled_song_accuracy"], summary["folds_done"] > 1
    columns = ": mean ± standard deviation, 95 % interval of the mean (Student's t)"
    heading = f"{summary['folds_done']} of {summary['n_folds']} folds"
    lines = [heading + columns if several else heading]
    for name in ("song", "clip"):
        spread = summary[f"{name}_accuracy"]
        text = f"  {name}s: {100 * spread['mean']:.1f}"
        if several:
            text += f" ± {100 * spread['sd']:.1f} %, {_range(spread['interval'])}"
        lines.append(f"{text} %")
    share = f"{pooled['right']} of {summary['tracks']} songs"
    accuracy = f"{100 * pooled['accuracy']:.1f} %"
    interval = f"95 % interval {_range(pooled['interval'])} % (Clopper-Pearson)"
    return "\n".join([*lines, f"{share}, {accuracy}, {interval}"])


def _range(interval: Sequence[float]) -> str:
    """An interval of shares, in per cent."""
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f}"
