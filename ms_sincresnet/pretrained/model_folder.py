"""Writing, reading and checking the folder that a trained model is shared as.

It holds the model twice. ``config.json`` and ``model.safetensors`` are data alone, from
which ``read_model_folder`` builds it. For SpeechBrain's ``EncoderClassifier``, which
loads it as it loads any of its own, ``hyperparams.yaml`` builds the modules,
``embedding_model.ckpt`` and ``classifier.ckpt`` hold their weights, and
``label_encoder.ckpt`` the names of the genres. ``README.md`` is its model card,
``app.py`` and ``requirements.txt`` make it a Space of the Hub.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from speechbrain.dataio.encoder import CategoricalEncoder

from ms_sincresnet.data.audio import AudioNormalizer
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.speechbrain_modules import (
    Identity,
    InputCheck,
    SongEmbedding,
    VotingClassifier,
)
from ms_sincresnet.models.config import CONFIG
from ms_sincresnet.models.weights import WEIGHTS, read_network, write_network
from ms_sincresnet.pretrained.card import song_card
from ms_sincresnet.training.plain_yaml import read_plainly

# What SpeechBrain's classes load; folders of earlier versions hold no more.
SPEECHBRAIN_FILES = (
    "hyperparams.yaml",
    "embedding_model.ckpt",
    "classifier.ckpt",
    "label_encoder.ckpt",
)
FILES = (
    *SPEECHBRAIN_FILES,
    CONFIG,
    WEIGHTS,
    "README.md",
    "app.py",
    "requirements.txt",
)
BATCH_SIZE = 32  # clips at a time

APP = """\
from pathlib import Path

from ms_sincresnet.inference.demo import build_demo

demo = build_demo(Path(__file__).parent)

if __name__ == "__main__":
    demo.launch()
"""
REQUIREMENTS = "ms_sincresnet[demo]\n"

HYPERPARAMS = """\
# A music genre classifier. It needs the package: pip install ms_sincresnet
#   from ms_sincresnet import GenreClassifier
#   GenreClassifier.from_hparams("THIS FOLDER").predict_song("song.mp3")
# SpeechBrain's own EncoderClassifier loads it as well. What reads this file runs what
# it names; GenreClassifier.from_pretrained reads config.json instead, and runs nothing.

sample_rate: {sample_rate}  # Hz
clip_samples: {clip_samples}  # samples a clip
hop_samples: {hop_samples}  # samples from one clip of a song to the next
batch_size: {batch_size}  # clips at a time
full_scale: {full_scale}  # what a full-scale sample is to the model
voting: {voting}  # majority or mean
n_genres: {n_genres}

model: !new:ms_sincresnet.{system}
{config}
compute_features: !new:ms_sincresnet.inference.speechbrain_modules.InputCheck
mean_var_norm: !new:ms_sincresnet.inference.speechbrain_modules.Identity
embedding_model: !new:ms_sincresnet.inference.speechbrain_modules.SongEmbedding
    model: !ref <model>
    clip_samples: !ref <clip_samples>
    hop_samples: !ref <hop_samples>
    batch_size: !ref <batch_size>
    full_scale: !ref <full_scale>
classifier: !new:ms_sincresnet.inference.speechbrain_modules.VotingClassifier
    model: !ref <model>
    voting: !ref <voting>

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>

audio_normalizer: !new:ms_sincresnet.data.audio.AudioNormalizer
    sample_rate: !ref <sample_rate>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
number_of_labels: !apply:speechbrain.dataio.encoder.CategoricalEncoder.expect_len
    - !ref <label_encoder>
    - !ref <n_genres>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
"""


def save_model_folder(
    folder,
    model,
    genres,
    *,
    clip_samples=48000,
    hop_samples=8000,
    voting="majority",
    full_scale=1.0,
    training=None,
):
    """Writes a model folder, or replaces it as a whole.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.
    model : torch.nn.Module
        A system with ``frontend``, ``embedding``, ``classifier`` and ``config``, such
        as ``MSSincResNet``.
    genres : list of str
        Names of the genres, in the order of the model's outputs.
    clip_samples : int
        Samples of a clip.
    hop_samples : int
        Samples from the start of one clip to the next.
    voting : str
        "majority" or "mean", as in ``vote``.
    full_scale : float
        What a full-scale sample is to the model, as in ``SongEmbedding``.
    training : Training, optional
        What the model was trained and tested on, for its card.

    Raises
    ------
    ModelFolderError
        If the folder holds something else than a model, which would be lost.
    ValueError
        If the genres are not as many as the model's outputs, or another argument is
        not one of those named.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    True
    """
    if len(set(genres)) != model.config["n_genres"]:
        raise ValueError(
            f"expected {model.config['n_genres']} genres, one an output of the model; "
            f"got {list(genres)}"
        )
    settings = {
        "genres": list(genres),
        "clip_samples": clip_samples,
        "hop_samples": hop_samples,
        "voting": voting,
        "full_scale": full_scale,
    }
    folder = Path(folder).resolve()
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        new = Path(work) / "new"
        new.mkdir()
        _write_files(new, model, settings, training)
        if folder.exists():
            folder.rename(Path(work) / "old")
        new.rename(folder)


def _check_replaceable(folder):
    """Raises unless a folder is missing, empty or a model folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if missing_files(folder, SPEECHBRAIN_FILES):
        raise ModelFolderError(
            f"{folder}: there is something else than a model folder, and it would be "
            "lost; give the model a folder of its own, or remove this"
        )


