"""Model folders on the Hub: found, downloaded, described, pushed."""

import hashlib
import logging
import os
from contextlib import contextmanager, suppress
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from ms_sincresnet.errors import ModelFolderError, UserError, WeightsError
from ms_sincresnet.models.config import CONFIG, FORMAT_VERSION, read_config
from ms_sincresnet.models.weights import WEIGHTS, outline
from ms_sincresnet.pretrained.card import read_figures

logger = logging.getLogger(__name__)

# What errors of huggingface_hub mean to who asked, special ones first.
MEANINGS = [
    (
        errors.GatedRepoError,
        "a gated repository (ask for access on its page, then log in by `hf auth "
        "login` or give a token)",
    ),
    (
        errors.RepositoryNotFoundError,
        "no such repository on the Hub, or a private one (then log in by `hf auth "
        "login` or give a token)",
    ),
    (errors.RevisionNotFoundError, "the repository has no such revision"),
    (errors.LocalEntryNotFoundError, "not in the cache, and the Hub is not reached"),
    (
        errors.EntryNotFoundError,
        "the repository lacks a file that models of ms_sincresnet have",
    ),
    (errors.HFValidationError, "not a name that the Hub allows"),
]


def local_path(address, hub_parts):
    """What an address means on this machine, or None: ``user/repository[/file]``.

    SpeechBrain asks the Hub for every folder that it does not find here, a mistyped
    one too.

    Arguments
    ---------
    address : str or pathlib.Path
        The address.
    hub_parts : int
        Parts of an address on the Hub: 2 of a repository, 3 of a file.

    Returns
    -------
    pathlib.Path or None
        The path, or None if it can only be elsewhere.

    Example
    -------
    >>> local_path("no/such/folder", hub_parts=2).parts
    ('no', 'such', 'folder')
    >>> local_path("user/repository", hub_parts=2)
    """
    if not isinstance(address, str | os.PathLike) or "://" in str(address):
        return None
    path = Path(os.path.expanduser(address))
    parts = path.parts
    if (
        isinstance(address, os.PathLike)
        or len(parts) != hub_parts
        or str(address).startswith(".")
        or Path(parts[0]).is_dir()
    ):
        return path
    return None


def fetch(source, *, names=(CONFIG, WEIGHTS), revision=None, **options):
    """The folder of a model: itself, or what was downloaded of a repository.

    All files are of one commit.

    Arguments
    ---------
    source : str or pathlib.Path
        A folder, or the name ``user/repository`` on the Hub.
    names : tuple of str
        The files wanted, of which a folder may lack some; ``config.json`` first.
    revision : str, optional
        Branch, tag or commit.
    **options : dict
        As in ``huggingface_hub.hf_hub_download``: ``token``, ``cache_dir`` …

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ModelFolderError
        If there is no such folder, or the repository or its files cannot be had.

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
                source, name, revision=revision, **options
            )
            revision = Path(file).parent.name  # snapshots/<commit>/config.json
    return Path(file).parent


@contextmanager
def hub_errors(repo):
    """Turns what goes wrong with the Hub into a sentence.

    Arguments
    ---------
    repo : str
        The repository, as the sentence names it.

    Raises
    ------
    ModelFolderError
        Instead of huggingface_hub's errors.

    Example
    -------
    >>> with hub_errors("user/repository"):
    ...     raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: user/repository: the Hub is not reached or \
refuses: HF_HUB_OFFLINE is set
    """
    try:
        yield
    except UserError:
        raise
    except (errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError) as error:
        meanings = (text for kind, text in MEANINGS if isinstance(error, kind))
        meaning = next(meanings, "the Hub is not reached or refuses")
        # The first line says what happened, the others repeat addresses and advice.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFolderError(f"{repo}: {meaning}: {line}") from error


def refuse_model_folder(repo, revision=None, token=None):
    """Raises if a repository holds files for SpeechBrain beside a network's own.

    Arguments
    ---------
    repo : str
        The repository; there may be none yet.
    revision : str, optional
        Branch, tag or commit.
    token : str or bool, optional
        The Hub's token.

    Raises
    ------
    ModelFolderError
        If they are there: a network pushed alone would be another model than they.

    Example
    -------
    >>> from unittest import mock
    >>> with mock.patch.object(huggingface_hub, "file_exists", return_value=True):
    ...     refuse_model_folder("user/repository")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: user/repository: its hyperparams.yaml and \
