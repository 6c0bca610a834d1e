"""Draws what was learned and how, and what a song looks like to the model."""

import argparse
import os
from pathlib import Path

from ms_sincresnet.errors import UserError, exit_on_user_error
from ms_sincresnet.plots.drawing import save_figure
from ms_sincresnet.plots.filters import plot_filters
from ms_sincresnet.plots.representations import plot_representations
from ms_sincresnet.plots.timeline import plot_timeline, read_envelope
from ms_sincresnet.plots.training import (
    LOG,
    plot_confusion_matrix,
    plot_losses,
    read_confusion_matrix,
    read_losses,
)

SUFFIXES = (".png", ".pdf", ".svg")


def add_arguments(parser):
    """Adds the commands, one a figure.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        The parser. What it parses is for ``run``.

    Example
    -------
    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["loss", "results/run"]).logs
    [PosixPath('results/run')]
    """
    commands = parser.add_subparsers(dest="figure", metavar="COMMAND", required=True)

    def add(draw, name, text):
        command = commands.add_parser(name, help=text, description=f"{text}.")
        command.set_defaults(draw=draw)
        command.add_argument(
            "--output",
            type=_image_path,
            help="the image to write, .png, .pdf or .svg (default: a .png in this "
            "folder, named after the figure)",
        )
        return command

    add_model = {"metavar": "MODEL", "help": "a model folder"}
    add_audio = {"metavar": "AUDIO", "type": Path, "help": "a song"}
    command = add(
        _draw_representations,
        "representations",
        "a clip's spectrograms beside the maps that the model learned (Fig. 4)",
    )
    command.add_argument("model", **add_model)
    command.add_argument("audio", **add_audio)
    command.add_argument(
        "--start", type=_seconds, default=0.0, help="where the clip starts, in s"
    )

    command = add(_draw_losses, "loss", "training losses of several runs (Fig. 5)")
    command.add_argument(
        "logs", metavar="LOG", type=Path, nargs="+", help=f"a run's folder or its {LOG}"
    )
    command.add_argument("--labels", nargs="+", help="names of the runs, in order")

    command = add(
        _draw_filters, "filters", "what the filters became and where they started"
    )
    command.add_argument("model", **add_model)

    command = add(_draw_confusion_matrix, "confusion", "a confusion matrix")
    command.add_argument(
        "csv", metavar="CSV", type=Path, help="a confusion_matrix.csv of a test"
    )

    command = add(_draw_timeline, "timeline", "the genres of a song over its time")
    command.add_argument("model", **add_model)
    command.add_argument("audio", **add_audio)


def _image_path(text):
    """A path that figures can be written to."""
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(
            f"expected a name that ends in {', '.join(SUFFIXES)}; got {text!r}"
        )
    return path


def _seconds(text):
    """A time in a song."""
    try:
        time_s = float(text)
    except ValueError:
        time_s = -1
    if not 0 <= time_s < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time ≥ 0 in s; got {text!r}")
    return time_s


def _load(model):
    """The classifier of a model folder."""
    from ms_sincresnet import GenreClassifier

    return GenreClassifier.from_pretrained(model)


def _draw_representations(arguments):
    """The figure of a clip, from the command line."""
    from ms_sincresnet.data.clips import repeat_to_length

    classifier = _load(arguments.model)
    rate, n_samples = classifier.hparams.sample_rate, classifier.hparams.clip_samples
    wav = repeat_to_length(classifier.load_audio(arguments.audio), n_samples)
    start = round(arguments.start * rate)
    if start + n_samples > len(wav):
        raise UserError(
            f"{arguments.audio}: the last clip of {n_samples / rate:g} s starts at "
            f"{(len(wav) - n_samples) / rate:g} s; got {arguments.start:g} s"
        )
    embedding = classifier.mods.embedding_model
    clip = embedding.full_scale * wav[start : start + n_samples]
    end_s = arguments.start + n_samples / rate
    title = f"{arguments.audio.name}, {arguments.start:g} to {end_s:g} s"
    return plot_representations(embedding.frontend, clip, arguments.start, title)


def _draw_losses(arguments):
    """The figure of losses, from the command line."""
    names = arguments.labels or _names_of_runs(arguments.logs)
    if len(names) != len(arguments.logs) or len(set(names)) != len(names):
        raise UserError(
            f"expected a label of its own for each of the {len(arguments.logs)} runs; "
            f"got {', '.join(names)}"
        )
    losses = [read_losses(path) for path in arguments.logs]
    return plot_losses(dict(zip(names, losses, strict=True)))


def _names_of_runs(paths):
    """What tells the folders of runs apart."""
    paths = [path.resolve() for path in paths]
    folders = [path if path.is_dir() else path.parent for path in paths]
    root = os.path.commonpath([folder.parent for folder in folders])
    return [os.path.relpath(folder, root) for folder in folders]


def _draw_filters(arguments):
    """The figure of filters, from the command line."""
    model = _load(arguments.model).hparams.model
    return plot_filters(model, f"{arguments.model}: learned filters")


def _draw_confusion_matrix(arguments):
    """The figure of a confusion matrix, from the command line."""
    matrix = read_confusion_matrix(arguments.csv)
    return plot_confusion_matrix(matrix, arguments.csv.resolve().parent.name)


def _draw_timeline(arguments):
    """The figure of a song, from the command line."""
    classifier = _load(arguments.model)
    song = classifier.predict_song(arguments.audio)
    posteriors = song.timeline()
    of = {"majority": "votes", "mean": "mean posterior"}[classifier.hparams.voting]
    title = (
        f"{arguments.audio.name}: {song.genre}, {song.shares[song.genre]:.0%} of the "
        f"{of} of {posteriors.notna().all(axis=1).sum()} clips"
    )
    envelope = read_envelope(arguments.audio, classifier.hparams.sample_rate)
    return plot_timeline(posteriors, song.duration, title, envelope)


def run(arguments):
    """Draws a figure, writes it and tells where.

    Arguments
    ---------
    arguments : argparse.Namespace
        What was parsed.

    Raises
    ------
    UserError
        If a file is missing or of another kind than expected.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> path = getfixture("tmp_path") / "empty.pdf"
    >>> arguments = argparse.Namespace(draw=lambda arguments: Figure(), output=path)
    >>> run(arguments)  # doctest: +ELLIPSIS
    written: ...empty.pdf
    """
    figure = arguments.draw(arguments)
    path = arguments.output
    if path is None:
        of = f"{arguments.audio.stem}_" if hasattr(arguments, "audio") else ""
        path = Path(f"{of}{arguments.figure}{SUFFIXES[0]}")
    save_figure(figure, path)
    print(f"written: {path}")


def main(argv=None):
    """Draws a figure from the command line.

    Arguments
    ---------
    argv : list of str, optional
        The command line.

    Example
    -------
    >>> main(["confusion", "nowhere.csv"])
    Traceback (most recent call last):
    ...
    SystemExit: error: nowhere.csv: no such file; expected a confusion_matrix.csv
    """
    parser = argparse.ArgumentParser(
        "python -m ms_sincresnet.plots", description=__doc__.splitlines()[0]
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with exit_on_user_error():
        run(arguments)
