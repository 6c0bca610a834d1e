"""The paper's authors' own checkpoints as model folders.

Their code, github.com/PeiChunChang/MS-SincResNet, saves a dict with ``state_dict``:
the network of the paper but for valid padding, a layer norm with a weight and a bias
for each sample of a clip, global average pooling and one linear layer, trained on
samples as large as 16-bit integers are.
"""

from pathlib import Path

import torch

from ms_sincresnet.errors import UserError, WeightsError
from ms_sincresnet.models.architectures import MSSincResNet
from ms_sincresnet.pretrained.model_folder import save_model_folder

FULL_SCALE = 32768.0

# Theirs and ours.
PREFIXES = {
    "layerNorm.": "frontend.clip_norm.",
    **{f"sincNet{n}.0.": f"frontend.banks.{n - 1}." for n in (1, 2, 3)},
    **{f"sincNet{n}.1.": f"frontend.norms.{n - 1}." for n in (1, 2, 3)},
    "resnet.model.": "embedding.trunk.",
    "resnet.model.fc.": "classifier.layers.",
}


def convert_checkpoint(path, folder, genres):
    """Writes a model folder from a checkpoint of the authors' released code.

    Nothing that the file may hold besides tensors is loaded, and no code of it run.

    Arguments
    ---------
    path : str or pathlib.Path
        The checkpoint, ``MS-SincResNet.tar``: a dict with ``state_dict``, or a state
        dict alone. Its kernels are taken to have the 251, 501 and 1001 taps of the
        paper, which the weights do not tell.
    folder : str or pathlib.Path
        The model folder to write.
    genres : list of str
        Names of the genres in the order of the network's outputs, which the checkpoint
        does not tell either.

    Returns
    -------
    pathlib.Path
        The model folder.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or not such a checkpoint.
    UserError
        If the genres are not as many as the network's outputs.
    ModelFolderError
        If the folder holds something else than a model, which would be lost.

    Example
    -------
    >>> convert_checkpoint("nowhere.tar", "model", ["jazz", "rock"])
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.WeightsError: nowhere.tar: no such checkpoint
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


def _read_state(path):
    """The state dict of a checkpoint; its keys without DataParallel's prefix."""
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes provoke
        # Its text is not quoted: it advises to run whatever the file holds.
        raise WeightsError(
            f"{path}: not a checkpoint of tensors, as torch.save writes it; nothing in "
            "it was run"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WeightsError(
            f"{path}: expected a dict of tensors by name; got a {type(state).__name__}"
        )
    if all(str(name).startswith("module.") for name in state):
        state = {str(name)[len("module.") :]: value for name, value in state.items()}
    return state


def _rebuild(path, state):
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
    faults = [f"{name} is missing" for name in names if name not in state]
    faults += [f"{name} is unknown" for name in state if name not in names]
    for theirs, name in names.items():
        found, expected = _shape(state.get(theirs)), list(ours[name].shape)
        if theirs in state and found != expected:
            faults.append(f"{theirs} has shape {found}, expected {expected}")
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise WeightsError(
            f"{path}: not a checkpoint of the authors' MS-SincResNet: {faults[0]}{more}"
        )
    weights = {name: state[theirs] for theirs, name in names.items()}
    model.load_state_dict(ours | weights)
    return model


def _shape(value):
    """The shape of a tensor as a list; None of anything else."""
    return list(value.shape) if isinstance(value, torch.Tensor) else None


def _length(state, name, axis):
    """Length of a tensor along an axis; None if there is no such tensor."""
    shape = _shape(state.get(name)) or []
    return shape[axis] if len(shape) > axis else None
