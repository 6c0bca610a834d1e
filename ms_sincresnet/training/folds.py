"""Summary of a cross-validation: accuracies over the folds, and over all tracks.

Folds share most of their training tracks, so they vary less than runs on fresh data
would, and the interval of their mean, by Student's t, is rather too narrow (Y. Bengio,
Y. Grandvalet, "No unbiased estimator of the variance of K-fold cross-validation", JMLR
5, 2004).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import atomic_path, read_json, write_json
from ms_sincresnet.pretrained.model_folder import is_model_folder
from ms_sincresnet.training.comparison import read_predictions
from ms_sincresnet.training.scores import write_confusion_matrix


def is_finished(folder: str | Path) -> bool:
    """True if a fold was tested and its model written, which ``train.py`` does last.

    Arguments
    ---------
    folder
        Output folder of ``train.py``.

    Returns
    -------
    False also if it is missing.

    Example
    -------
    >>> is_finished("results/nowhere")
    False
    """
    folder = Path(folder)
    is_tested = (folder / "test_summary.json").is_file()
    return is_tested and is_model_folder(folder / "model")


def write_summary(folder: str | Path, n_folds: int, **about: Any) -> str:
    """Writes summary, predictions and confusion matrix of a folder's finished folds.

    Arguments
    ---------
    folder
        Holds the output folders of ``train.py``, ``fold_0``, ``fold_1`` …
    n_folds
        Folds of the split.
    **about
        More for ``summary.json``, such as the name of the model.

    Returns
    -------
    The summary in words.

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
    tables, folds = {}, []
    for fold, path in folders.items():
        tables[fold] = read_predictions(path)
        folds.append({"fold": fold, **read_json(path / "test_summary.json")})
    predictions = pd.concat(tables, names=["fold"]).reset_index()
    twins = predictions[predictions.ID.duplicated(keep=False)].sort_values("ID")
    if len(twins):
        first, second = twins.fold.iloc[:2]
        raise UserError(
            f"{folder}: folds {first} and {second} both tested {twins.ID.iloc[0]}, so "
            "they are not of one split: split_seed, n_folds or the data differ"
        )
    genres = sorted({*predictions.genre, *predictions.predicted})
    right = int((predictions.genre == predictions.predicted).sum())
    # Clopper's and Pearson's (Biometrika 26(4), 1934).
    share = stats.binomtest(right, len(predictions)).proportion_ci(method="exact")
    summary = {
        "dataset": folds[0]["dataset"],
        "n_folds": n_folds,
        "folds_done": len(folds),
        "tracks": len(predictions),
        "clips": sum(fold["clips"] for fold in folds),
        "song_accuracy": spread([fold["song_accuracy"] for fold in folds]),
        "clip_accuracy": spread([fold["clip_accuracy"] for fold in folds]),
        "pooled_song_accuracy": {
            "accuracy": right / len(predictions),
            "right": right,
            "interval": [float(share.low), float(share.high)],
        },
        "folds": folds,
        **about,
    }
    title = f"{summary['dataset']}, {len(folds)} of {n_folds} folds"
    write_confusion_matrix(folder, predictions, genres, title)
    with atomic_path(folder / "predictions.csv") as path:
        predictions.to_csv(path, index=False)
    write_json(summary, folder / "summary.json")
    return _describe(summary)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval of the mean of folds' accuracies."""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return {"mean": mean, "sd": None, "interval": None}
    half = stats.t.ppf(0.975, n - 1) * stats.sem(values)
    interval = np.clip([mean - half, mean + half], 0, 1).tolist()
    return {"mean": mean, "sd": float(np.std(values, ddof=1)), "interval": interval}


def _describe(summary: dict[str, Any]) -> str:
    """A summary in words."""
    pooled, several = summary["pooled_song_accuracy"], summary["folds_done"] > 1
    columns = ": mean ± standard deviation, 95 % interval of the mean (Student's t)"
    heading = f"{summary['folds_done']} of {summary['n_folds']} folds"
    lines = [heading + columns if several else heading]
    for name in ("song", "clip"):
        folds = summary[f"{name}_accuracy"]
        text = f"  {name}s: {100 * folds['mean']:.1f}"
        if several:
            low, high = folds["interval"]
            text += f" ± {100 * folds['sd']:.1f} %, {100 * low:.1f} to {100 * high:.1f}"
        lines.append(f"{text} %")
    low, high = pooled["interval"]
    lines.append(
        f"{pooled['right']} of {summary['tracks']} songs, "
        f"{100 * pooled['accuracy']:.1f} %, 95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} % (Clopper-Pearson)"
    )
    return "\n".join(lines)
