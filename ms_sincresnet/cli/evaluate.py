"""``ms-sincresnet evaluate``: a model on songs whose genres are known."""

import argparse
import sys
from pathlib import Path

from ms_sincresnet.cli import commands
from ms_sincresnet.cli.plot import OR_BUNDLED_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the songs, the model, and the output."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", nargs="?", help="a folder of songs for each genre")
    text = "in place of FOLDER: a csv file with the columns path and genre"
    add("--labels", metavar="FILE", help=text)
    text = "take the genres from the tags of the songs, not from their folders"
    add("--from-tags", action="store_true", help=text)
    add("--model", metavar="MODEL", help=OR_BUNDLED_HELP)
    text = "yaml file of other names for the model's genres: `hiphop: [Rap, Trap]`"
    add("--genre-map", metavar="FILE", help=text)
    text = "folder for pictures of the confusion matrix and of the reliability"
    add("--figures", type=Path, metavar="DIR", help=text)
    add("--json", action="store_true", help="print all scores and predictions in JSON")
    parser.set_defaults(fuse=[])


def run(arguments: argparse.Namespace) -> int:
    """Classifies songs, and prints the scores."""
    commands.check_labels(arguments)
    from ms_sincresnet.data import labels
    from ms_sincresnet.files import as_json
    from ms_sincresnet.inference import evaluation

    path = arguments.genre_map
    genre_map = labels.read_genre_map(path) if path else {}
    songs = labels.read_labels(arguments.folder, arguments.labels, arguments.from_tags)
    classifier = commands.load_classifier(arguments, arguments.device)
    scores = evaluation.evaluate_songs(classifier, songs, genre_map, arguments.jobs)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print(as_json(scores) if arguments.json else evaluation.as_text(scores))
    if arguments.figures is not None:
        title = Path(arguments.model or "the bundled model").name
        evaluation.draw(scores, arguments.figures, title)
    return 3 if scores["unreadable"] else 0
