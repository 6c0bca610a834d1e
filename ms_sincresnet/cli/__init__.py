"""The command line ``ms-sincresnet``: names the genres of songs, hands models on."""

import argparse
import logging
import os
import sys
import warnings
from contextlib import contextmanager

from ms_sincresnet import __version__
from ms_sincresnet.cli import commands
from ms_sincresnet.errors import exit_on_user_error

MOST_JOBS = 64

MODEL = "a model folder, or the name user/repository of a model on the Hub"

EXIT_STATUS = """\
exit status:
  0    every song was named
  1    nothing could be done: no such model, no songs, an output that cannot be used
  2    the command line is wrong
  3    some songs could not be named; their rows say why
  130  interrupted; with --output, the same command goes on where it stopped"""


def build_parser():
    """The parser of the command line.

    Returns
    -------
    argparse.ArgumentParser
        The parser. What it parses is for ``commands.run``.

    Example
    -------
    >>> build_parser().parse_args(["classify", "model", "song.mp3"]).top
    3
    """
    parser = argparse.ArgumentParser(
        "ms-sincresnet",
        description="Music genre classification from the raw waveform.",
        epilog="`ms-sincresnet COMMAND --help` tells more of a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(
        metavar="COMMAND", required=True, parser_class=_CommandParser
    )

    def add(name, text, example, more=""):
        command = subparsers.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example:\n  ms-sincresnet {name} {example}\n\n{more}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(command=name, error=command.error)
        return command

    _add_classify(
        add(
            "classify",
            "name the genres of songs",
            "results/run/model music/ --output genres.csv",
            EXIT_STATUS,
        )
    )
    command = add(
        "export",
        "make a model folder of a training run",
        "recipes/GTZAN/results/run my_model",
    )
    command.add_argument("run_folder", metavar="RUN", help="the folder of the run")
    command.add_argument("folder", metavar="DIR", help="the model folder to write")

    command = add(
        "push", "upload a model folder to the Hub", "my_model user/my-genres --private"
    )
    command.add_argument("folder", metavar="DIR", help="the model folder")
    command.add_argument("repo", metavar="REPO", help="its name there: user/repository")
    command.add_argument("--private", action="store_true", help="for you alone")
    command.add_argument("--revision", help="the branch (default: main)")
    command.add_argument(
        "--space", action="store_true", help="as a Space, where it can be tried"
    )

    command = add(
        "convert",
        "make a model folder of the authors' released checkpoint",
        "MS-SincResNet.tar my_model --genres blues,classical,country",
    )
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="the released file")
    command.add_argument("folder", metavar="DIR", help="the model folder to write")
    genres = command.add_mutually_exclusive_group(required=True)
    genres.add_argument(
        "--genres",
        type=_genres,
        metavar="A,B,…",
        help="names of the genres, in the order of its outputs",
    )
    genres.add_argument("--genres-file", metavar="FILE", help="the names, one a line")

    command = add(
        "onnx",
        "export a model's clip classifier as ONNX",
        "results/run/model genres.onnx",
    )
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("file", metavar="FILE", help="the file to write")

    command = add("info", "tell what a model is", "results/run/model")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("--json", action="store_true", help="for programs to read")

    command = add(
        "demo", "open a page where songs can be tried", "results/run/model --port 7860"
    )
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; 0.0.0.0 lets others in (default: %(default)s)",
    )
    command.add_argument(
        "--port",
        type=_whole(65535),
        help="its port (default: the first free from 7860 on)",
    )

    # Reads its own command line, see main.
    subparsers.add_parser("plot", help="draw what a model learned, or hears in a song")
    return parser


class _CommandParser(argparse.ArgumentParser):
    """Takes options before, between and after the songs."""

    def parse_known_args(self, args=None, namespace=None):
        """Parses, as what calls a command's parser asks it to."""
        self.parse_known_args = super().parse_known_args  # what the next line calls
        return self.parse_known_intermixed_args(args, namespace)


