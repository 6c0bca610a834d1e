"""Folds of a cross-validation: their runs, and accuracies over all of them.

Folds share most of their training tracks, so they vary less than runs on fresh data
would, and the interval of their mean, by Student's t, is rather too narrow (Y. Bengio,
Y. Grandvalet, "No unbiased estimator of the variance of K-fold cross-validation", JMLR
5, 2004).
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import speechbrain as sb
from scipy import stats

from ms_sincresnet.errors import HparamError, UserError
from ms_sincresnet.files import atomic_path, read_json, write_json
from ms_sincresnet.pretrained.model_folder import is_model_folder
from ms_sincresnet.training.comparison import read_predictions
from ms_sincresnet.training.hparams import plain_hparams, quoted
from ms_sincresnet.training.scores import write_confusion_matrix

OF_A_FOLD = ("--fold=", "--save_folder", "--model_folder", "--manifest_folder")
OF_THE_MACHINE = ("--cache", "--device=", "--num_workers=")  # change no figure


def run_folds(
    script: str | Path,
    hparams_file: str | Path,
    words: list[str],
    folder: str | Path | None = None,
    folds: Iterable[int | str] | None = None,
    system: str | None = None,
) -> None:
    """Trains and tests on each fold that is not finished, and prints the summary.

    Arguments
    ---------
    script, hparams_file
        ``train.py`` of a recipe, and its yaml file.
    words
        Options of ``train.py``, the same ones each time.
    folder
        Folder of the folds' output folders. By default it is named after the system.
    folds
        Numbers of some folds, from 0; by default all.
    system
        Name of the model; by default that of the yaml file.

    Example
    -------
    >>> run_folds("train.py", "nowhere.yaml", ["--data_folder=GTZAN"])
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.HparamError: nowhere.yaml: no such hparams file
    """
    for word in words:
        if word.startswith(OF_A_FOLD):
            raise HparamError(
                f"{word}: each fold has its own; leave it out. --folds chooses folds, "
                "--output_folder the folder of all of them"
            )
    stem = Path(hparams_file).stem
    _, _, overrides = sb.parse_arguments(quoted([str(hparams_file), *words]))
    hparams = plain_hparams(hparams_file, overrides)
    if hparams["protocol"] != "random":
        raise HparamError(
            f"protocol: {hparams['protocol']!r} is a single split without folds; run "
            f"train.py {hparams_file} --protocol={hparams['protocol']}"
        )
    n_folds = hparams["n_folds"]
    default = f"results/{stem}/cross_validation/seed_{hparams['seed']}"
    folder = Path(folder or default)
    _refuse_other_options(folder, [Path(hparams_file).name, *words])
    about = {"system": system or stem, "options": words}
    summary = ""
    for fold in folds or range(n_folds):
        if is_finished(folder / f"fold_{fold}"):
            continue
        print(f"fold {fold}, of 0 to {n_folds - 1}")
        own = [f"--fold={fold}", f"--output_folder={folder / f'fold_{fold}'}"]
        command = [script, hparams_file, *words, *own]
        status = subprocess.run([sys.executable, *map(str, command)]).returncode
        if status:
            raise UserError(f"fold {fold} failed (exit status {status}): see above")
        summary = write_summary(folder, n_folds, **about)
    print(f"{folder}: {summary or write_summary(folder, n_folds, **about)}")


def _refuse_other_options(folder: Path, words: list[str]) -> None:
    """Raises if the folder's folds were run with other options."""
    note = folder / "options.json"
    words = sorted(word for word in words if not word.startswith(OF_THE_MACHINE))
    noted = read_json(note) if note.is_file() else words
    if noted != words:
        raise HparamError(
            f"{folder}: its folds were run with {' '.join(noted)}; repeat these "
            "options, or give another output_folder"
        )
    write_json(words, note)


def is_finished(folder: str | Path) -> bool:
    """True if a fold was tested and its model written, which ``train.py`` does last."""
    folder = Path(folder)
    is_tested = (folder / "test_summary.json").is_file()
    return is_tested and is_model_folder(folder / "model")


def write_summary(folder: str | Path, n_folds: int, **about: Any) -> str:
    """Writes summary, predictions and confusion matrix of a folder's finished folds."""
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
