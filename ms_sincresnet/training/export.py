"""From a training's folder to a model folder, whether it came to its test or not."""

from pathlib import Path

import pandas as pd
from speechbrain.utils.checkpoints import Checkpointer, ckpt_recency

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.speechbrain_modules import StrictlyLoaded
from ms_sincresnet.models.architectures import MODELS
from ms_sincresnet.pretrained.card import training_of
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.brain import validation_rank
from ms_sincresnet.training.plain_yaml import read_plainly

NEEDED = (
    "dataset",
    "seed",
    "output_folder",
    "save_folder",
    "manifest_folder",
    "clip_samples",
    "hop_samples",
    "voting",
    "model",
    "checkpoint",
)


def export_run(run, folder):
    """Writes the model folder of a training: of the epoch that its test takes.

    The run may have been moved, or killed, or still go on. Nothing that its
    ``hyperparams.yaml`` names is built, but the network.

    Arguments
    ---------
    run : str or pathlib.Path
        What a recipe's ``train.py`` wrote, its ``output_folder``.
    folder : str or pathlib.Path
        The model folder; one that is there is replaced.

    Returns
    -------
    pathlib.Path
        The model folder.

    Raises
    ------
    ModelFolderError
        If ``run`` is no such folder, if it has no finished epoch, or if ``folder``
        holds something else than a model.
    WeightsError
        If the checkpoint cannot be read, or is of another network.

    Example
    -------
    >>> export_run("results/nowhere", "model")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: results/nowhere: no folder of a training \
there (hyperparams.yaml is missing); expected the output_folder of a recipe's train.py
    """
    run, folder = Path(run).expanduser(), Path(folder).expanduser()
    hparams = _read_hparams(run)
    model = _build(run, hparams["model"])
    checkpoint = _checkpoint_to_test(run, hparams)
    StrictlyLoaded.load(model, checkpoint.paramfiles["model"])
    save_model_folder(
        folder,
        model.eval(),
        _genres(run, hparams, model.config["n_genres"]),
        clip_samples=hparams["clip_samples"],
        hop_samples=hparams["hop_samples"],
        voting=hparams["voting"],
        training=training_of(run, hparams, checkpoint.meta["epoch"]),
    )
    return folder


def _read_hparams(run):
    """The run's hparams, as plain values."""
    path = run / "hyperparams.yaml"
    expected = "expected the output_folder of a recipe's train.py"
    if not path.is_file():
        raise ModelFolderError(
            f"{run}: no folder of a training there (hyperparams.yaml is missing); "
            f"{expected}"
        )
    hparams = read_plainly(path)
    missing = [name for name in NEEDED if name not in hparams]
    if missing:
        raise ModelFolderError(
            f"{path}: not of a training, it lacks {', '.join(missing)}; {expected}"
        )
    return hparams


def _in_run(run, hparams, name):
    """Where one of the run's folders is, also after the run was moved."""
    path = Path(hparams[name])
    try:
        return run / path.relative_to(hparams["output_folder"])
    except ValueError:  # the user had put it elsewhere
        return path


def _checkpoint_to_test(run, hparams):
    """The checkpoint that ``GenreBrain`` tests."""
    save_folder = _in_run(run, hparams, "save_folder")
    rank = validation_rank if hparams["checkpoint"] == "best" else ckpt_recency
    # A checkpointer makes the folder that it is given.
    found = save_folder.is_dir() and Checkpointer(save_folder).find_checkpoint(
        importance_key=rank,
        ckpt_predicate=lambda checkpoint: "epoch" in checkpoint.meta,
    )
    if not found:
        raise ModelFolderError(
            f"{save_folder}: no checkpoint of a finished epoch; train for one at least"
        )
    return found


def _build(run, built):
    """The run's network, not trained."""
    name, arguments = built or (None, {})
    system = MODELS.get(str(name).removeprefix("ms_sincresnet."))
    if system is None:
        raise ModelFolderError(
            f"{run / 'hyperparams.yaml'}: its model is {name}; expected one of "
            f"{', '.join(MODELS)}"
        )
    try:
        return system(
            **arguments | ({"weights": None} if "weights" in arguments else {})
        )
    except (TypeError, ValueError) as error:
        raise ModelFolderError(f"{run / 'hyperparams.yaml'}: {error}") from error


def _genres(run, hparams, n_genres):
    """Names of the genres, in the order of ``genre_datasets``."""
    path = _in_run(run, hparams, "manifest_folder") / "train.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        genres = sorted(set(table["genre"]))
    except (OSError, ValueError, KeyError) as error:
        raise ModelFolderError(
            f"{path}: the manifest, which names the genres, cannot be read ({error})"
        ) from error
    if len(genres) != n_genres:
        raise ModelFolderError(
            f"{path}: names {len(genres)} genres ({', '.join(genres)}), and the "
            f"network knows {n_genres}: not the manifest of its training"
        )
    return genres
