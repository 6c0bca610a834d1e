"""Model folders described, and pushed to the Hub as models or as Spaces."""

import hashlib
import shutil
from importlib.metadata import requires
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import huggingface_hub

import ms_sincresnet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.models import MODELS
from ms_sincresnet.models.config import FORMAT, read_config
from ms_sincresnet.models.hub import fetch, hub_errors
from ms_sincresnet.models.weights import TEMPLATES, WEIGHTS, build_on_meta, write_model
from ms_sincresnet.pretrained import model_folder
from ms_sincresnet.pretrained.model_folder import CARD, FILES


def describe(
    source: str | PathLike | None = None, **hub_options: Any
) -> dict[str, Any]:
    """Facts about a model, found without building it.

    Arguments
    ---------
    source, **hub_options
        As in ``fetch``.

    Returns
    -------
    ``system``, ``arguments``, ``parameters`` (their number), ``settings``, ``sha256``
    of the weights, and ``format_version``.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> MSSincResNet(n_filters=8).save_pretrained(getfixture("tmp_path"))
    >>> describe(getfixture("tmp_path"))["parameters"]
    12492970
    """
    folder = fetch(source, **hub_options)
    model_class, arguments, settings = read_config(folder, MODELS)
    if not (folder / WEIGHTS).is_file():
        raise WeightsError(f"{folder / WEIGHTS}: no such file of weights")
    parameters = build_on_meta(model_class, arguments).parameters()
    return {
        "system": model_class.__name__,
        "arguments": arguments,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "settings": settings,
        "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "format_version": FORMAT,
    }


def push_folder(
    folder: str | PathLike,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Push a model of ms_sincresnet",
    space: bool = False,
) -> str:
    """Pushes a model folder to the Hub: its own files and no others.

    Arguments
    ---------
    folder, repo
        The folder, and the repository ``user/repository``, created if it is missing.
    private, token, revision, commit_message
        As in huggingface_hub; ``revision`` is a branch, created if it is missing.
    space
        Push a Space that runs the demo, with this package's source code, not a model.

    Returns
    -------
    The repository's address.

    Example
    -------
    >>> push_folder("results/nowhere", "user/repository")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: results/nowhere: no such model folder
    """
    folder = Path(folder).expanduser()
    model_folder.check_model_folder(folder)
    if not (folder / CARD).is_file():
        raise ModelFolderError(f"{folder}: {CARD} missing; write the folder anew")
    model = model_folder.read_model_folder(folder)
    api = huggingface_hub.HfApi(token=token)
    kind: Any = {"repo_type": "space" if space else "model"}
    sdk = "gradio" if space else None
    with TemporaryDirectory() as work, hub_errors(repo):
        for name in FILES:
            shutil.copy(folder / name, work)
        if space:
            _add_demo(Path(work), model)
        made: Any = {"exist_ok": True, **kind}
        url = api.create_repo(repo, private=private, space_sdk=sdk, **made)
        if revision is not None:
            api.create_branch(repo, branch=revision, **made)
        about: Any = {"revision": revision, "commit_message": commit_message, **kind}
        api.upload_folder(repo_id=repo, folder_path=work, **about)
    return str(url)


def _add_demo(folder: Path, model: Any) -> None:
    """Makes a copy of a model folder a Space that needs no installed ms_sincresnet."""
    if "backend" in model.config:  # a Space has no compiler for the others
        model.config["backend"] = "fft"
        write_model(folder, model, model.settings)
    shutil.copy(TEMPLATES / "app.py.template", folder / "app.py")
    lines = [
        line.split(";")[0].strip() + "\n"
        for line in requires("ms_sincresnet") or []
        if "extra ==" not in line or 'extra == "demo"' in line
    ]
    (folder / "requirements.txt").write_text("".join(lines), "utf-8")
    package = Path(ms_sincresnet.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "bundled")
    shutil.copytree(package, folder / "ms_sincresnet", ignore=ignore)
