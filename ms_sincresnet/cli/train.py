"""``ms-sincresnet train``: a model of genres of one's own."""

import argparse
import logging
import shutil
from pathlib import Path

from ms_sincresnet.cli import commands
from ms_sincresnet.cli.plot import OR_BUNDLED_HELP
from ms_sincresnet.errors import UserError
from ms_sincresnet.files import printable

RESUME = "run the same command again to resume"
EXIT_STATUS = f"""\
exit status:
  0    the model is written
  1    nothing could be trained: too few songs, an unusable output, a full disk
  2    the command line is wrong
  130  interrupted; {RESUME}"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``train``."""
    add = command.add_argument
    text = "songs in a subfolder for each genre, of any names; two genres or more"
    add("folder", metavar="FOLDER", nargs="?", help=text)
    text = "instead of FOLDER: a csv file with the columns path and genre"
    add("--labels", metavar="FILE", help=text)
    text = "take the genres from the tags of the songs in FOLDER"
    add("--from-tags", action="store_true", help=text)
    add("--output", metavar="MODEL", required=True, help="the model folder to write")
    text = f"the model to start from: {OR_BUNDLED_HELP}"
    add("--from", dest="source", metavar="MODEL", help=text)
    text = "yaml file of all else (default: training/finetune.yaml in the package)"
    add("--hparams", metavar="FILE", dest="hparams_file", help=text)
    add("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there, or cpu)")
    text = "of all that is random (default: the one in the yaml file)"
    add("--seed", type=int, metavar="N", help=text)


def run(arguments: argparse.Namespace) -> None:
    """Trains a model, and prints its predictions for the validation songs."""
    commands.check_labels(arguments)
    folder, file, output = arguments.folder, arguments.labels, arguments.output
    import pandas as pd
    from scipy.stats import binomtest

    from ms_sincresnet.data import labels
    from ms_sincresnet.training import finetuning

    logging.getLogger("ms_sincresnet.training.checkpoints").setLevel(logging.WARNING)
    songs = labels.read_labels(folder, file, from_tags=arguments.from_tags)
    names = ("source", "hparams_file", "device", "seed")
    options = {name: getattr(arguments, name) for name in names}
    try:
        name = Path(file or folder).absolute().name
        table = finetuning.finetune(songs, output, name, **options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {RESUME}") from None
    except (OSError, RuntimeError) as error:  # libsndfile and PyTorch hide a full disk
        is_full = shutil.disk_usage(Path(output).absolute().parent).free < 2**26
        if not (is_full or isinstance(error, OSError)):
            raise
        reason = "the disk is full; make room" if is_full else error
        raise UserError(f"{output}: {reason}; then {RESUME}") from error
    print("validation songs by genre (rows) and predicted genre (columns):")
    print(pd.crosstab(table.genre, table.predicted).to_string())
    right, paths = table.genre == table.predicted, songs.set_index("ID").path
    for song in table[~right].itertuples():
        path = printable(str(paths[song.ID]))
        print(f"wrong: {path}: {song.genre}, predicted {song.predicted}")
    interval = binomtest(sum(right), len(right)).proportion_ci(method="wilson")
    low, high = (f"{100 * bound:.0f}" for bound in interval)
    accuracy = f"{100 * right.mean():.0f} %, 95 % interval {low} to {high} %"
    print(f"{sum(right)} of {len(right)} validation songs are right ({accuracy});")
    print("since they chose the epoch, expect rather less of other songs")
    print(f"written: {output}")
