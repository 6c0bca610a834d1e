"""``ms-sincresnet plot``: loads models and files, and draws a figure of them.

Torch, pandas and matplotlib are imported only to draw, so that help is immediate.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ms_sincresnet.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray
    from pandas import DataFrame

SUFFIXES = (".png", ".pdf", ".svg")
MODEL_HELP = "a model folder, or user/repository on the Hub"
OR_BUNDLED_HELP = f"{MODEL_HELP} (default: the model that comes with the package)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand per figure; ``run`` takes the parsed arguments."""
    commands = parser.add_subparsers(dest="figure", metavar="FIGURE", required=True)

    def add(name: str, draw, text: str) -> argparse.ArgumentParser:
        description = f"{text[0].upper()}{text[1:]}."
        command = commands.add_parser(name, help=text, description=description)
        command.set_defaults(draw=draw)
        text = f"image to write: {', '.join(SUFFIXES)} (default: FIGURE.png)"
        command.add_argument("--output", type=_image_path, metavar="FILE", help=text)
        return command

    def add_for_song(*figure) -> argparse.ArgumentParser:
        command = add(*figure)
        command.add_argument("song", metavar="SONG", type=Path, help="an audio file")
        command.add_argument("--model", metavar="MODEL", help=OR_BUNDLED_HELP)
        return command

    add_for_song("timeline", _draw_timeline, "the genres of a song over time")
    text = "spectrograms of a clip next to the maps of the learned filters (Fig. 4)"
    command = add_for_song("representations", _draw_representations, text)
    text = "start of the clip in seconds (default: 0)"
    command.add_argument("--start", type=float, default=0, help=text)
    text = "what the filters of a run learned: responses, shifts, filters per band"
    command = add("filters", _draw_filters, text)
    text = "the folder of a training run"
    command.add_argument("run_folder", metavar="RUN", type=Path, help=text)
    command = add("loss", _draw_losses, "training losses of several runs (Fig. 5)")
    text = "a run's folder or its train_log.txt"
    command.add_argument("logs", metavar="RUN", type=Path, nargs="+", help=text)
    text = "names of the runs, in order"
    command.add_argument("--labels", metavar="LABEL", nargs="+", help=text)
    command = add("confusion", _draw_confusion_matrix, "the confusion matrix of a test")
    text = "the test's confusion_matrix.csv"
    command.add_argument("csv", metavar="CSV", type=Path, help=text)


def run(arguments: argparse.Namespace) -> None:
    """Draws a figure, writes it and prints its path."""
    from ms_sincresnet.plots import drawing

    figure, path = arguments.draw(arguments), arguments.output
    if path is None:
        prefix = f"{arguments.song.stem}_" if hasattr(arguments, "song") else ""
        path = Path(f"{prefix}{arguments.figure}.png")
    drawing.save_figure(figure, path)
    print(f"written: {path}")


def _draw_timeline(arguments: argparse.Namespace) -> Figure:
    """The genres of a song over time."""
    from ms_sincresnet import GenreClassifier
    from ms_sincresnet.inference.demo import FINE_HOP_S
    from ms_sincresnet.plots import timeline

    classifier = GenreClassifier.from_pretrained(arguments.model)
    classifier.hop_s = min(classifier.hop_s, FINE_HOP_S)
    song = classifier.predict_song(arguments.song)
    posteriors = song.timeline()
    share = {"majority": "votes", "mean": "posterior"}[classifier.hparams.voting]
    n_clips = posteriors.notna().all(axis=1).sum()
    share = f"{song.shares[song.genre]:.0%} of the {share} of {n_clips} clips"
    title = f"{arguments.song.name}: {song.genre}, {share}"
    envelope = timeline.read_envelope(arguments.song, classifier.hparams.sample_rate)
    return timeline.plot_timeline(posteriors, song.duration, envelope, title)


