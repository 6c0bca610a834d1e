"""Checkpoints of the authors' code, github.com/PeiChunChang/MS-SincResNet.

Unlike the paper's, their network has valid padding, a layer norm with a weight and a
bias per sample, global average pooling, one linear layer, and 16-bit integers as input.
"""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from ms_sincresnet.errors import UserError, WeightsError
from ms_sincresnet.files import load_weights
from ms_sincresnet.models import MSSincResNet
from ms_sincresnet.models.weights import check_fit
from ms_sincresnet.pretrained.model_folder import save_model_folder

FULL_SCALE = 32768.0

PREFIXES = {  # theirs and ours
    "layerNorm.": "frontend.clip_norm.",
    **{f"sincNet{n}.0.": f"frontend.banks.{n - 1}." for n in (1, 2, 3)},
    **{f"sincNet{n}.1.": f"frontend.norms.{n - 1}." for n in (1, 2, 3)},
    "resnet.model.": "embedding.trunk.",
    "resnet.model.fc.": "classifier.layers.",
}


def convert_checkpoint(
    path: str | PathLike, folder: str | PathLike, genres: Iterable[str]
) -> Path:
    """Writes a model folder from a checkpoint of the authors; no code in it is run.

    Arguments
    ---------
    path
        ``MS-SincResNet.tar`` or its state dict; kernel lengths are the paper's.
    folder, genres
        Folder to write; names of the genres in the order of the network's outputs.

    Returns
    -------
    The model folder.

    Example
    -------
    >>> convert_checkpoint("nowhere.tar", "model", ["jazz", "rock"])
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.WeightsError: nowhere.tar: no such file of weights
    """
    checkpoint = load_weights(path)
    state: Any = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: its state_dict is a {type(state).__name__}")
    # DataParallel adds a prefix.
    state = {str(name).removeprefix("module."): value for name, value in state.items()}
    model = _rebuild(path, state)
    genres, n_genres = list(genres), model.config["n_genres"]
    if not len(genres) == len(set(genres)) == n_genres:
        raise UserError(
            f"{path}: the network has {n_genres} outputs; expected as many different "
            f"genres; got {len(genres)}: {', '.join(genres)}"
        )
    clips = {"clip_samples": model.config["affine_samples"], "full_scale": FULL_SCALE}
    save_model_folder(folder, model, genres, **clips)
    return Path(folder)


def _rebuild(path: str | PathLike, state: dict[str, Any]) -> MSSincResNet:
    """The authors' network with the weights of a state dict."""
    model = MSSincResNet(
        n_genres=_length(state, "resnet.model.fc.weight", 0) or 10,
        n_filters=_length(state, "sincNet1.0.low_hz_", 0) or 160,
        affine_samples=_length(state, "layerNorm.weight", 1) or 48000,
        padding="valid",
        pooling="avg",
        hidden_size=None,
    ).eval()
    ours = model.state_dict()
    names = {
        prefix + name.removeprefix(our_prefix): name
        for prefix, our_prefix in PREFIXES.items()
        for name in ours
        if name.startswith(our_prefix)
    }
    expected = {theirs: ours[name] for theirs, name in names.items()}
    check_fit(state, expected, f"{path}: not the authors' MS-SincResNet")
    learned = {name: state[theirs] for theirs, name in names.items()}
    model.load_state_dict(ours | learned)
    return model


def _length(state: dict[str, Any], name: str, axis: int) -> int | None:
    """Length of a tensor along an axis; None if there is no such tensor."""
    shape = getattr(state.get(name), "shape", ())
    return shape[axis] if len(shape) > axis else None
