"""The model card: what a model is, how it is loaded, what it was trained and tested on.

Nothing is said that the run's own files do not say.
"""

import json
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load

TAGS = ["music", "music-genre-classification", "audio", "sincnet", "resnet"]
ON_THE_HUB = {"GTZAN": "marsyas/gtzan"}  # data sets, by the recipes' names

INSTALL = """\
```sh
pip install ms_sincresnet
```
"""

SONGS = """\
# {system}: {n_genres} genres of music

Names the genre of a song of any length from its waveform, which it hears in clips of
{clip_s:g} s every {hop_s:g} s; the clips vote ({voting}). The genres: {genres}.

## How to load it

In place of `user/repository`, the name of this page or a local folder.

```python
from ms_sincresnet import GenreClassifier

classifier = GenreClassifier.from_pretrained("user/repository")
classifier.predict_song("song.mp3").genre
```

This reads `config.json` and `model.safetensors` and runs no code of the repository, so
it suits models of people you do not know. The next two, which give the same
posteriors, run whatever `hyperparams.yaml` names, as all of SpeechBrain does: only for
those whom you trust.

```python
GenreClassifier.from_hparams("user/repository")

from speechbrain.inference.classifiers import EncoderClassifier

EncoderClassifier.from_hparams("user/repository").classify_file("song.mp3")
```

To train it further: `ms_sincresnet.{system}.from_pretrained("user/repository")`.
"""

NETWORK = """\
# {system}

A network that takes clips of a waveform at {sample_rate} Hz to the log-posteriors of
{n_genres} classes. In place of `user/repository`, the name of this page or a folder:

```python
from ms_sincresnet import {system}

model = {system}.from_pretrained("user/repository")
```

This reads `config.json` and `model.safetensors` and runs no code of the repository.
"""

TRAINING = """\

## What it was trained and tested on

{dataset}, {protocol}.
"""

UNKNOWN = """\

## What it was trained and tested on

Its files do not say. No accuracy can be claimed.
"""

UNTESTED = """\
This state of the network was not tested: no accuracy can be claimed.
"""

FIGURES = """\
Song accuracy **{song_accuracy:.1%}** of {tracks} tracks that it was not trained on;
clip accuracy {clip_accuracy:.1%} of their {clips} clips (epoch {epoch}). It is the
figure of this one split of this data, not of music at large.
"""

SYNTHETIC = """\
The music is synthesised: the accuracy says that the program works, and nothing about
music.
"""

GTZAN_RANDOM = """\
GTZAN holds repeated and mislabelled tracks, and random folds put tracks of one artist
on both sides (B. L. Sturm, "The GTZAN dataset", arXiv:1306.1461), so new songs are
named less well.
"""

LIMITS = """\

## Limits

It knows no genres but the ones above. Whatever it hears, be it another genre, speech or
noise, gets one of these names all the same, and a high posterior does not mean that the
name fits. Songs unlike those that it was trained on, in style, time, place or sound,
are named less well. Silent clips vote for nothing.
"""

CITATION = """\

## Citation

```bibtex
@inproceedings{chang2021mssincresnet,
  author = {Chang, Pei-Chun and Chen, Yong-Sheng and Lee, Chang-Hsing},
  title = {{MS-SincResNet}: Joint learning of {1D} and {2D} kernels using multi-scale
           {SincNet} and {ResNet} for music genre classification},
  booktitle = {Proceedings of the 2021 International Conference on Multimedia
               Retrieval (ICMR '21)},
  year = {2021},
  doi = {10.1145/3460426.3463619}
}
```
"""


class Training(NamedTuple):
    """What a model was trained and tested on, as its run's files say.

    Arguments
    ---------
    dataset : str
        Name of the data set.
    protocol : str
        Which part of it was trained on and which tested.
    figures : dict or None
        What ``test_summary.json`` holds; None if this model was not tested.
    """

    dataset: str
    protocol: str
    figures: dict | None


def training_of(run, hparams, epoch):
    """What a run says of the training and test of one of its epochs.

    Arguments
    ---------
    run : str or pathlib.Path
        The run's output folder.
    hparams : dict
        The run's hparams.
    epoch : int
        The epoch that becomes the model.

    Returns
    -------
    Training
        With figures if the run's test was of this epoch.

    Example
    -------
    >>> hparams = {"dataset": "GTZAN", "protocol": "random", "fold": 0, "n_folds": 10}
    >>> training_of("results/nowhere", hparams | {"seed": 1234}, 5)[:2]
    ('GTZAN', 'stratified random folds (fold 0 of 10, counted from 0; seed 1234)')
    """
    seed = f"seed {hparams['seed']}"
    if hparams.get("protocol") == "random":
        fold = f"fold {hparams['fold']} of {hparams['n_folds']}, counted from 0"
        protocol = f"stratified random folds ({fold}; {seed})"
    elif hparams.get("protocol") == "filtered":
        split = "fault- and artist-filtered split of Kereliuk, Sturm and Larsen"
        protocol = f"{split} ({seed})"
    elif "test_part" in hparams:
        protocol = f"training part to {hparams['test_part']} part ({seed})"
    else:
        protocol = seed
    try:
        text = (Path(run) / "test_summary.json").read_text(encoding="utf-8")
        figures = json.loads(text)
    except (FileNotFoundError, ValueError):  # not tested, or killed while it wrote
        return Training(hparams["dataset"], protocol, None)
    tested = figures.get("epoch") == epoch
    return Training(hparams["dataset"], protocol, figures if tested else None)


