"""Arguments of the commands. Nothing heavy is imported, so that help is immediate."""

import argparse
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ms_sincresnet import __version__
from ms_sincresnet.cli import commands, evaluate, neighbours, plot, tag, train
from ms_sincresnet.files import n_processors

MOST_JOBS = 64
EXIT_STATUS = """\
exit status:
  0    no song has an error
  1    nothing could be done: no such model, no songs, an unusable output
  2    the command line is wrong
  3    some songs have an error; their rows say which
  130  interrupted; with --output, run the same command again to resume"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Arguments of a command line; ``run`` executes them."""
    arguments, more = build_parser().parse_known_args(argv)
    # argparse leaves songs that follow an option (SONG --top 1 SONG) to the caller.
    end = more.index("--") if "--" in more else len(more)
    is_option = any(word.startswith("-") and word != "-" for word in more[:end])
    if is_option or (more and not hasattr(arguments, "songs")):
        arguments.error(f"unrecognized arguments: {' '.join(more)}")
    if more:
        arguments.songs += more[:end] + more[end + 1 :]
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``ms-sincresnet``."""
    parser = argparse.ArgumentParser(
        "ms-sincresnet",
        description="Music genre classification from the raw waveform.",
        epilog="`ms-sincresnet COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(run: Callable, text: str, example: str, more: str = "") -> Any:
        subparser = subparsers.add_parser(
            example.split()[0],
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example:\n  ms-sincresnet {example}\n\n{more}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=run, error=subparser.error)
        return subparser

    example = "classify music/ --output genres.csv"
    text = "predict the genres of songs"
    _add_classify(add(commands.classify, text, example, EXIT_STATUS))

    example = "embed music/ --output songs.parquet"
    command = add(commands.classify, "embed songs for `similar`", example, EXIT_STATUS)
    _add_songs(command)
    _add_options(command, voting=False)
    text = "parquet file for the embeddings; an earlier run is resumed"
    command.add_argument("--output", metavar="FILE", required=True, help=text)
    command.set_defaults(embeds=True, fuse=[], voting=None, playlists=None, format=None)
    command.set_defaults(top=1, timeline=False, min_posterior=0.0)

    example = "similar song.mp3 --index songs.parquet"
    command = add(neighbours.similar, "find the songs most similar to a song", example)
    neighbours.add_arguments(command)
    text = "number of songs (default: %(default)s)"
    command.add_argument("--top", type=_whole(), default=10, metavar="N", help=text)
    _add_arithmetic(command)

    example = "tag music/ --min-posterior 0.7"
    text = "write the genres of songs into their tags"
    command = add(tag.run, text, example, "exit status 3: some songs were not tagged")
    tag.add_arguments(command.add_argument, _whole(), _share)
    _add_options(command)
    command.set_defaults(fuse=[])

    example = "train music/ --output my_model"
    text = "train a model on genres of your own"
    train.add_arguments(add(train.run, text, example, train.EXIT_STATUS))

    example = "evaluate music/ --figures figures/"
    text = "measure how well a model does on songs whose genres are known"
    command = add(evaluate.run, text, example, "exit status 3: unreadable songs")
    evaluate.add_arguments(command)
    _add_options(command)

    example = "export recipes/GTZAN/results/run my_model"
    command = add(commands.export, "make a model folder from a training run", example)
    command.add_argument("run_folder", metavar="RUN", help="the folder of the run")
    command.add_argument("folder", metavar="DIR", help="the model folder to write")
    text = "half the size: layers of the ResNet and the classifier in float16"
    command.add_argument("--half", action="store_true", help=text)

    example = "push my_model user/my-genres --private"
    command = add(commands.push, "upload a model folder to the Hub", example)
    command.add_argument("folder", metavar="DIR", help="the model folder")
    command.add_argument("repo", metavar="REPO", help="its name there: user/repository")
    command.add_argument("--private", action="store_true", help="visible to you alone")
    command.add_argument("--revision", help="the branch (default: main)")
    command.add_argument("--space", action="store_true", help="as a Space, a demo page")

    example = "convert MS-SincResNet.tar my_model --genres blues,classical,country"
    text = "make a model folder from the authors' released checkpoint"
    command = add(commands.convert, text, example)
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="the released file")
    command.add_argument("folder", metavar="DIR", help="the model folder to write")
    genres = command.add_mutually_exclusive_group(required=True)
    text = "names of the genres, in the order of its outputs"
    genres.add_argument("--genres", type=_names, metavar="A,B,…", help=text)
    text = "file of the names, one per line"
    genres.add_argument("--genres-file", dest="genres", type=_lines, help=text)

    example = "onnx results/run/model genres.onnx"
    command = add(commands.onnx, "export a model's clip classifier to ONNX", example)
    command.add_argument("model", metavar="MODEL", help=plot.MODEL_HELP)
    command.add_argument("file", metavar="FILE", help="the file to write")

    command = add(commands.info, "describe a model", "info results/run/model")
    _add_model(command)
    command.add_argument("--json", action="store_true", help="in JSON")

    example = "demo results/run/model --port 7860"
    command = add(commands.demo, "open a page where songs can be tried", example)
    _add_model(command)
    text = "address to listen at; 0.0.0.0 lets others in (default: %(default)s)"
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    command.add_argument("--host", default=host, help=text)
    text = "its port (default: the first free one from 7860)"
    command.add_argument("--port", type=_whole(65535), help=text)

    example = "plot timeline song.mp3"
    text = "draw what a model has learned, or its predictions for a song"
    plot.add_arguments(add(plot.run, text, example))
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    """Adds a model that may be left out."""
    help_text = plot.OR_BUNDLED_HELP
    command.add_argument("model", metavar="MODEL", nargs="?", help=help_text)


def _add_classify(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``classify``."""
    _add_songs(command)
    add = command.add_argument
    text = "another model; the mean of all posteriors decides (repeatable)"
    add("--fuse", metavar="MODEL", action="append", default=[], help=text)
    text = "file for the results (default: the screen). Rows of an earlier "
    text += "run are kept and their songs skipped, except those with an error"
    add("--output", metavar="FILE", help=text)
    formats = list(commands.FORMATS.values())
    text = f"of the results: {', '.join(formats)} (default: by the suffix of --output)"
    add("--format", choices=formats, metavar="FORMAT", help=text)
    text = "number of genres per song (default: %(default)s)"
    add("--top", type=_whole(), default=3, metavar="N", help=text)
    add("--timeline", action="store_true", help="add the genres over time")
    text = "leave the genre empty where its posterior is less (0 to 1)"
    add("--min-posterior", type=_share, default=0.0, metavar="P", help=text)
    text = "folder for an m3u8 playlist per genre, of all songs in the results"
    add("--playlists", metavar="DIR", help=text)
    _add_options(command)
    command.set_defaults(embeds=False)