def _add_classify(command):
    """Adds the arguments of ``classify``."""
    add = command.add_argument
    add("model", metavar="MODEL", help=MODEL)
    add(
        "paths",
        metavar="FILE|FOLDER",
        nargs="*",
        help="songs, and folders whose audio files are taken, those below too",
    )
    add("--files-from", metavar="LIST", help="more of these, one a line; - is stdin")
    add(
        "--format",
        choices=commands.FORMATS.values(),
        help="of the results (default: what --output ends in; table)",
    )
    add(
        "--output",
        metavar="FILE",
        help="where results go, song by song (default: the screen). Rows that are "
        "there are kept, and what is done is not done again; songs that could not be "
        "named are tried again",
    )
    add(
        "--top",
        type=_whole(),
        default=3,
        metavar="N",
        help="genres told of a song (default: %(default)s)",
    )
    add("--timeline", action="store_true", help="also tell which genre is heard when")
    add(
        "--voting",
        choices=("majority", "mean"),
        help="how a song's clips decide (default: as the model was saved)",
    )
    add(
        "--fuse",
        metavar="MODEL",
        action="append",
        default=[],
        help="another model, that decides together with the first, by the mean of all "
        "posteriors; may be given several times",
    )
    add("--device", help="cpu, cuda, cuda:1 … (default: the fastest there is)")
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="of the arithmetic (default: %(default)s)",
    )
    add(
        "--jobs",
        type=_whole(MOST_JOBS),
        default=min(os.cpu_count() or 1, MOST_JOBS),
        metavar="N",
        help="threads that decode audio (default: one a processor, %(default)s here)",
    )
    cluster = command.add_argument_group(
        "a catalogue that outgrows one machine",
        "FILE|FOLDER may then be addresses of fsspec (s3://bucket/songs), and --output "
        "is a folder or address where each shard of the songs becomes a parquet file.",
    )
    add = cluster.add_argument
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="what runs it: this process, or the workers of a Ray cluster",
    )
    add(
        "--address",
        help="the cluster: auto, HOST:PORT or ray://HOST:10001 (default: this machine)",
    )
    add(
        "--workers",
        type=_whole(),
        metavar="N",
        help="(default: one a processor of the cluster, or one a GPU)",
    )
    add(
        "--shard-size",
        type=_whole(),
        metavar="N",
        help="songs a shard (default: 100)",
    )


def _whole(most=None):
    """The type of an argument that is a whole number from 1 on."""

    def whole(text):
        if not text.isdecimal() or not 1 <= int(text) <= (most or int(text)):
            up_to = "" if most is None else f" and ≤ {most}"
            raise argparse.ArgumentTypeError(
                f"expected a whole number ≥ 1{up_to}; got {text!r}"
            )
        return int(text)

    return whole


def _genres(text):
    """Names between commas."""
    return [name.strip() for name in text.split(",")]


@contextmanager
def _messages():
    """Shows on the error output what concerns the user, and nothing else."""
    from tqdm import tqdm

    from ms_sincresnet.files import printable

    class Handler(logging.Handler):
        """Writes a line, above a progress bar if there is one."""

        def emit(self, record):
            level = record.levelname.lower()
            begin = "" if record.levelno == logging.INFO else f"{level}: "
            tqdm.write(printable(begin + record.getMessage()), file=sys.stderr)

    ours, theirs = logging.getLogger("ms_sincresnet"), logging.getLogger("speechbrain")
    levels, handler = (ours.level, theirs.level), Handler()
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    theirs.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(levels[0])
        theirs.setLevel(levels[1])


def main(argv=None):
    """Runs a command line.

    Arguments
    ---------
    argv : list of str, optional
        The command line.

    Returns
    -------
    int
        The exit status.

    Example
    -------
    >>> main(["info", "no/such/model"])
    Traceback (most recent call last):
    ...
    SystemExit: error: no/such/model: no such model folder
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["plot"]:
        arguments = argparse.Namespace(command="plot", argv=argv[1:])
    else:
        arguments = build_parser().parse_args(argv)
    with exit_on_user_error(), _messages():
        try:
            status = commands.run(arguments)
            sys.stdout.flush()
        except KeyboardInterrupt:
            goes_on = getattr(arguments, "output", None) is not None
            hint = "; the same command goes on where it stopped" if goes_on else ""
            print(f"interrupted{hint}", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # Who reads the output has enough. Python would flush it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
