"""Whether the two halves of a model folder hold the same model.

A file that was changed by hand, or left over, would make a repository of the Hub two
models, depending on how it is loaded.
"""

from pathlib import Path

from speechbrain.dataio.encoder import CategoricalEncoder

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.models.config import CONFIG
from ms_sincresnet.models.weights import WEIGHTS
from ms_sincresnet.pretrained.model_folder import (
    FILES,
    check_model_folder,
    missing_files,
    read_model_folder,
)
from ms_sincresnet.training.plain_yaml import read_plainly

# What both halves say, beside the network and the genres.
SHARED = (
    "sample_rate",
    "clip_samples",
    "hop_samples",
    "full_scale",
    "voting",
    "n_genres",
)


def check_agreement(folder):
    """Raises unless a model folder is complete and holds the same model twice.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.

    Raises
    ------
    ModelFolderError
        Naming the files that it lacks, or the one that does not agree.
    WeightsError
        If weights cannot be read.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> check_agreement(folder)
    """
    folder = Path(folder)
    check_model_folder(folder)
    missing = missing_files(folder, FILES)
    if missing:
        raise ModelFolderError(
            f"{folder}: it lacks {', '.join(missing)}: of an earlier version, or not "
            "complete; export it again (ms-sincresnet export)"
        )
    modules, hparams = read_model_folder(folder)
    faults = []
    for name in ("embedding_model", "classifier"):
        state = {key: x.clone() for key, x in modules[name].state_dict().items()}
        modules[name].load(folder / f"{name}.ckpt")
        loaded = modules[name].state_dict()
        if not all(x.equal(loaded[key]) for key, x in state.items()):
            faults.append(f"{name}.ckpt")
    plain = read_plainly(folder / "hyperparams.yaml")
    model = f"ms_sincresnet.{type(hparams['model']).__name__}", hparams["model"].config
    expected = {name: hparams[name] for name in SHARED} | {"model": model}
    if any(plain.get(name) != value for name, value in expected.items()):
        faults.append("hyperparams.yaml")
    if _labels(folder / "label_encoder.ckpt") != hparams["label_encoder"].lab2ind:
        faults.append("label_encoder.ckpt")
    if faults:
        raise ModelFolderError(
            f"{folder}: another model in {', '.join(faults)} than in {CONFIG} and "
            f"{WEIGHTS}; export it again (ms-sincresnet export)"
        )


def _labels(path):
    """Numbers by the names of the genres; None if the file cannot be read."""
    labels = CategoricalEncoder()
    try:
        labels.load(path)
    except (ValueError, LookupError, SyntaxError):
        return None
    return labels.lab2ind
