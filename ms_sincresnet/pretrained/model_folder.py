"""The folder in which a model of songs is shared: the model's files and its card."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.models import MODELS, GenreModel
from ms_sincresnet.models.config import CONFIG, FIGURES, read_config
from ms_sincresnet.models.weights import HYPERPARAMS, WEIGHTS, read_model, write_model
from ms_sincresnet.pretrained.card import Training, song_card

CARD = "README.md"
FILES = (CONFIG, WEIGHTS, HYPERPARAMS, CARD)


def save_model_folder(
    folder: str | PathLike,
    model: GenreModel,
    genres: Iterable[str],
    *,
    clip_samples: int = 48000,
    hop_samples: int = 8000,
    voting: str = "majority",
    full_scale: float = 1.0,
    training: Training | None = None,
    temperature: float | None = None,
    usual_norm: float | None = None,
    half: bool = False,
) -> None:
    """Writes a model folder, or replaces one as a whole.

    ``genres`` are in the order of the model's outputs. ``full_scale`` is its amplitude
    of a full-scale sample: 32768 if it was trained on 16-bit integers. ``half`` rounds
    the weights of convolutions and linear layers to float16. ``temperature`` is that of
    ``fit_temperature``, for this ``voting``. ``usual_norm`` is the 99th percentile of
    the norms of held-out songs' mean embeddings.
    """
    settings: dict[str, Any] = {"genres": list(genres), "clip_samples": clip_samples}
    settings |= {"hop_samples": hop_samples, "voting": voting, "full_scale": full_scale}
    fitted = {"temperature": temperature, "usual_norm": usual_norm}
    settings |= {name: value for name, value in fitted.items() if value is not None}
    if training is not None:
        figures = training.figures and {key: training.figures[key] for key in FIGURES}
        settings["training"] = training._replace(figures=figures)._asdict()
    folder = Path(folder).resolve()
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        new = Path(work) / "new"
        new.mkdir()
        write_model(new, model, settings, half)
        song_card(type(model).__name__, model.config, settings).save(new / CARD)
        if folder.exists():
            folder.rename(Path(work) / "old")
        new.rename(folder)


def check_replaceable(folder: Path) -> None:
    """Raises ``ModelFolderError`` if a new model would replace anything but a model."""
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not is_empty and not is_model_folder(folder):
        reason = "holds something other than a model, which would be lost"
        raise ModelFolderError(f"{folder}: {reason}; name another folder")


def read_model_folder(folder: str | PathLike) -> GenreModel:
    """The model of a folder.

    Arguments
    ---------
    folder
        Holds ``config.json`` and ``model.safetensors``; no more is read, nothing run.

    Returns
    -------
    The model in evaluation mode, with its ``settings``.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> read_model_folder(folder).settings["voting"]
    'majority'
    """
    model = read_model(folder, MODELS)
    if not model.settings:
        advice = f"load the model by {type(model).__name__}.from_pretrained"
        raise ModelFolderError(f"{Path(folder) / CONFIG}: names no genres; {advice}")
    return model


def check_model_folder(folder: str | PathLike) -> None:
    """Raises ``ModelFolderError`` unless SpeechBrain can load a folder by its files."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFolderError(f"{folder}: no such model folder")
    names = (CONFIG, WEIGHTS, HYPERPARAMS)
    if missing := [name for name in names if not (folder / name).is_file()]:
        fault = f"not a complete model folder: {', '.join(missing)} missing"
        advice = "expected the folder `model` that train.py writes"
        raise ModelFolderError(f"{folder}: {fault}; {advice}")
    read_config(folder, MODELS)
    if b"SafetensorsPretrainer" not in (folder / HYPERPARAMS).read_bytes():
        raise ModelFolderError(
            f"{folder / HYPERPARAMS}: written by an earlier version of ms_sincresnet; "
            "load the model by from_pretrained, or write it anew (ms-sincresnet export)"
        )


def is_model_folder(path: str | PathLike) -> bool:
    """True for a folder with the two files of a model."""
    return all((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))