def _draw_representations(arguments: argparse.Namespace) -> Figure:
    """Spectrograms and learned maps of a clip."""
    import torch

    from ms_sincresnet.data.audio import read_audio
    from ms_sincresnet.data.clips import split_clips
    from ms_sincresnet.models.hub import fetch
    from ms_sincresnet.nnet.frontend import MSSincNet
    from ms_sincresnet.plots import representations
    from ms_sincresnet.pretrained.model_folder import read_model_folder

    model, start_s = read_model_folder(fetch(arguments.model)), arguments.start
    frontend: Any = model.frontend
    if not isinstance(frontend, MSSincNet):
        expected = f"expected MSSincResNet, got {type(model).__name__}"
        raise UserError(f"the model has no learned maps; {expected}")
    rate, n_samples = model.config["sample_rate"], model.settings["clip_samples"]
    samples = torch.from_numpy(read_audio(arguments.song, rate))
    clips = split_clips(samples, n_samples, hop_samples=1)
    last_s, clip_s = (len(clips) - 1) / rate, n_samples / rate
    if not 0 <= start_s <= last_s:
        expected = f"a clip starts between 0 and {last_s:g} s"
        raise UserError(f"{arguments.song}: {expected}; got {start_s:g} s")
    clip = clips[round(start_s * rate)]
    with torch.no_grad():
        maps = frontend(model.settings["full_scale"] * clip[None])[0].numpy()
        cutoffs = [bank.cutoffs() for bank in frontend.banks]
    centres_hz = [((low + high) / 2).numpy() for low, high in cutoffs]
    sizes = [bank.kernel_size for bank in frontend.banks]
    title = f"{arguments.song.name}, {start_s:g} to {start_s + clip_s:g} s"
    learned = maps, centres_hz, sizes, start_s
    return representations.plot_representations(clip.numpy(), rate, *learned, title)


def _draw_filters(arguments: argparse.Namespace) -> Figure:
    """Responses, shifts and counts of the filters of a run."""
    import torch

    from ms_sincresnet.data.audio import SAMPLE_RATE
    from ms_sincresnet.nnet.filterbank import sinc_filters
    from ms_sincresnet.plots import filters
    from ms_sincresnet.training.cutoffs import CUTOFFS

    table = filters.read_cutoffs(arguments.run_folder / CUTOFFS)

    def taps(cutoffs: DataFrame) -> ndarray:
        low_hz, high_hz = torch.tensor(cutoffs[["low_hz", "high_hz"]].to_numpy()).T
        size = int(cutoffs["taps"].iloc[0])
        return sinc_filters(low_hz, high_hz, size, SAMPLE_RATE).numpy()

    banks = [
        (
            taps(scale[scale.epoch == scale.epoch.min()]),
            taps(scale[scale.epoch == scale.epoch.max()]),
        )
        for _, scale in table.groupby("scale")
    ]
    title = f"{arguments.run_folder}: what the filters learned"
    return filters.plot_filters(table, banks, SAMPLE_RATE, title)


def _draw_losses(arguments: argparse.Namespace) -> Figure:
    """Training losses of runs, named by the part of their paths that differs."""
    from ms_sincresnet.plots import training

    paths = [path.resolve() for path in arguments.logs]
    folders = [path if path.is_dir() else path.parent for path in paths]
    root = os.path.commonpath([folder.parent for folder in folders])
    labels = arguments.labels or [os.path.relpath(folder, root) for folder in folders]
    losses = dict(zip(labels, map(training.read_losses, paths), strict=False))
    if not len(paths) == len(labels) == len(losses):
        wanted, found = f"{len(paths)} different --labels", ", ".join(labels)
        raise UserError(f"expected {wanted}, one per run; got {found}")
    return training.plot_losses(losses)


def _draw_confusion_matrix(arguments: argparse.Namespace) -> Figure:
    """The confusion matrix of a test."""
    from ms_sincresnet.plots import training

    matrix = training.read_confusion_matrix(arguments.csv)
    return training.plot_confusion_matrix(matrix, arguments.csv.resolve().parent.name)


def _image_path(text: str) -> Path:
    """A path with an image suffix."""
    path, known = Path(text), ", ".join(SUFFIXES)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a name in {known}; got {text!r}")
    return path
