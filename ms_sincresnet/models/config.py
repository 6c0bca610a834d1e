"""config.json: the class and arguments that rebuild a model, and how it takes songs.

The file may come from anyone, so everything in it is checked before it is used.
"""

import inspect
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from reprlib import repr as shortened  # values from elsewhere may be of any length
from typing import Any

from ms_sincresnet import __version__
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.files import read_json
from ms_sincresnet.nnet.voting import VOTES

CONFIG = "config.json"
FORMAT = 1
SETTINGS = ("genres", "clip_samples", "hop_samples", "voting", "full_scale")
OPTIONAL = ("temperature", "training", "usual_norm")
FIGURES = ("song_accuracy", "clip_accuracy", "tracks", "clips", "epoch")

ADDED_LATER = ("parametrization",)  # older configs mean the default
NOT_SAVED = ("self", "__class__", "weights")  # arguments of a model's constructor
MAY_BE_NONE = ("hidden_size", "affine_samples")
# Generous, but no file from elsewhere can ask for more memory than a machine has.
MOST = {"n_filters": 2**14, "kernel_sizes": 2**15, "kernel_size": 2**15}
MOST |= {"n_frames": 2**16, "n_mels": 2**11, "window_samples": 2**14}
MOST |= {"sample_rate": 768_000}
LEAST = {"sample_rate": 1000}
MOST_BYTES = 2**20  # of a config.json: 10 000 genres and more

Known = Mapping[str, type]  # classes of models by name
Config = tuple[type, dict[str, Any], dict[str, Any]]


def read_config(folder: str | PathLike, known: Known) -> Config:
    """Class, arguments and settings of the model in a folder, checked."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        is_old = path.with_name("hyperparams.yaml").is_file()
        hint = "; export the run again (ms-sincresnet export)" if is_old else ""
        raise ModelFolderError(f"{folder}: {CONFIG} is missing{hint}")
    if path.stat().st_size > MOST_BYTES:
        raise ModelFolderError(f"{path}: too large to be a {CONFIG}")
    try:
        return check_config(read_json(path), known)
    except (ValueError, RecursionError) as error:  # not JSON, or faulty
        raise ModelFolderError(f"{path}: {error}") from error


def check_config(config: Any, known: Known) -> Config:
    """Class, arguments and settings in a configuration; ValueError names a fault."""
    if not isinstance(config, dict):
        raise ValueError(f"expected names and values; got {type(config).__name__}")
    version: Any = config.get("format_version")
    _require("format_version", version, _is_whole(version), "a whole number ≥ 1")
    if version > FORMAT:
        newest = (
            f"ms_sincresnet {__version__} reads up to {FORMAT}: install a newer one"
        )
        raise ValueError(f"format_version is {shortened(version)}; {newest}")
    name: Any = config.get("system")
    _require("system", name, name in list(known), " or ".join(known))
    parameters = inspect.signature(known[name]).parameters
    names = [key for key in parameters if key not in NOT_SAVED]
    defaults = {key: parameters[key].default for key in names}
    others = {"format_version", "speechbrain_interface", "system", *OPTIONAL}
    if unknown := config.keys() - others - defaults.keys() - set(SETTINGS):
        raise ValueError(f"unknown names: {shortened(sorted(unknown))}")
    settings = {key: config[key] for key in (*SETTINGS, *OPTIONAL) if key in config}
    config = {key: defaults[key] for key in ADDED_LATER if key in defaults} | config
    needed = {*defaults, *(SETTINGS if settings else ())}
    if missing := needed - config.keys():
        raise ValueError(f"{', '.join(sorted(missing))} missing")
    for key, default in defaults.items():
        _check_argument(key, config[key], default)
    arguments = {key: config[key] for key in defaults}
    if settings:
        _check_settings(settings, arguments)
    return known[name], arguments, settings


def _require(key: str, value: Any, fits: bool, expected: str) -> None:
    """Raises unless a value fits what is expected."""
    if not fits:
        raise ValueError(f"{key} must be {expected}; got {shortened(value)}")


def _check_argument(key: str, value: Any, default: Any) -> None:
    """Raises unless an argument has the type of its default and is within bounds."""
    least, most = LEAST.get(key, 1), MOST.get(key, 2**24)
    if isinstance(default, str):
        _require(key, value, isinstance(value, str), "a word")
    elif isinstance(default, tuple):
        fits = isinstance(value, list) and all(_is_whole(x, most) for x in value)
        _require(key, value, fits, f"whole numbers from 1 to {most}")
    else:
        fits = _is_whole(value, most, least) or (value is None and key in MAY_BE_NONE)
        _require(key, value, fits, f"a whole number from {least} to {most}")


def _check_settings(settings: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Raises if songs cannot be cut and voted on with these settings."""
    genres, n_genres = settings["genres"], arguments["n_genres"]
    fits = isinstance(genres, list) and all(_is_text(name) for name in genres)
    fits = fits and len(genres) == len(set(genres)) == n_genres
    _require("genres", genres, fits, f"{n_genres} different names, one per output")
    for key in ("clip_samples", "hop_samples"):
        _check_argument(key, settings[key], default=1)
    voting, scale = settings["voting"], settings["full_scale"]
    _require("voting", voting, voting in [*VOTES], f"one of {', '.join(VOTES)}")
    fits = _is_number(scale) and 0 < scale <= 2.0**31
    _require("full_scale", scale, fits, "a number > 0")
    for key in ("temperature", "usual_norm"):
        value = settings.get(key, 1)
        fits = _is_number(value) and 0.001 <= value <= 1000
        _require(key, value, fits, "a number from 0.001 to 1000")
    clip_samples, exactly = settings["clip_samples"], arguments.get("affine_samples")
    fits = exactly in (None, clip_samples)
    _require("clip_samples", clip_samples, fits, f"{exactly}, as affine_samples is")
    least = max(
        arguments.get("frame_samples", 1),
        2 * arguments.get("window_samples", 0) + 1,
        *(arguments["kernel_sizes"] if arguments.get("padding") == "valid" else ()),
    )
    fits = clip_samples >= least
    _require("clip_samples", clip_samples, fits, f"at least {least} for this model")
    if "training" not in settings:
        return
    training = settings["training"]
    fits = isinstance(training, dict) and (
        training.keys() == {"dataset", "protocol", "figures"}
        and all(_is_text(training[key]) for key in ("dataset", "protocol"))
    )
    _require("training", training, fits, "dataset and protocol as text, and figures")
    figures = training["figures"]
    fits = figures is None or (
        isinstance(figures, dict)
        and figures.keys() == {*FIGURES}
        and all(_is_number(value) for value in figures.values())
    )
    _require("figures", figures, fits, f"null, or the numbers {', '.join(FIGURES)}")


def _is_whole(value: Any, most: float = math.inf, least: int = 1) -> bool:
    """True for a whole number within bounds; False for a bool."""
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    """True for a finite number; False for a bool."""
    return type(value) in (int, float) and abs(value) < math.inf


def _is_text(value: Any) -> bool:
    """True for text that can be printed: no control character moves the cursor."""
    return isinstance(value, str) and 0 < len(value) < 1000 and value.isprintable()
