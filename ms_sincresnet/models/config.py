"""config.json: the class and arguments that rebuild a model, and how it takes songs.

The file may come from anyone, so everything in it is checked before it is used.
"""

import inspect
import json
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from reprlib import repr as shortened  # values from elsewhere may be of any length
from typing import Any

from ms_sincresnet import __version__
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.nnet.voting import VOTES

CONFIG = "config.json"
FORMAT_VERSION = 1
SETTINGS = ("genres", "clip_samples", "hop_samples", "voting", "full_scale")
FIGURES = ("song_accuracy", "clip_accuracy", "tracks", "clips", "epoch")

NOT_SAVED = ("self", "weights")  # arguments of a model's constructor
MAY_BE_NONE = ("hidden_size", "affine_samples")
# Generous, but no file from elsewhere can ask for more memory than a machine has.
LEAST = {"sample_rate": 1000}
MOST = {
    "sample_rate": 768_000,
    "n_filters": 2**14,
    "kernel_sizes": 2**15,
    "kernel_size": 2**15,
    "n_frames": 2**16,
    "n_mels": 2**11,
    "window_samples": 2**14,
}
MOST_OF_ALL = 2**24
MOST_BYTES = 2**20  # of a config.json: 10 000 genres and more

Known = Mapping[str, type]  # classes of models by name
Config = tuple[type, dict[str, Any], dict[str, Any]]


def read_config(folder: str | PathLike, known: Known) -> Config:
    """Class, arguments and settings of the model in a folder, checked."""
    folder = Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        hint = ""
        if (folder / "hyperparams.yaml").is_file():
            hint = (
                ". If an earlier version of ms_sincresnet wrote the folder, export the "
                "run again (ms-sincresnet export). GenreClassifier.from_hparams may "
                "load it, but runs whatever its hyperparams.yaml names"
            )
        raise ModelFolderError(f"{folder}: {CONFIG} is missing{hint}")
    if path.stat().st_size > MOST_BYTES:
        raise ModelFolderError(f"{path}: too large to be a {CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not JSON ({error})") from error
    try:
        return check_config(config, known)
    except ValueError as error:
        raise ModelFolderError(f"{path}: {error}") from error


def check_config(config: Any, known: Known) -> Config:
    """Class, arguments and settings in a configuration; ValueError names a fault."""
    if not isinstance(config, dict):
        raise ValueError(f"expected names and values; got {type(config).__name__}")
    version = config.get("format_version")
    if not _is_whole(version):
        raise ValueError(
            f"format_version must be a whole number ≥ 1; got {shortened(version)}"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"format_version is {shortened(version)}, but ms_sincresnet {__version__} "
            f"reads up to {FORMAT_VERSION}; install a newer ms_sincresnet"
        )
    name = config.get("system")
    if not isinstance(name, str) or name not in known:
        raise ValueError(
            f"system is {shortened(name)}, expected {' or '.join(known)}; load it with "
            "its own class"
        )
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(known[name]).parameters.items()
        if key not in NOT_SAVED
    }
    names = {"format_version", "speechbrain_interface", "system", "training"}
    unknown = config.keys() - names - defaults.keys() - set(SETTINGS)
    if unknown:
        raise ValueError(f"unknown names: {shortened(sorted(unknown))}")
    has_settings = bool(config.keys() & {*SETTINGS, "training"})
    needed = [*defaults, *(SETTINGS if has_settings else ())]
    missing = [key for key in needed if key not in config]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    for key, default in defaults.items():
        _check_argument(key, config[key], default)
    arguments = {key: config[key] for key in defaults}
    settings = {key: config[key] for key in SETTINGS if key in config}
    if settings:
        _check_settings(**settings, n_genres=config["n_genres"])
        _check_clip_length(settings["clip_samples"], arguments)
    if "training" in config:
        settings["training"] = _checked_training(config["training"])
    return known[name], arguments, settings


def _is_whole(value: Any, most: float = math.inf, least: int = 1) -> bool:
    """True for a whole number within bounds; False for a bool."""
    return type(value) is int and least <= value <= most


def _check_argument(key: str, value: Any, default: Any) -> None:
    """Raises unless an argument has the type of its default and is within bounds."""
    least, most = LEAST.get(key, 1), MOST.get(key, MOST_OF_ALL)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ValueError(f"{key} must be a word; got {shortened(value)}")
    elif isinstance(default, tuple):
        if not isinstance(value, list) or not all(_is_whole(x, most) for x in value):
            raise ValueError(
                f"{key} must be whole numbers from 1 to {most}; got {shortened(value)}"
            )
    elif not (value is None and key in MAY_BE_NONE or _is_whole(value, most, least)):
        raise ValueError(
            f"{key} must be a whole number from {least} to {most}; got "
            f"{shortened(value)}"
        )


def _check_settings(
    genres: Any,
    clip_samples: Any,
    hop_samples: Any,
    voting: Any,
    full_scale: Any,
    n_genres: int,
) -> None:
    """Raises if songs cannot be cut and voted on with these settings."""
    if (
        not isinstance(genres, list)
        or not all(_is_text(name) for name in genres)
        or not len(genres) == len(set(genres)) == n_genres
    ):
        raise ValueError(
            f"genres must be {n_genres} different names, one for each output; got "
            f"{shortened(genres)}"
        )
    for key, value in [("clip_samples", clip_samples), ("hop_samples", hop_samples)]:
        _check_argument(key, value, default=1)
    if voting not in [*VOTES]:
        raise ValueError(
            f"voting must be one of {', '.join(VOTES)}; got {shortened(voting)}"
        )
    if not _is_number(full_scale) or not 0 < full_scale <= 2.0**31:
        raise ValueError(
            f"full_scale must be a number > 0; got {shortened(full_scale)}"
        )


def _check_clip_length(clip_samples: int, arguments: dict[str, Any]) -> None:
    """Raises unless clips have a length that the model can take."""
    exactly = arguments.get("affine_samples")
    if exactly not in (None, clip_samples):
        raise ValueError(
            f"clip_samples must equal affine_samples, {exactly}; got {clip_samples}"
        )
    valid = arguments.get("padding") == "valid"
    least = max(
        arguments.get("frame_samples", 1),
        2 * arguments.get("window_samples", 0) + 1,
        *(arguments["kernel_sizes"] if valid else ()),
    )
    if clip_samples < least:
        raise ValueError(
            f"clip_samples must be at least {least} for this model; got {clip_samples}"
        )


def _checked_training(training: Any) -> dict[str, Any]:
    """Data set, protocol and figures of a model's training."""
    names = {"dataset", "protocol", "figures"}
    if not isinstance(training, dict) or training.keys() != names:
        raise ValueError(
            f"training must hold {', '.join(sorted(names))}; got {shortened(training)}"
        )
    for key in ("dataset", "protocol"):
        if not _is_text(training[key]):
            raise ValueError(
                f"training's {key} must be text; got {shortened(training[key])}"
            )
    figures = training["figures"]
    if figures is not None and not (
        isinstance(figures, dict)
        and figures.keys() == {*FIGURES}
        and all(_is_number(value) for value in figures.values())
    ):
        raise ValueError(
            f"training's figures must be null or the numbers {', '.join(FIGURES)}; got "
            f"{shortened(figures)}"
        )
    return training


def _is_text(value: Any) -> bool:
    """True for text that can be printed: no control character moves the cursor."""
    return isinstance(value, str) and 0 < len(value) < 1000 and value.isprintable()


def _is_number(value: Any) -> bool:
    """True for a finite number; False for a bool."""
    return type(value) in (int, float) and abs(value) < math.inf
