"""A network as two files: what rebuilds it and what it learned. No code, no pickle.

``config.json`` is read by ``config.py``; ``model.safetensors`` holds the weights.
"""

import json
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as in_short
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.overrides import TorchFunctionMode

from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.models.config import (
    CONFIG,
    FORMAT_VERSION,
    check_config,
    read_config,
)

WEIGHTS = "model.safetensors"


class _WithoutMemory(TorchFunctionMode):
    """Layers get weights that have a shape and no memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Diverts ``torch.empty``, by which PyTorch's layers make their weights."""
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **device})


def outline(system, arguments):
    """A network without the memory that its weights take, for their names and shapes.

    Arguments
    ---------
    system : type
        The class, such as ``MSSincResNet``.
    arguments : dict
        The arguments that rebuild the network.

    Returns
    -------
    GenreModel
        The network, which cannot compute.

    Raises
    ------
    ValueError
        If the class refuses the arguments.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> network = outline(MSSincResNet, {"hidden_size": 2**40})
    >>> network.classifier.layers[0].weight.shape
    torch.Size([1099511627776, 2560])
    """
    with _WithoutMemory():
        return system(**arguments)


def read_network(folder, system=None, **changes):
    """Builds a network from its two files.

    Arguments
    ---------
    folder : str or pathlib.Path
        Holds ``config.json`` and ``model.safetensors``.
    system : type, optional
        The class that it must be; any of Table 1's systems otherwise.
    **changes : dict
        Arguments that replace the saved ones, such as ``backend``.

    Returns
    -------
    GenreModel
        The network in evaluation mode, with its ``settings``.

    Raises
    ------
    ModelFolderError
        If there is a fault in ``config.json``.
    WeightsError
        If the weights are missing, cannot be read or do not fit.
    TypeError
        If ``changes`` names no argument of the network.

    Example
    -------
    >>> from ms_sincresnet import SincNet
    >>> model = SincNet(n_filters=8)
    >>> model.save_pretrained(getfixture("tmp_path"))
    >>> read_network(getfixture("tmp_path")).config == model.config
    True
    """
    system, arguments, settings = read_config(folder, system)
    for key in changes:
        if key not in arguments:
            raise TypeError(f"{system.__name__} has no saved argument {key!r}")
    path = Path(folder) / WEIGHTS
    try:
        expected = outline(system, arguments | changes).state_dict()
    except ValueError as error:
        raise ModelFolderError(f"{Path(folder) / CONFIG}: {error}") from error
    weights = _read_weights(path, expected, changes)
    model = system(**arguments | changes)
    try:
        model.load_state_dict(weights)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    model.settings = settings
    return model.eval()


def _read_weights(path, expected, changes):
    """Reads the weights, once names and shapes are seen to be the expected ones."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            shapes = {name: file.get_slice(name).get_shape() for name in names}
            misfit = _misfit(shapes, expected)
            if not misfit:
                return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a safetensors file, or not all of it ({error})"
        ) from error
    changed = "".join(f", {key}={value!r}" for key, value in changes.items())
    raise WeightsError(f"{path}: does not fit {CONFIG}{changed}: {misfit}")


def _misfit(shapes, expected):
    """What does not fit among names and shapes of weights; empty if all do."""
    faults = [f"{name} is missing" for name in expected.keys() - shapes.keys()]
    faults += [
        f"{in_short(name)} is unknown" for name in shapes.keys() - expected.keys()
    ]
    faults += [
        f"{name} has shape {shapes[name]}, expected {list(expected[name].shape)}"
        for name in shapes.keys() & expected.keys()
        if shapes[name] != list(expected[name].shape)
    ]
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return min(faults) + more if faults else ""


def write_network(folder, model, settings, **about):
    """Writes a network's two files into a folder.

    Arguments
    ---------
    folder : pathlib.Path
        The folder, which is there.
    model : GenreModel
        The network.
    settings : dict
        As ``read_config`` returns them.
    **about : dict
        What else ``config.json`` says: ``speechbrain_interface``.

    Raises
    ------
    ModelFolderError
        If what would be written could not be read: the model's ``config`` no longer
        describes it, for instance.

    Example
    -------
    >>> from ms_sincresnet import SincNet
    >>> folder = getfixture("tmp_path")
    >>> write_network(folder, SincNet(n_filters=8), {})
    >>> sorted(path.name for path in folder.iterdir())
    ['config.json', 'model.safetensors']
    """
    system = type(model)
    about = {"format_version": FORMAT_VERSION, **about, "system": system.__name__}
    config = about | settings | model.config
    try:
        _, arguments, _ = check_config(config, system)
    except ValueError as error:
        raise ModelFolderError(f"the model cannot be saved: {error}") from error
    # Neither shared between names nor with the channels last, as safetensors wants it.
    row_major = torch.contiguous_format
    weights = {
        name: value.detach().to("cpu", copy=True, memory_format=row_major)
        for name, value in model.state_dict().items()
    }
    shapes = {name: list(value.shape) for name, value in weights.items()}
    misfit = _misfit(shapes, outline(system, arguments).state_dict())
    if misfit:
        raise ModelFolderError(f"the model is not what its config says: {misfit}")
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    # Not by save_file, whose file no one else may read.
    (folder / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))


@contextmanager
def whole_files(folder):
    """A folder for new files, which go into ``folder`` when all went well.

    A ``README.md`` that is there already stays.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the files go: a new folder, or one without a model of SpeechBrain's.

    Yields
    ------
    pathlib.Path
        Where to write them.

    Raises
    ------
    ModelFolderError
        If there is a model of SpeechBrain's, with which they would disagree, or a file.

    Example
    -------
    >>> with whole_files(getfixture("tmp_path") / "model") as new:
    ...     _ = (new / "config.json").write_text("{}")
    >>> [path.name for path in (getfixture("tmp_path") / "model").iterdir()]
    ['config.json']
    """
    folder = Path(folder).expanduser().resolve()
    if (folder / "hyperparams.yaml").exists():
        raise ModelFolderError(
            f"{folder}: its hyperparams.yaml and checkpoints would disagree with a new "
            "network; save into a folder of its own, or write all of a model folder by "
            "ms_sincresnet.pretrained.model_folder.save_model_folder"
        )
    if folder.exists() and not folder.is_dir():
        raise ModelFolderError(f"{folder}: a file, where a folder was expected")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        yield Path(work)
        folder.mkdir(exist_ok=True)
        # Without it, a folder that a kill leaves half replaced is not taken for whole.
        (folder / CONFIG).unlink(missing_ok=True)
        for file in sorted(Path(work).iterdir(), key=lambda file: file.name == CONFIG):
            if file.name != "README.md" or not (folder / file.name).exists():
                file.replace(folder / file.name)
