"""GenreModel: the base class of Table 1's models, which the Hub knows."""

from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from ms_sincresnet.models.config import NOT_SAVED, OPTIONAL
from ms_sincresnet.models.hub import fetch, hub_errors
from ms_sincresnet.models.weights import TEMPLATES, read_model, whole_files, write_model

HUB_OPTIONS = {"cache_dir", "force_download", "local_files_only", "revision", "token"}


class GenreModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ms_sincresnet",
    license="apache-2.0",
    pipeline_tag="audio-classification",
    tags=["music", "music-genre-classification", "audio", "sincnet", "resnet"],
    model_card_template=(TEMPLATES / "network_card.md.template").read_text("utf-8"),
):
    """Front-end, embedding and classifier in sequence; also a model of the Hub.

    A subclass passes ``locals()`` of its constructor and sets the three parts.
    ``config`` holds the arguments that rebuild it, and a model of songs has
    ``settings``: ``genres``, ``clip_samples``, ``hop_samples``, ``voting``,
    ``full_scale`` and, if known, ``training``, ``temperature`` and ``usual_norm``.
    """

    frontend: nn.Module
    embedding: nn.Module
    classifier: nn.Module

    def __init__(self, arguments: dict[str, Any] | None = None):
        super().__init__()
        self.config: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in (arguments or {}).items()
            if name not in NOT_SAVED
        }
        self.settings: dict[str, Any] = {}

    def forward(self, wavs: Tensor) -> Tensor:
        """Log-posteriors [batch, n_genres] of clips [batch, time] on any scale."""
        return self.classifier(self.embedding(self.frontend(wavs)))[:, 0]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any):
        """Loads a model in evaluation mode from a folder or from ``user/repository``.

        No code is run. ``options`` are those of ``hf_hub_download``, and arguments of
        the class that replace the saved ones, such as ``backend``.
        """
        hub_options = {key: options.pop(key) for key in HUB_OPTIONS & options.keys()}
        folder = fetch(pretrained_model_name_or_path, **hub_options)
        return read_model(folder, {cls.__name__: cls}, **options)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | PathLike, *, push_to_hub: bool = False, **hub: Any
    ) -> str | None:
        """Writes all of the model's files or none, and returns the commit if pushed.

        ``training``, ``temperature`` and ``usual_norm`` are left out, since the weights
        may have changed; a ``README.md`` in the folder stays. ``hub`` are ``repo_id``
        and the options of ``push_to_hub``.
        """
        settings = {k: v for k, v in self.settings.items() if k not in OPTIONAL}
        with whole_files(save_directory) as folder:
            write_model(folder, self, settings)
            name = type(self).__name__
            card = self.generate_model_card(name=name, **self.config)
            card.save(folder / "README.md")
        hub = {"repo_id": Path(save_directory).name} | hub
        return self.push_to_hub(**hub) if push_to_hub else None

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Pushes the files of ``save_pretrained`` and returns the commit's address."""
        with hub_errors(repo_id):
            return super().push_to_hub(repo_id, **options)
