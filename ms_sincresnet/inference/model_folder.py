"""Writing and checking the folder that a trained model is shared as.

``hyperparams.yaml`` builds the modules, ``embedding_model.ckpt`` and
``classifier.ckpt`` hold their weights, ``label_encoder.ckpt`` the names of the genres.
SpeechBrain's ``EncoderClassifier`` loads it as it loads any of its own.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from speechbrain.dataio.encoder import CategoricalEncoder

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.songs import SongEmbedding, SongVote

FILES = (
    "hyperparams.yaml",
    "embedding_model.ckpt",
    "classifier.ckpt",
    "label_encoder.ckpt",
)

HYPERPARAMS = """\
# A music genre classifier. It needs the package: pip install ms_sincresnet
#   from ms_sincresnet import GenreClassifier
#   GenreClassifier.from_hparams("THIS FOLDER").predict_song("song.mp3")
# SpeechBrain's own EncoderClassifier loads it as well.

sample_rate: {sample_rate}  # Hz
clip_samples: {clip_samples}  # samples a clip
hop_samples: {hop_samples}  # samples from one clip of a song to the next
batch_size: 32  # clips at a time
voting: {voting}  # majority or mean
n_genres: {n_genres}

model: !new:ms_sincresnet.{system}
{config}
compute_features: !new:ms_sincresnet.inference.songs.Waveforms
mean_var_norm: !new:ms_sincresnet.inference.songs.Unchanged
embedding_model: !new:ms_sincresnet.inference.songs.SongEmbedding
    model: !ref <model>
    clip_samples: !ref <clip_samples>
    hop_samples: !ref <hop_samples>
    batch_size: !ref <batch_size>
classifier: !new:ms_sincresnet.inference.songs.SongVote
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
    folder, model, genres, *, clip_samples=48000, hop_samples=8000, voting="majority"
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

    Raises
    ------
    ModelFolderError
        If the folder holds something else than a model, which would be lost.
    ValueError
        If the genres are not as many as the model's outputs.

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
    folder = Path(folder).resolve()
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        new = Path(work) / "new"
        new.mkdir()
        _write_files(new, model, genres, clip_samples, hop_samples, voting)
        if folder.exists():
            folder.rename(Path(work) / "old")
        new.rename(folder)


def _check_replaceable(folder):
    """Raises unless a folder is missing, empty or a model folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if _missing_files(folder):
        raise ModelFolderError(
            f"{folder}: there is something else than a model folder, and it would be "
            "lost; give the model a folder of its own, or remove this"
        )


def _write_files(folder, model, genres, clip_samples, hop_samples, voting):
    """Writes the files of a model folder."""
    config = yaml.safe_dump(model.config, default_flow_style=None, sort_keys=False)
    (folder / "hyperparams.yaml").write_text(
        HYPERPARAMS.format(
            sample_rate=model.config["sample_rate"],
            clip_samples=clip_samples,
            hop_samples=hop_samples,
            voting=voting,
            n_genres=len(genres),
            system=type(model).__name__,
            config="".join(f"    {line}\n" for line in config.splitlines()),
        ),
        encoding="utf-8",
    )
    embedding = SongEmbedding(model, clip_samples, hop_samples)
    torch.save(embedding.state_dict(), folder / "embedding_model.ckpt")
    classifier = SongVote(model, voting)
    torch.save(classifier.state_dict(), folder / "classifier.ckpt")
    label_encoder = CategoricalEncoder()
    label_encoder.update_from_iterable(genres)
    label_encoder.save(folder / "label_encoder.ckpt")


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
    missing = _missing_files(folder)
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


def _missing_files(folder):
    """Those of ``FILES`` that are not in a folder."""
    return [name for name in FILES if not (folder / name).is_file()]


def _missing_keys(path):
    """What SpeechBrain needs and a yaml file lacks; nothing that it names is built."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{path}: not yaml ({error})") from error
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return {"modules", "pretrainer"}.difference(key.value for key, _ in pairs)