def song_card(system, arguments, settings, training=None):
    """The card of a model folder, which the Hub also runs as a Space.

    Arguments
    ---------
    system : str
        Name of the system.
    arguments : dict
        The arguments that rebuild the network.
    settings : dict
        Genres, clips and voting, as ``read_config`` returns them.
    training : Training, optional
        What it was trained and tested on, if that is known.

    Returns
    -------
    huggingface_hub.ModelCard
        The card.

    Example
    -------
    >>> settings = {"genres": ["jazz", "rock"], "voting": "majority"}
    >>> settings |= {"clip_samples": 48000, "hop_samples": 8000}
    >>> arguments = {"n_genres": 2, "sample_rate": 16000}
    >>> card = song_card("MSSincResNet", arguments, settings)
    >>> card.data.pipeline_tag, card.text.splitlines()[1:3]
    ('audio-classification', ['```sh', 'pip install ms_sincresnet'])
    """
    sample_rate = arguments["sample_rate"]
    body = SONGS.format(
        system=system,
        n_genres=arguments["n_genres"],
        clip_s=settings["clip_samples"] / sample_rate,
        hop_s=settings["hop_samples"] / sample_rate,
        voting=settings["voting"],
        genres=", ".join(settings["genres"]),
    )
    more = {}
    if training is None:
        body += UNKNOWN
    else:
        body += _training_text(training)
        if training.dataset in ON_THE_HUB:
            more["datasets"] = [ON_THE_HUB[training.dataset]]
        if training.figures:
            more["model_name"] = system
            more["eval_results"] = _results(training, settings["voting"])
    data = ModelCardData(
        library_name="speechbrain",
        metrics=["accuracy"],
        tags=[*TAGS, "speechbrain"],
        title=f"Music genres by {system}",
        sdk="gradio",
        app_file="app.py",
        **_common(),
        **more,
    )
    return _card(data, body + LIMITS + CITATION)


def network_card(model):
    """The card of a network that is saved without a model folder.

    Arguments
    ---------
    model : GenreModel
        The network.

    Returns
    -------
    huggingface_hub.ModelCard
        The card.

    Example
    -------
    >>> from ms_sincresnet import SincNet
    >>> network_card(SincNet(n_filters=8)).data.library_name
    'ms_sincresnet'
    """
    body = NETWORK.format(
        system=type(model).__name__,
        sample_rate=model.config["sample_rate"],
        n_genres=model.config["n_genres"],
    )
    data = ModelCardData(
        library_name="ms_sincresnet",
        tags=[*TAGS, "model_hub_mixin", "pytorch_model_hub_mixin"],
        **_common(),
    )
    return _card(data, body + UNKNOWN + CITATION)


def read_figures(path):
    """The figures that a model card's header holds; whoever wrote it answers for them.

    Arguments
    ---------
    path : str or pathlib.Path
        The card.

    Returns
    -------
    list of dict
        ``dataset``, ``metric`` and ``value`` of each; none if there is no such card, or
        it cannot be read.

    Example
    -------
    >>> read_figures("results/nowhere/README.md")
    []
    """
    try:
        figures = [
            {
                "dataset": result["dataset"]["name"],
                "metric": metric.get("name", metric["type"]),
                "value": float(metric["value"]),
            }
            for model in metadata_load(path)["model-index"]
            for result in model["results"]
            for metric in result["metrics"]
        ]
    except (OSError, ValueError, yaml.YAMLError, RecursionError):  # no card
        return []
    except (LookupError, TypeError, AttributeError):  # a card of others, or without
        return []
    return [
        figure
        for figure in figures  # which are printed: none may move the cursor
        if f"{figure['dataset']}{figure['metric']}".isprintable()
    ]


def _common():
    """What the headers of both cards say."""
    return {"license": "apache-2.0", "pipeline_tag": "audio-classification"}


def _card(data, body):
    """A card, of which the first line is how to install what it needs."""
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{INSTALL}\n{body}")


def _training_text(training):
    """What a model was trained and tested on, in words."""
    text = TRAINING.format(dataset=training.dataset, protocol=training.protocol)
    text += FIGURES.format(**training.figures) if training.figures else UNTESTED
    if "synthetic" in training.dataset:
        text += SYNTHETIC
    elif training.dataset == "GTZAN" and "random" in training.protocol:
        text += GTZAN_RANDOM
    return text


def _results(training, voting):
    """The figures as the header's ``model-index`` wants them."""
    metrics = {
        f"song accuracy ({voting} of the clips)": training.figures["song_accuracy"],
        "clip accuracy": training.figures["clip_accuracy"],
    }
    tested = f"{training.figures['tracks']} test tracks"
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Music genre classification",
            dataset_type=ON_THE_HUB.get(training.dataset, training.dataset),
            dataset_name=f"{training.dataset}, {training.protocol}; {tested}",
            dataset_split="test",
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in metrics.items()
    ]
