"""Export of a training's folder as a model folder, before its test or after."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from speechbrain.utils.checkpoints import Checkpoint

from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.files import load_weights
from ms_sincresnet.models import MODELS, GenreModel
from ms_sincresnet.training.brain import checkpoint_rule, write_model
from ms_sincresnet.training.checkpoints import WholeCheckpointer
from ms_sincresnet.training.hparams import read_plainly

HPARAMS = "hyperparams.yaml"
NEEDED = {
    *("dataset", "seed", "output_folder", "save_folder", "manifest_folder"),
    *("clip_samples", "hop_samples", "voting", "model", "checkpoint"),
}


def export_run(run: str | Path, folder: str | Path, half: bool = False) -> Path:
    """Writes the model folder of a training, with the epoch that its test takes.

    The run may have been moved or killed, or be in progress.

    Arguments
    ---------
    run
        The ``output_folder`` of a recipe's ``train.py``.
    folder
        The model folder; an existing one is replaced.
    half
        Weights of convolutions and linear layers in float16.

    Returns
    -------
    The model folder.

    Raises
    ------
    ModelFolderError
        If ``run`` has no finished epoch, or ``folder`` holds something else.

    Example
    -------
    >>> export_run("results/nowhere", "model")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: results/nowhere: not the output_folder of a \
recipe's train.py (no hyperparams.yaml there)
    """
    run, folder = Path(run).expanduser(), Path(folder).expanduser()
    hparams = _read_hparams(run)
    model = _build(run / HPARAMS, hparams["model"])
    checkpoint = _checkpoint_to_test(run, hparams)
    path = checkpoint.paramfiles["model"]
    try:
        model.load_state_dict(load_weights(path))
    except (RuntimeError, TypeError, AttributeError) as error:  # PyTorch's, of misfits
        raise WeightsError(f"{path}: does not fit {run / HPARAMS}: {error}") from error
    genres = _genres(run, hparams, int(model.config["n_genres"]))
    epoch = checkpoint.meta["epoch"]
    write_model(folder, model.eval(), genres, run, hparams, epoch, half)
    return folder


def _read_hparams(run: Path) -> dict[str, Any]:
    """Hparams of a run, as plain values."""
    path = run / HPARAMS
    try:
        hparams = read_plainly(path.read_text(encoding="utf-8"))
    except OSError as error:
        expected = f"the output_folder of a recipe's train.py (no {HPARAMS} there)"
        raise ModelFolderError(f"{run}: not {expected}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not valid yaml ({error})") from error
    missing = ", ".join(sorted(NEEDED - hparams.keys()))
    if missing:
        raise ModelFolderError(f"{path}: not of a training ({missing} missing)")
    return hparams


def _in_run(run: Path, hparams: dict[str, Any], name: str) -> Path:
    """One of the run's folders, also after the run was moved."""
    path = Path(hparams[name])
    try:
        return run / path.relative_to(hparams["output_folder"])
    except ValueError:  # the user had put it elsewhere
        return path


def _checkpoint_to_test(run: Path, hparams: dict[str, Any]) -> Checkpoint:
    """The checkpoint that ``GenreBrain`` tests."""
    folder, rule = _in_run(run, hparams, "save_folder"), hparams["checkpoint"]
    if folder.is_dir():  # a checkpointer would create it
        found = WholeCheckpointer(folder).find_checkpoint(**checkpoint_rule(rule))
        if found:
            return found
    advice = "train for at least one"
    raise ModelFolderError(f"{folder}: no checkpoint of a finished epoch; {advice}")


def _build(path: Path, named: Any) -> GenreModel:
    """The model of a file of hparams, with random weights."""
    name, arguments = named if isinstance(named, tuple) else (named, {})
    model_class = MODELS.get(str(name).removeprefix("ms_sincresnet."))
    if model_class is None:
        known = ", ".join(MODELS)
        raise ModelFolderError(f"{path}: its model is {name}; expected one of {known}")
    try:
        return model_class(**{k: v for k, v in arguments.items() if k != "weights"})
    except (TypeError, ValueError) as error:
        raise ModelFolderError(f"{path}: {error}") from error


def _genres(run: Path, hparams: dict[str, Any], n_genres: int) -> list[str]:
    """Names of the genres, in the order of ``genre_datasets``."""
    path = _in_run(run, hparams, "manifest_folder") / "train.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        genres = sorted(set(table["genre"]))
    except (OSError, ValueError, KeyError) as error:
        reason = f"the manifest, which names the genres, cannot be read ({error})"
        raise ModelFolderError(f"{path}: {reason}") from error
    if len(genres) != n_genres:
        found = f"{len(genres)} genres ({', '.join(genres)})"
        raise ModelFolderError(f"{path}: {found}, but the model has {n_genres}")
    return genres
