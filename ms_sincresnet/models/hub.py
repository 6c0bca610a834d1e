"""Models found on this machine or on the Hub, and the Hub's errors as sentences."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors, is_offline_mode

from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.models.config import CONFIG
from ms_sincresnet.models.weights import WEIGHTS

BUNDLED = Path(__file__).parents[1] / "bundled"  # the model that comes with the package
logger = logging.getLogger(__name__)

LOG_IN = "log in with `hf auth login` or give a token"
EXPLANATIONS = {  # subclasses first
    errors.GatedRepoError: f"a gated repository (ask for access on its page, {LOG_IN})",
    errors.RepositoryNotFoundError: f"no such repository, or a private one ({LOG_IN})",
    errors.RevisionNotFoundError: "the repository has no such revision",
    errors.LocalEntryNotFoundError: "not in the cache, and the Hub is unreachable",
    errors.EntryNotFoundError: "the repository lacks a file that every model has",
    errors.HFValidationError: "not a name that the Hub allows",
}


def local_path(address: str | PathLike, hub_parts: int) -> Path | None:
    """The path that an address means; None for a URL or an address on the Hub.

    ``hub_parts`` is 2 for a repository, ``user/songs``, unless a folder has this name,
    and 3 for a file in it, unless there is a folder ``user``.
    """
    if not isinstance(address, str | os.PathLike) or "://" in str(address):
        return None
    path = Path(os.path.expanduser(address))
    may_be_on_hub = (
        isinstance(address, str)
        and len(path.parts) == hub_parts
        and not address.startswith(".")
        and not (path if hub_parts == 2 else Path(path.parts[0])).is_dir()
    )
    return None if may_be_on_hub else path


def fetch(source: str | PathLike | None = None, **hub_options: Any) -> Path:
    """The folder of a model, downloaded from one commit if it is on the Hub.

    Arguments
    ---------
    source
        A folder, or the name ``user/repository`` or ``user/repository@revision`` on the
        Hub; None: the bundled model.
    **hub_options
        As in huggingface_hub's ``hf_hub_download``.

    Returns
    -------
    The folder.

    Example
    -------
    >>> fetch("no/such/folder")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: no/such/folder: no such model folder
    """
    if source is None:
        return BUNDLED
    folder = local_path(source, hub_parts=2)
    if folder is not None and not folder.is_dir():
        raise ModelFolderError(f"{folder}: no such model folder")
    if folder is not None:
        if isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+/?", source):
            message = "%s: the folder here is taken, not the Hub's repository"
            logger.info(message, source)
        return folder
    source, _, revision = str(source).partition("@")
    if revision:
        hub_options["revision"] = revision
    with hub_errors(f"{source} (no such folder here)"):
        for name in (CONFIG, WEIGHTS):
            file = huggingface_hub.hf_hub_download(source, name, **hub_options)
            hub_options["revision"] = Path(file).parent.name  # snapshots/<commit>
    return Path(file).parent


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turns errors of the Hub into ``ModelFolderError`` with a one-line reason."""
    try:
        yield
    except UserError:
        raise
    except (errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError) as error:
        reasons = [why for kind, why in EXPLANATIONS.items() if isinstance(error, kind)]
        reason = [*reasons, "the Hub is unreachable or refuses"][0]
        offline = errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled
        if isinstance(error, offline) and is_offline_mode():
            reason = "the Hub is not asked, since offline mode (HF_HUB_OFFLINE) is on"
        # The other lines repeat addresses and give advice for other programs.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFolderError(f"{repo}: {reason}: {line}") from error