def _write_files(folder, model, settings, training):
    """Writes the files of a model folder."""
    system = type(model).__name__
    write_network(folder, model, settings, speechbrain_interface="EncoderClassifier")
    config = yaml.safe_dump(model.config, default_flow_style=None, sort_keys=False)
    texts = {
        "hyperparams.yaml": HYPERPARAMS.format(
            **settings,
            sample_rate=model.config["sample_rate"],
            n_genres=model.config["n_genres"],
            batch_size=BATCH_SIZE,
            system=system,
            config="".join(f"    {line}\n" for line in config.splitlines()),
        ),
        "README.md": f"{song_card(system, model.config, settings, training)}",
        "app.py": APP,
        "requirements.txt": REQUIREMENTS,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    modules, hparams = song_parts(model, settings)
    for name in ("embedding_model", "classifier"):
        torch.save(modules[name].state_dict(), folder / f"{name}.ckpt")
    hparams["label_encoder"].save(folder / "label_encoder.ckpt")


def song_parts(model, settings):
    """What ``hyperparams.yaml`` builds of a network, built without it.

    Arguments
    ---------
    model : GenreModel
        The network.
    settings : dict
        Genres, clips and voting, as ``read_config`` returns them.

    Returns
    -------
    modules : dict of str to torch.nn.Module
        The ``modules`` of a ``GenreClassifier``.
    hparams : dict
        Its ``hparams``.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> settings = {"genres": ["jazz", "rock"], "voting": "majority", "full_scale": 1.0}
    >>> settings |= {"clip_samples": 48000, "hop_samples": 8000}
    >>> modules, hparams = song_parts(MSSincResNet(2, n_filters=8), settings)
    >>> [*modules]
    ['compute_features', 'mean_var_norm', 'embedding_model', 'classifier']
    """
    hparams = {key: value for key, value in settings.items() if key != "genres"}
    cut = {key: value for key, value in hparams.items() if key != "voting"}
    modules = {
        "compute_features": InputCheck(),
        "mean_var_norm": Identity(),
        "embedding_model": SongEmbedding(model, batch_size=BATCH_SIZE, **cut),
        "classifier": VotingClassifier(model, hparams["voting"]),
    }
    label_encoder = CategoricalEncoder()
    label_encoder.update_from_iterable(settings["genres"])
    label_encoder.expect_len(len(settings["genres"]))
    sample_rate = model.config["sample_rate"]
    hparams |= {
        "sample_rate": sample_rate,
        "batch_size": BATCH_SIZE,
        "n_genres": model.config["n_genres"],
        "model": model,
        "audio_normalizer": AudioNormalizer(sample_rate),
        "label_encoder": label_encoder,
    }
    return modules, hparams


def read_model_folder(folder):
    """Builds the parts of a classifier of songs from data alone.

    Arguments
    ---------
    folder : str or pathlib.Path
        Holds ``config.json`` and ``model.safetensors``; nothing else is read.

    Returns
    -------
    modules : dict of str to torch.nn.Module
        The ``modules`` of a ``GenreClassifier``.
    hparams : dict
        Its ``hparams``.

    Raises
    ------
    ModelFolderError
        If there is a fault in ``config.json``, or it names no genres.
    WeightsError
        If the weights are missing, cannot be read or do not fit.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> read_model_folder(folder)[1]["voting"]
    'majority'
    """
    model = read_network(folder)
    if not model.settings:
        system = type(model).__name__
        raise ModelFolderError(
            f"{Path(folder) / CONFIG}: a network alone, without the names of its "
            f"genres; load it by {system}.from_pretrained, or write it as a model "
            "folder, with names, by save_model_folder"
        )
    return song_parts(model, model.settings)


def check_model_folder(folder):
    """Raises if a model folder is missing, incomplete or no such thing.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.

    Raises
    ------
    ModelFolderError
        Naming the folder, the files that it lacks, or what is wrong with its
        ``hyperparams.yaml``.

    Example
    -------
    >>> check_model_folder("results/nowhere")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: results/nowhere: no such model folder
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFolderError(f"{folder}: no such model folder")
    missing = missing_files(folder, SPEECHBRAIN_FILES)
    if missing:
        raise ModelFolderError(
            f"{folder}: not a complete model folder, it lacks {', '.join(missing)}; "
            "expected the folder `model` that train.py writes"
        )
    missing = _missing_keys(folder / "hyperparams.yaml")
    if missing:
        raise ModelFolderError(
            f"{folder / 'hyperparams.yaml'}: it lacks {', '.join(missing)}; expected "
            "the file that train.py writes"
        )


def missing_files(folder, names):
    """Those of some files that are not in a folder.

    Arguments
    ---------
    folder : pathlib.Path
        The folder.
    names : tuple of str
        The files.

    Returns
    -------
    list of str
        Their names.

    Example
    -------
    >>> missing_files(getfixture("tmp_path"), ["README.md"])
    ['README.md']
    """
    return [name for name in names if not (folder / name).is_file()]


def _missing_keys(path):
    """What SpeechBrain needs and a yaml file lacks; nothing that it names is built."""
    return {"modules", "pretrainer"} - read_plainly(path).keys()