def _add_songs(command: argparse.ArgumentParser) -> None:
    """Adds the songs, the model and the options of Ray."""
    add = command.add_argument
    text = "songs, playlists, folders; - is stdin"
    add("songs", metavar="SONG|FOLDER", nargs="*", help=text)
    add("--model", metavar="MODEL", help=plot.OR_BUNDLED_HELP)
    text = "playlist, or file with a song or folder per line; - is stdin"
    add("--files-from", metavar="LIST", help=text)
    add = command.add_argument_group(
        "catalogues too large for one machine",
        "SONG|FOLDER may then be addresses of fsspec (s3://bucket/songs); --output is "
        "a folder or address that gets a parquet file per shard of the songs.",
    ).add_argument
    text = "run in this process, or on the workers of a Ray cluster"
    add("--engine", choices=("local", "ray"), default="local", help=text)
    text = "the cluster: auto, HOST:PORT or ray://HOST:10001 (default: this machine)"
    add("--address", help=text)
    text = "(default: one per processor of the cluster, or one per GPU)"
    add("--workers", type=_whole(), metavar="N", help=text)
    add("--shard-size", type=_whole(), metavar="N", help="(default: 100 songs)")


def _add_options(command: argparse.ArgumentParser, voting: bool = True) -> None:
    """Adds the options of all commands that classify or embed many songs."""
    add = command.add_argument
    if voting:
        text = "how the clips of a song decide (default: as saved in the model)"
        add("--voting", choices=("majority", "mean"), help=text)
    _add_arithmetic(command)
    text = "threads that decode audio (default: one per processor, %(default)s here)"
    jobs = min(n_processors(), MOST_JOBS)
    add("--jobs", type=_whole(MOST_JOBS), default=jobs, metavar="N", help=text)


def _add_arithmetic(command: argparse.ArgumentParser) -> None:
    """Adds the device, the hop and the precision."""
    add = command.add_argument
    add("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there, or cpu)")
    text = "seconds from one clip to the next (default: as saved in the model)"
    add("--hop", type=_positive, metavar="SECONDS", help=text)
    text = "of the arithmetic; winograd is fp32 with fewer multiplications, on a CPU "
    text += "(default: %(default)s, the fastest on this machine)"
    choices = ("auto", "fp32", "winograd", "bf16", "fp16")
    add("--precision", choices=choices, default="auto", help=text)


def _whole(most: int | None = None) -> Callable[[str], int]:
    """Type of an argument that is a whole number from 1."""

    def whole(text: str) -> int:
        if text.isdecimal() and 1 <= int(text) <= (most or int(text)):
            return int(text)
        wanted = "a whole number ≥ 1" + (f" and ≤ {most}" if most else "")
        raise argparse.ArgumentTypeError(f"expected {wanted}; got {text!r}")

    return whole


def _share(text: str) -> float:
    """Type of an argument that is a number from 0 to 1."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1; got {text!r}")


def _positive(text: str) -> float:
    """Type of an argument that is a positive number."""
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number > 0; got {text!r}")


def _lines(path: str) -> list[str]:
    """The lines of a file that are not empty."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path}: cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def _names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",")]
