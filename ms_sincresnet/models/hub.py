"""Models found on this machine or on the Hub, and the Hub's errors as sentences."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.models.config import CONFIG
from ms_sincresnet.models.weights import WEIGHTS

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
    """The path that an address means; None for ``user/repository[/file]`` or a URL.

    ``hub_parts`` is 2 for a repository and 3 for a file in one. SpeechBrain asks the
    Hub for every folder that does not exist, a mistyped one too.
    """
    if not isinstance(address, str | os.PathLike) or "://" in str(address):
        return None
    path = Path(os.path.expanduser(address))
    if (
        isinstance(address, os.PathLike)
        or len(path.parts) != hub_parts
        or str(address).startswith(".")
        or Path(path.parts[0]).is_dir()
    ):
        return path
    return None


def fetch(
    source: str | PathLike,
    *,
    names: Sequence[str] = (CONFIG, WEIGHTS),
    revision: str | None = None,
    **options: Any,
) -> Path:
    """The folder of a model, downloaded if it is on the Hub; all files of one commit.

    Arguments
    ---------
    source
        A folder, or the name ``user/repository`` on the Hub.
    names
        Files to download.
    revision, **options
        As in huggingface_hub's ``hf_hub_download``.

    Returns
    -------
    The folder, which may lack the files if it is ``source`` itself.

    Example
    -------
    >>> fetch("no/such/folder")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: no/such/folder: no such model folder
    """
    folder = local_path(source, hub_parts=2)
    if folder is not None:
        if not folder.is_dir():
            raise ModelFolderError(f"{folder}: no such model folder")
        return folder
    with hub_errors(f"{source} (no such folder here)"):
        for name in names:
            file = huggingface_hub.hf_hub_download(
                str(source), name, revision=revision, **options
            )
            revision = Path(file).parent.name  # snapshots/<commit>/config.json
    return Path(file).parent


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turns errors of the Hub into ``ModelFolderError`` with a one-line reason."""
    try:
        yield
    except UserError:
        raise
    except (errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError) as error:
        reasons = (
            text for kind, text in EXPLANATIONS.items() if isinstance(error, kind)
        )
        reason = next(reasons, "the Hub is unreachable or refuses")
        # The other lines repeat addresses and give advice for other programs.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFolderError(f"{repo}: {reason}: {line}") from error
