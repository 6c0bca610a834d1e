"""Checkpoints of the paper's authors, converted to model folders.

Their code, github.com/PeiChunChang/MS-SincResNet, saves a dict with ``state_dict``:
the paper's network, except for valid padding, a layer norm with a weight and a bias
for each sample of a clip, global average pooling and one linear layer. It was trained
on samples in the range of 16-bit integers.
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
    """Writes a model folder from a checkpoint of the authors' released code.

    Only tensors are loaded from the file, and no code in it is run.

    Arguments
    ---------
    path
        The checkpoint, ``MS-SincResNet.tar``, or its state dict alone. The weights do
        not show the kernels' lengths, so the paper's are assumed.
    folder
        The model folder to write.
    genres
        Names of the genres, in the order of the network's outputs.

    Returns
    -------
    The model folder.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or not such a checkpoint.
    UserError
        If the number of genres is not that of the network's outputs.
    ModelFolderError
        If the folder holds anything but a model, which would be lost.

    Example
    -------
    >>> convert_checkpoint("nowhere.tar", "model", ["jazz", "rock"])
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.WeightsError: nowhere.tar: no such file of weights
    """
    model = _rebuild(path, _read_state(path))
    genres, n_genres = list(genres), model.config["n_genres"]
    if not len(genres) == len(set(genres)) == n_genres:
        raise UserError(
            f"{path}: the network has {n_genres} outputs; expected as many different "
            f"names of genres, in their order; got {len(genres)}: {', '.join(genres)}"
        )
    save_model_folder(
        folder,
        model,
        genres,
        clip_samples=model.config["affine_samples"],
        full_scale=FULL_SCALE,
    )
    return Path(folder)


def _read_state(path: str | PathLike) -> dict[str, Any]:
    """State dict of a checkpoint, without the prefix of DataParallel."""
    checkpoint = load_weights(path)
    state: Any = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, dict):
        raise WeightsError(
            f"{path}: expected a dict of tensors by name; got {type(state).__name__}"
        )
    if all(str(name).startswith("module.") for name in state):
        state = {str(name).removeprefix("module."): x for name, x in state.items()}
    return state


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
    model.load_state_dict(
        ours | {name: state[theirs] for theirs, name in names.items()}
    )
    return model


def _length(state: dict[str, Any], name: str, axis: int) -> int | None:
    """Length of a tensor along an axis; None if there is no such tensor."""
    shape = getattr(state.get(name), "shape", ())
    return shape[axis] if len(shape) > axis else None
