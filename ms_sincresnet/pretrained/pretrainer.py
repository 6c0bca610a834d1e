"""SafetensorsPretrainer: model.safetensors for SpeechBrain's from_hparams."""

from pathlib import Path

from speechbrain.utils.fetching import FetchConfig, FetchSource, LocalStrategy, fetch
from speechbrain.utils.parameter_transfer import Pretrainer

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.files import load_weights
from ms_sincresnet.models.weights import WEIGHTS, load_state

NOTE = ".source"  # in a folder for downloads, the name of the model that it holds


class SafetensorsPretrainer(Pretrainer):
    """Loads a model from one file; SpeechBrain's ``Pretrainer`` reads pickles.

    Arguments
    ---------
    loadables
        The model, as ``{"model": model}``.

    Example
    -------
    >>> from ms_sincresnet import SincNet
    >>> SincNet(n_filters=8).save_pretrained(getfixture("tmp_path"))
    >>> pretrainer = SafetensorsPretrainer(loadables={"model": SincNet(n_filters=8)})
    >>> _ = pretrainer.collect_files(default_source=str(getfixture("tmp_path")))
    >>> pretrainer.load_collected()
    """

    def collect_files(
        self,
        default_source: str | FetchSource | None = None,
        local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
        fetch_config: FetchConfig = FetchConfig(),  # noqa: B008 (it is frozen)
    ) -> dict[str, Path]:
        """Path of ``model.safetensors``, fetched as other parts of a model are."""
        # A savedir that holds another model is refused: SpeechBrain would return that
        # one, whatever source is named.
        savedir = self.collect_in
        source = default_source
        if isinstance(source, str) and Path(source).is_dir():
            source = str(Path(source).resolve())
        if savedir is not None and str(savedir.resolve()) != source:
            name = f"{source} {fetch_config.revision or ''}".strip()
            note = savedir / NOTE
            held = note.read_text("utf-8") if note.is_file() else "another model"
            update = fetch_config.overwrite or fetch_config.allow_updates
            if (savedir / WEIGHTS).exists() and held != name and not update:
                raise ModelFolderError(
                    f"savedir {savedir} holds {held}; give {name} a folder of its own"
                )
            savedir.mkdir(parents=True, exist_ok=True)
            note.write_text(name, "utf-8")
        options = {"local_strategy": local_strategy, "fetch_config": fetch_config}
        self.paths["model"] = fetch(WEIGHTS, source, savedir=savedir, **options)
        return {"model": self.paths["model"]}

    def load_collected(self) -> None:
        """Loads the weights if they fit."""
        path = Path(self.paths["model"])
        load_state(self.loadables["model"], load_weights(path), path)
