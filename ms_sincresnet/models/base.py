"""GenreModel: what the models of Table 1 share, and their way to the Hub and back."""

from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from ms_sincresnet.models.config import NOT_SAVED
from ms_sincresnet.models.hub import fetch, hub_errors
from ms_sincresnet.models.weights import TEMPLATES, read_model, whole_files, write_model

TAGS = ["music", "music-genre-classification", "audio", "sincnet", "resnet"]


class GenreModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ms_sincresnet",
    license="apache-2.0",
    pipeline_tag="audio-classification",
    tags=[*TAGS],
    model_card_template=(TEMPLATES / "network_card.md.template").read_text("utf-8"),
):
    """Front-end, embedding and classifier in sequence; also a model of the Hub.

    A subclass sets ``frontend``, ``embedding`` and ``classifier``. Saved, it is
    ``config.json`` and ``model.safetensors``: no pickle and no code.

    Arguments
    ---------
    arguments
        ``locals()`` of the subclass's constructor.

    Attributes
    ----------
    config
        The arguments that rebuild the model.
    settings
        For a model of songs, ``genres``, ``clip_samples``, ``hop_samples``, ``voting``,
        ``full_scale`` and, if known, ``training``; else empty.

    Example
    -------
    >>> import torch
    >>> model = GenreModel()
    >>> model.frontend = model.embedding = nn.Identity()
    >>> model.classifier = nn.Linear(3, 10)
    >>> model(torch.randn(2, 1, 3)).shape
    torch.Size([2, 10])
    """

    frontend: nn.Module
    embedding: nn.Module
    classifier: nn.Module

    def __init__(self, arguments: dict[str, Any] | None = None):
        super().__init__()
        self.config: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in (arguments or {}).items()
            if name not in (*NOT_SAVED, "__class__")
        }
        self.settings: dict[str, Any] = {}

    def forward(self, wavs: Tensor) -> Tensor:
        """Log-posteriors of a batch of clips.

        Arguments
        ---------
        wavs
            Clips [batch, time] at the model's sample rate, on any scale.

        Returns
        -------
        Log-posteriors [batch, n_genres].
        """
        return self.classifier(self.embedding(self.frontend(wavs)))[:, 0]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | PathLike | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ):
        """Loads a model from a folder or from a repository of the Hub.

        Only ``config.json`` and ``model.safetensors`` are read, and no code is run, so
        they may come from anyone.

        Arguments
        ---------
        pretrained_model_name_or_path
            A folder, or the name ``user/repository`` on the Hub.
        force_download, token, cache_dir, local_files_only, revision
            As in huggingface_hub's ``hf_hub_download``.
        **model_kwargs
            Arguments of the class that replace the saved ones, such as ``backend``.

        Returns
        -------
        The model in evaluation mode, on the CPU.

        Raises
        ------
        ModelFolderError
            If there is no such model, or it is of another class.
        WeightsError
            If the weights are damaged or do not fit.
        """
        folder = fetch(
            pretrained_model_name_or_path,
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        return read_model(folder, {cls.__name__: cls}, **model_kwargs)

    def save_pretrained(
        self,
        save_directory: str | PathLike,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Any,
    ) -> str | None:
        """Writes ``config.json`` and ``model.safetensors``, or nothing.

        A model with ``settings`` also gets the ``hyperparams.yaml`` by which
        SpeechBrain loads it, but its ``training`` is left out: the weights may have
        changed since. ``README.md`` is written unless there is one.

        Arguments
        ---------
        save_directory
            The folder.
        push_to_hub, repo_id, **options
            Push the model as well, to a repository named like the folder by default.

        Returns
        -------
        The commit's address if the model was pushed.

        Raises
        ------
        ModelFolderError
            If the model is not what its ``config`` says, or other files would be lost.
        """
        settings = {k: v for k, v in self.settings.items() if k != "training"}
        with whole_files(save_directory) as folder:
            write_model(folder, self, settings)
            name = type(self).__name__
            card = self.generate_model_card(name=name, **self.config)
            card.save(folder / "README.md")
        if push_to_hub:
            return self.push_to_hub(repo_id or Path(save_directory).name, **options)
        return None

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Pushes the files of ``save_pretrained`` to the Hub.

        Arguments
        ---------
        repo_id
            The repository, ``user/repository``; it is created if it does not exist.
        **options
            As in huggingface_hub's mixin: ``private``, ``branch``, ``commit_message`` …

        Returns
        -------
        The commit's address.

        Raises
        ------
        ModelFolderError
            If the Hub is unreachable or refuses.
        """
        with hub_errors(repo_id):
            return super().push_to_hub(repo_id, **options)
