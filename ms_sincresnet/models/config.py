"""config.json: what rebuilds a network, as data that is checked before it is used.

The system's name, its arguments and, of a model for songs, how these are cut and voted
on. It may come from anyone.
"""

import inspect
import json
import math
from pathlib import Path
from reprlib import repr as in_short  # values from elsewhere may be of any length

from ms_sincresnet import __version__
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.models.architectures import MODELS
from ms_sincresnet.nnet.voting import VOTES

CONFIG = "config.json"
FORMAT_VERSION = 1
SETTINGS = ("genres", "clip_samples", "hop_samples", "voting", "full_scale")

NOT_SAVED = ("self", "weights")  # of a system's arguments
MAY_BE_NONE = ("hidden_size", "affine_samples")
# Generous, so that a file from elsewhere can ask for no more memory than there is.
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


def read_config(folder, system=None):
    """Reads what rebuilds a network, and checks all of it.

    Arguments
    ---------
    folder : str or pathlib.Path
        Holds ``config.json``.
    system : type, optional
        The class that it must name; any of Table 1's systems otherwise.

    Returns
    -------
    system : type
        The class that it names.
    arguments : dict
        The arguments that rebuild the network.
    settings : dict
        ``genres``, ``clip_samples``, ``hop_samples``, ``voting`` and ``full_scale``;
        empty for a network that was saved without.

    Raises
    ------
    ModelFolderError
        If the file is missing, newer than this package, for another system, or holds
        a name or value that it should not.

    Example
    -------
    >>> from ms_sincresnet import SincNet
    >>> SincNet(n_filters=8).save_pretrained(getfixture("tmp_path"))
    >>> system, arguments, settings = read_config(getfixture("tmp_path"))
    >>> system.__name__, arguments["n_filters"], settings
    ('SincNet', 8, {})
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        hint = ""
        if (Path(folder) / "hyperparams.yaml").is_file():
            hint = (
                ". It is of an earlier version, or no model of this package: export "
                "it again (ms-sincresnet export) or, if you trust it, load it by "
                "GenreClassifier.from_hparams, which runs what its yaml names"
            )
        raise ModelFolderError(f"{folder}: no {CONFIG} there{hint}")
    if path.stat().st_size > MOST_BYTES:
        raise ModelFolderError(f"{path}: too large to be a {CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not json ({error})") from error
    try:
        return check_config(config, system)
    except ValueError as error:
        raise ModelFolderError(f"{path}: {error}") from error


def check_config(config, system=None):
    """Checks what a ``config.json`` holds.

    Arguments
    ---------
    config : dict
        What it holds.
    system : type, optional
        The class that it must name; any of Table 1's systems otherwise.

    Returns
    -------
    system : type
        As ``read_config``.
    arguments : dict
        As ``read_config``.
    settings : dict
        As ``read_config``.

    Raises
    ------
    ValueError
        Naming the first fault.

    Example
    -------
    >>> check_config({"format_version": 0})
    Traceback (most recent call last):
    ...
    ValueError: format_version must be a number ≥ 1; got 0
    """
    if not isinstance(config, dict):
        raise ValueError(f"expected names and values; got a {type(config).__name__}")
    version = config.get("format_version")
    if not _is_whole(version):
        raise ValueError(
            f"format_version must be a number ≥ 1; got {in_short(version)}"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"its format_version is {in_short(version)}, and ms_sincresnet "
            f"{__version__} reads up to {FORMAT_VERSION}; pip install -U ms_sincresnet"
        )
    name = config.get("system")
    known = [*MODELS] if system is None else [system.__name__]
    if name not in known:
        hint = ""
        if name in [*MODELS]:
            hint = f"; load it by {name}.from_pretrained, or GenreClassifier's"
        raise ValueError(
            f"its system is {in_short(name)}, expected {' or '.join(known)}{hint}"
        )
    system = system or MODELS[name]
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(system.__init__).parameters.items()
        if key not in NOT_SAVED
    }
    about = {"format_version", "speechbrain_interface", "system"}
    unknown = config.keys() - about - defaults.keys() - set(SETTINGS)
    if unknown:
        raise ValueError(f"unknown names: {in_short(sorted(unknown))}")
    wanted = [*defaults, *(SETTINGS if config.keys() & set(SETTINGS) else ())]
    missing = [key for key in wanted if key not in config]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for key, default in defaults.items():
        _check_argument(key, config[key], default)
    arguments = {key: config[key] for key in defaults}
    settings = {key: config[key] for key in SETTINGS if key in config}
    if settings:
        _check_settings(**settings, n_genres=config["n_genres"])
        _check_clip(settings["clip_samples"], arguments)
    return system, arguments, settings


def _is_whole(value, most=math.inf, least=1):
    """Whether a value is a whole number within bounds; True is none."""
    return type(value) is int and least <= value <= most


def _check_argument(key, value, default):
    """Raises if an argument is not what its default is like."""
    least, most = LEAST.get(key, 1), MOST.get(key, MOST_OF_ALL)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ValueError(f"{key} must be a word; got {in_short(value)}")
    elif isinstance(default, tuple):
        if not isinstance(value, list) or not all(_is_whole(x, most) for x in value):
            raise ValueError(
                f"{key} must be whole numbers from 1 to {most}; got {in_short(value)}"
            )
    elif not (value is None and key in MAY_BE_NONE or _is_whole(value, most, least)):
        raise ValueError(
            f"{key} must be a whole number from {least} to {most}; got "
            f"{in_short(value)}"
        )


def _check_settings(genres, clip_samples, hop_samples, voting, full_scale, n_genres):
    """Raises if songs cannot be cut, or voted on, as is said."""
    if (
        not isinstance(genres, list)
        # Names are printed: none may move the cursor.
        or not all(isinstance(name, str) and name.isprintable() for name in genres)
        or not len(genres) == len(set(genres)) == n_genres
        or "" in genres
    ):
        raise ValueError(
            f"genres must be {n_genres} different names, one an output; got "
            f"{in_short(genres)}"
        )
    for key, value in [("clip_samples", clip_samples), ("hop_samples", hop_samples)]:
        _check_argument(key, value, default=1)
    if voting not in [*VOTES]:
        raise ValueError(
            f"voting must be one of {', '.join(VOTES)}; got {in_short(voting)}"
        )
    if type(full_scale) not in (int, float) or not 0 < full_scale <= 2.0**31:
        raise ValueError(f"full_scale must be a number > 0; got {in_short(full_scale)}")


def _check_clip(clip_samples, arguments):
    """Raises if a clip is not as long as the network needs it."""
    exactly = arguments.get("affine_samples")
    if exactly not in (None, clip_samples):
        raise ValueError(
            f"clip_samples must be the affine_samples, {exactly}; got {clip_samples}"
        )
    valid = arguments.get("padding") == "valid"
    least = max(
        arguments.get("frame_samples", 1),
        2 * arguments.get("window_samples", 0) + 1,
        *(arguments["kernel_sizes"] if valid else ()),
    )
    if clip_samples < least:
        raise ValueError(
            f"clip_samples must be at least {least} for this network; got "
            f"{clip_samples}"
        )