checkpoints would disagree with a network pushed alone; write a model folder and push \
all of it (ms-sincresnet push)
    """
    if huggingface_hub.file_exists(
        repo, "hyperparams.yaml", revision=revision, token=token
    ):
        raise ModelFolderError(
            f"{repo}: its hyperparams.yaml and checkpoints would disagree with a "
            "network pushed alone; write a model folder and push all of it "
            "(ms-sincresnet push)"
        )


def describe(source, **options):
    """What a model is, without building it.

    Arguments
    ---------
    source : str or pathlib.Path
        A folder, or the name ``user/repository`` on the Hub.
    **options : dict
        As in ``fetch``: ``revision``, ``token``, ``cache_dir`` …

    Returns
    -------
    dict
        ``system``, ``arguments``, ``parameters`` (their number), ``settings`` (genres,
        clips and voting), ``figures`` of its card, and ``sha256`` of its weights.

    Raises
    ------
    ModelFolderError
        If there is no such model, or a fault in its ``config.json``.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> MSSincResNet().save_pretrained(getfixture("tmp_path"))
    >>> describe(getfixture("tmp_path"))["parameters"]
    12494794
    """
    folder = fetch(source, **options)
    if local_path(source, hub_parts=2) is None:
        with suppress(ModelFolderError):  # a card is not needed
            fetch(source, names=["README.md"], **{**options, "revision": folder.name})
    system, arguments, settings = read_config(folder)
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise WeightsError(f"{folder / WEIGHTS}: no such file of weights") from error
    parameters = outline(system, arguments).parameters()
    return {
        "system": system.__name__,
        "arguments": arguments,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "settings": settings,
        "figures": read_figures(folder / "README.md"),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "format_version": FORMAT_VERSION,
    }


def push_folder(
    folder,
    repo,
    *,
    private=None,
    token=None,
    revision=None,
    commit_message="Push a model of ms_sincresnet",
    space=False,
):
    """Pushes a model folder to the Hub: its own files and no others.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.
    repo : str
        The repository, ``user/repository``. It is made if there is none.
    private : bool, optional
        Whether a repository that is made is private; the account's default by default.
    token : str, optional
        The Hub's token; the one of ``hf auth login`` by default.
    revision : str, optional
        Branch, made if there is none.
    commit_message : str
        First line of the commit's message.
    space : bool
        Whether to push a Space, which runs the demo, instead of a model.

    Returns
    -------
    str
        The repository's address.

    Raises
    ------
    ModelFolderError
        If the folder is not complete, if what it holds for SpeechBrain is another model
        than what it holds for ``from_pretrained``, or if the Hub cannot be reached or
        refuses it.

    Example
    -------
    >>> push_folder("results/nowhere", "user/repository")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: results/nowhere: no such model folder
    """
    # Which stands on SpeechBrain; what is above needs none of it, nor its seconds.
    from ms_sincresnet.pretrained.agreement import check_agreement
    from ms_sincresnet.pretrained.model_folder import FILES

    folder = Path(folder).expanduser()
    check_agreement(folder)
    megabytes = sum((folder / name).stat().st_size for name in FILES) / 1e6
    logger.info("%s → %s: %d files, %.0f MB", folder, repo, len(FILES), megabytes)
    kind = "space" if space else "model"
    api = huggingface_hub.HfApi(token=token)
    with hub_errors(repo):
        url = api.create_repo(
            repo,
            private=private,
            repo_type=kind,
            space_sdk="gradio" if space else None,
            exist_ok=True,
        )
        if revision is not None:
            api.create_branch(repo, branch=revision, repo_type=kind, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type=kind,
            revision=revision,
            commit_message=commit_message,
            allow_patterns=[*FILES],
        )
    return str(url)
