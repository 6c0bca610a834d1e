"""A model as files: config.json, model.safetensors, and a yaml for SpeechBrain."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from reprlib import repr as shortened
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from torch.overrides import TorchFunctionMode

from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.files import load_weights, write_json
from ms_sincresnet.models.config import CONFIG, FORMAT, Known, check_config, read_config

WEIGHTS = "model.safetensors"
HYPERPARAMS = "hyperparams.yaml"
TEMPLATES = Path(__file__).with_name("templates")


class _MetaWeights(TorchFunctionMode):
    """Makes layers whose weights have a shape but no memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Diverts ``torch.empty``, by which PyTorch's layers make their weights."""
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **(kwargs or {}) | device)


def build_on_meta(model_class: type, arguments: dict[str, Any]) -> nn.Module:
    """A model without memory for its weights, to look up their names and shapes."""
    with _MetaWeights():
        return model_class(**arguments)


def read_model(folder: str | PathLike, known: Known, **changes: Any) -> Any:
    """The model in a folder, in evaluation mode; ``changes`` replace its arguments."""
    model_class, arguments, settings = read_config(folder, known)
    if unknown := changes.keys() - arguments.keys():
        name = model_class.__name__
        raise TypeError(f"{name} has no saved argument {min(unknown)!r}")
    try:
        outline = build_on_meta(model_class, arguments | changes)
    except ValueError as error:
        raise ModelFolderError(f"{Path(folder) / CONFIG}: {error}") from error
    path = Path(folder) / WEIGHTS
    changed = "".join(f", {key}={value!r}" for key, value in changes.items())
    weights = load_weights(path)
    check_fit(weights, outline.state_dict(), f"{path}: does not fit {CONFIG}{changed}")
    model = model_class(**arguments | changes)
    load_state(model, weights, path)
    model.settings = settings
    return model.eval()


def load_state(model: nn.Module, weights: Mapping[str, Any], path: Path) -> None:
    """Loads weights into a model; an error names their file."""
    check_fit(weights, model.state_dict(), f"{path}: does not fit the model")
    try:
        model.load_state_dict(weights)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def check_fit(
    weights: Mapping[str, Any], expected: Mapping[str, torch.Tensor], context: str
) -> None:
    """Raises ``WeightsError`` unless weights have the expected names and shapes."""
    faults = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    unknown = weights.keys() - expected.keys()
    faults += [f"{shortened(name)} is unknown" for name in unknown]
    for name in weights.keys() & expected.keys():
        shape = list(expected[name].shape)
        found = list(getattr(weights[name], "shape", [None]))  # it may be no tensor
        if found != shape:
            faults.append(f"{name} has shape {found}, expected {shape}")
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise WeightsError(f"{context}: {min(faults)}{more}")


def write_model(
    folder: Path, model: Any, settings: dict[str, Any], half: bool = False
) -> None:
    """Writes a model's files; a model that could not be read again is refused.

    ``half`` rounds the weights of convolutions and linear layers to float16.
    """
    name = type(model).__name__
    config: dict[str, Any] = {"format_version": FORMAT, "system": name}
    if settings:  # the Hub then shows how SpeechBrain loads the model
        config["speechbrain_interface"] = "EncoderClassifier"
    config |= settings | model.config
    layout: Any = {"copy": True, "memory_format": torch.contiguous_format}
    # Copied: weights may share memory, which safetensors refuses.
    weights = {key: x.to("cpu", **layout) for key, x in model.state_dict().items()}
    for key, layer in model.named_modules() if half else ():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weights[f"{key}.weight"] = weights[f"{key}.weight"].half()
    try:
        check_config(config, {name: type(model)})
        expected = build_on_meta(type(model), model.config).state_dict()
        check_fit(weights, expected, "it is not what its config says")
    except ValueError as error:
        raise ModelFolderError(f"the model cannot be saved: {error}") from error
    # Not by save_file, whose file only its owner may read.
    (folder / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
    if settings:
        text = _hyperparams(type(model), model.config, settings)
        (folder / HYPERPARAMS).write_text(text, "utf-8")
    write_json(config, folder / CONFIG)


def _hyperparams(model_class: type, arguments: dict, settings: dict) -> str:
    """The ``hyperparams.yaml`` of a model; its values are JSON, which is YAML too."""
    dumps = partial(json.dumps, ensure_ascii=False)
    known = {"temperature": None, "usual_norm": None, **settings, **arguments}
    values = {name: dumps(value) for name, value in known.items()}
    is_ours = model_class.__module__.startswith("ms_sincresnet.")
    module = "ms_sincresnet" if is_ours else model_class.__module__
    template = Template((TEMPLATES / f"{HYPERPARAMS}.template").read_text("utf-8"))
    return template.substitute(
        values,
        model_class=f"{module}.{model_class.__qualname__}",
        arguments="\n".join(f"    {name}: {values[name]}" for name in arguments),
    )


@contextmanager
def whole_files(folder: str | PathLike) -> Iterator[Path]:
    """A temporary folder whose files replace those in ``folder``, except the card."""
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ModelFolderError(f"{folder}: expected a folder; got a file")
    if (folder / HYPERPARAMS).exists() and not (folder / CONFIG).exists():
        reason = f"its {HYPERPARAMS} does not belong to a model and would be lost"
        raise ModelFolderError(f"{folder}: {reason}; give the model its own folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        yield Path(work)
        folder.mkdir(exist_ok=True)
        # So that a folder half replaced by a killed process is not taken as a model.
        for name in (CONFIG, HYPERPARAMS):
            (folder / name).unlink(missing_ok=True)
        for file in sorted(Path(work).iterdir(), key=lambda file: file.name == CONFIG):
            if file.name != "README.md" or not (folder / file.name).exists():
                file.replace(folder / file.name)
