#!/usr/bin/env python3
"""Trains and tests a system on all folds of GTZAN, or all systems of Table 1.

    python cross_validate.py hparams/ms_sincresnet.yaml --n_folds=10 --data_folder=GTZAN
    python cross_validate.py --table1 --data_folder=GTZAN

Options that are not listed here go to train.py. A call that was stopped goes on when it
is given again; finished folds are not repeated.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml

from ms_sincresnet.errors import HparamError, UserError, exit_on_user_error
from ms_sincresnet.files import atomic_path
from ms_sincresnet.training.cross_validation import (
    cross_validate,
    describe,
    read_options,
)
from ms_sincresnet.training.hparams import (
    load_hparams,
    parse_arguments,
    plain_hparams,
)

HERE = Path(__file__).parent
TRAIN = HERE / "train.py"

# Of table1.csv; accuracies in %, low and high of the interval of the mean.
COLUMNS = (
    *("row", "system", "K", "L", "SPP", "dataset", "folds"),
    *("mean", "sd", "low", "high", "paper_GTZAN", "paper_ISMIR2004"),
)
TITLE = (
    "Table 1 of the paper: song accuracy in %; ours is the mean ± the standard "
    "deviation over the folds."
)
HEADINGS = {
    "mean": "ours",
    "paper_GTZAN": "the paper, GTZAN",
    "paper_ISMIR2004": "the paper, ISMIR2004",
}


def parse(arguments):
    """Parses the command line.

    Arguments
    ---------
    arguments : list of str
        The command line.

    Returns
    -------
    options : argparse.Namespace
        What is for this script.
    words : list of str
        What is for train.py.
    """
    parser = argparse.ArgumentParser(
        usage="%(prog)s hparams/SYSTEM.yaml [options] [options of train.py]\n"
        "       %(prog)s --table1 [options] [options of train.py]",
        description=__doc__.partition("\n\n")[0],
        allow_abbrev=False,  # --fold is none of --folds
    )
    parser.add_argument(
        "--table1", action="store_true", help="run the rows of table1.yaml instead"
    )
    parser.add_argument(
        "--parameters",
        action="store_true",
        help="print how many parameters the rows have, and run nothing",
    )
    parser.add_argument(
        "--rows", metavar="ID,ID", help="some of the rows (default: all)"
    )
    parser.add_argument(
        "--n_folds", type=int, metavar="N", help="folds (default: as in the yaml file)"
    )
    parser.add_argument(
        "--folds", metavar="K,K", help="run some of the folds, from 0 (default: all)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="folds at a time (default: 1)"
    )
    parser.add_argument(
        "--output_folder",
        type=Path,
        help="where folds and summary go (default: results/<yaml file>/"
        "cross_validation/seed_<seed>, or results/table1 for a folder a row)",
    )
    # As for train.py the yaml file stands first: of what follows, argparse could not
    # tell it from the values of options that it does not know.
    n_files = int(bool(arguments) and not arguments[0].startswith("-"))
    options, words = parser.parse_known_args(arguments[n_files:])
    options.hparams_file = arguments[0] if n_files else None
    of_rows = options.table1 or options.parameters
    if of_rows == bool(n_files):
        parser.error("expected a yaml file first, or else --table1 or --parameters")
    if options.rows and not of_rows:
        parser.error("--rows goes with --table1 or --parameters")
    if options.jobs < 1:
        parser.error(f"--jobs: expected 1 or more; got {options.jobs}")
    return options, words


def main(arguments):
    """Runs what the command line asks for.

    Arguments
    ---------
    arguments : list of str
        The command line.
    """
    options, words = parse(arguments)
    if options.parameters:
        print(parameter_table(read_rows(options.rows)))
    elif options.table1:
        run_table1(read_rows(options.rows), words, options)
    else:
        run_system(options.hparams_file, words, options, options.output_folder)


def run_system(hparams_file, words, options, folder=None, system=None):
    """Cross-validates a system and prints the summary.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        Its yaml file.
    words : list of str
        Options of train.py.
    options : argparse.Namespace
        With n_folds, folds and jobs.
    folder : str or pathlib.Path, optional
        Where to write.
    system : str, optional
        Name for the summary.
    """
    _, hparams = read_options(hparams_file, words)
    if hparams["protocol"] != "random":
        raise HparamError(
            f"protocol: {hparams['protocol']!r} is one split, so there are no folds to "
            f"run; train and test on it with train.py {hparams_file} "
            f"--protocol={hparams['protocol']}"
        )
    n_folds = hparams["n_folds"] if options.n_folds is None else options.n_folds
    stem = Path(hparams_file).stem
    folder = folder or f"results/{stem}/cross_validation/seed_{hparams['seed']}"
    summary = cross_validate(
        TRAIN,
        hparams_file,
        words,
        folder,
        n_folds=n_folds,
        folds=choose_folds(options.folds, n_folds),
        jobs=options.jobs,
        system=system,
    )
    print(f"{folder}: {describe(summary)}")


def choose_folds(text, n_folds):
    """The folds to run.

    Arguments
    ---------
    text : str or None
        Numbers with commas between; None for all.
    n_folds : int
        Folds of the split.

    Returns
    -------
    list of int
        The folds, in order.

    Raises
    ------
    HparamError
        If there are fewer than two folds, or one that is asked for is none of them.

    Example
    -------
    >>> choose_folds("3,0", n_folds=10)
    [0, 3]
    """
    if n_folds < 2:
        raise HparamError(f"--n_folds: expected 2 or more; got {n_folds}")
    known = [str(fold) for fold in range(n_folds)]
    chosen = known if text is None else [word.strip() for word in text.split(",")]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise HparamError(
            f"--folds: expected numbers from 0 to {n_folds - 1} with commas between; "
            f"got {text!r}"
        )
    return sorted({int(fold) for fold in chosen})


def read_rows(ids=None):
    """The rows of Table 1.

    Arguments
    ---------
    ids : str, optional
        Those wanted, with commas between; all without it.

    Returns
    -------
    list of dict
        id, system, hparams_file, overrides, and paper: its accuracies, in %.

    Raises
    ------
    HparamError
        If there is no such row.

    Example
    -------
    >>> (row,) = read_rows("ms_sincresnet_k160_spp")
    >>> row["paper"]["GTZAN"], row["overrides"]["pooling"]
    (91.49, 'spp')
    """
    rows = yaml.safe_load((HERE / "table1.yaml").read_text(encoding="utf-8"))
    if ids is None:
        return rows
    wanted = [name.strip() for name in ids.split(",")]
    known = [row["id"] for row in rows]
    for name in wanted:
        if name not in known:
            raise HparamError(
                f"--rows: no row {name!r} in Table 1; expected some of "
                f"{', '.join(known)}"
            )
    return [row for row in rows if row["id"] in wanted]


def row_words(row, words=()):
    """The command line of a row: its overrides, and those of other words that fit.

    Arguments
    ---------
    row : dict
        As ``read_rows`` returns it.
    words : list of str
        Options of train.py for all rows. A hparam that the row's system does not have,
        such as SincNet no resnet_weights, is left out.

    Returns
    -------
    list of str
        Options of train.py.

    Raises
    ------
    HparamError
        If one of the words is what the row itself sets.

    Example
    -------
    >>> (row,) = read_rows("sincnet_k80_l251")
    >>> row_words(row, ["--resnet_weights=null", "--seed=1", "--device=cpu"])
    ['--n_filters=80', '--kernel_size=251', '--seed=1', '--device=cpu']
    """
    _, _, overrides = parse_arguments([row["hparams_file"], *words])
    given = yaml.safe_load(overrides) or {}
    for name in row["overrides"]:
        if name in given:
            raise HparamError(f"--{name}: the rows of Table 1 set it; leave it out")
    unknown = given.keys() - plain_hparams(HERE / row["hparams_file"]).keys()
    fitting, fits = [], True
    for word in words:
        if word.startswith("--"):  # else the value of the word before
            fits = word[2:].partition("=")[0] not in unknown
        if fits:
            fitting.append(word)
    own = [f"--{name}={value}" for name, value in row["overrides"].items()]
    return own + fitting


def refuse_unknown(rows, words):
    """Raises for an hparam that none of the rows has.

    Arguments
    ---------
    rows : list of dict
        As ``read_rows`` returns them.
    words : list of str
        Options of train.py for all rows.

    Raises
    ------
    HparamError
        If an override fits no row.
    """
    _, _, overrides = parse_arguments(["table1.yaml", *words])
    known = set()
    for hparams_file in {row["hparams_file"] for row in rows}:
        known |= plain_hparams(HERE / hparams_file).keys()
    for name in yaml.safe_load(overrides) or {}:
        if name not in known:
            raise HparamError(f"--{name}: no such hparam in any of the rows' files")


def run_table1(rows, words, options):
    """Cross-validates the rows and writes ``table1.md`` and ``table1.csv``.

    Arguments
    ---------
    rows : list of dict
        As ``read_rows`` returns them.
    words : list of str
        Options of train.py, for all rows.
    options : argparse.Namespace
        With n_folds, folds, jobs and output_folder.
    """
    refuse_unknown(rows, words)
    folder = options.output_folder or Path("results/table1")
    try:
        for n, row in enumerate(rows, start=1):
            print(f"row {n} of {len(rows)}: {row['id']}")
            hparams_file = HERE / row["hparams_file"]
            try:
                run_system(
                    hparams_file,
                    row_words(row, words),
                    options,
                    folder / row["id"],
                    row["id"],
                )
            except UserError as error:
                raise UserError(f"row {row['id']}: {error}") from error
    finally:
        if any(folder.glob("*/summary.json")):
            write_table1(folder)
            print(f"written: {folder / 'table1.md'} and table1.csv")


def write_table1(folder):
    """Writes ``table1.md`` and ``table1.csv``: our accuracies beside the paper's.

    Arguments
    ---------
    folder : pathlib.Path
        Where each row that was run has a folder with its ``summary.json``.
    """
    rows = [describe_row(row, folder / row["id"]) for row in read_rows()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    with atomic_path(folder / "table1.csv") as temporary_path:
        table.to_csv(temporary_path, index=False, float_format="%.2f")
    numbers = table.select_dtypes("number")
    table[numbers.columns] = numbers.map("{:.2f}".format).where(numbers.notna(), "")
    table["mean"] += table["sd"].radd(" ± ").where(table["sd"] != "", "")
    table = table.drop(columns=["row", "sd", "low", "high"]).fillna("")
    text = f"{TITLE}\n\n{markdown(table.rename(columns=HEADINGS))}\n"
    with atomic_path(folder / "table1.md") as temporary_path:
        temporary_path.write_text(text, encoding="utf-8")


def describe_row(row, folder):
    """A row of ``table1.csv``.

    Arguments
    ---------
    row : dict
        As ``read_rows`` returns it.
    folder : pathlib.Path
        Holds its ``summary.json``, if it was run.

    Returns
    -------
    dict
        Some of ``COLUMNS``; accuracies in %.

    Example
    -------
    >>> (row,) = read_rows("sincresnet_k80_l251")
    >>> describe_row(row, Path("results/nowhere"))["L"]
    '251, 251, 251'
    """
    overrides, path = row["overrides"], folder / "summary.json"
    taps = overrides.get("kernel_sizes") or [overrides.get("kernel_size", "")]
    described = {
        "row": row["id"],
        "system": row["system"],
        "K": str(overrides.get("n_filters", "")),
        "L": ", ".join(map(str, taps)),
        "SPP": "yes" if overrides.get("pooling") == "spp" else "",
        "paper_GTZAN": row["paper"]["GTZAN"],
        "paper_ISMIR2004": row["paper"]["ISMIR2004"],
    }
    if not path.is_file():
        return described
    summary = json.loads(path.read_text(encoding="utf-8"))
    songs = summary["song_accuracy"]
    interval = songs["interval"] or (None, None)  # of one fold
    percent = 100 * np.array([songs["mean"], songs["sd"], *interval], dtype=float)
    return described | {
        "dataset": summary["dataset"],
        "folds": f"{summary['folds_done']} of {summary['n_folds']}",
        **dict(zip(("mean", "sd", "low", "high"), percent, strict=True)),
    }


def load_row(row, words):
    """Builds a row's system as train.py does, but from random weights.

    Arguments
    ---------
    row : dict
        As ``read_rows`` returns it.
    words : list of str
        Options of train.py, an output_folder among them: it is made.

    Returns
    -------
    dict
        The hparams.
    """
    words = row_words(row, ["--resnet_weights=null", *words])
    path, _, overrides = parse_arguments([str(HERE / row["hparams_file"]), *words])
    return load_hparams(path, overrides)


def parameter_table(rows):
    """How many parameters the systems of Table 1 have.

    Arguments
    ---------
    rows : list of dict
        As ``read_rows`` returns them.

    Returns
    -------
    str
        A table in Markdown.
    """
    counts = []
    with TemporaryDirectory() as folder:
        for row in rows:
            model = load_row(row, [f"--output_folder={folder}"])["model"]
            count = sum(parameter.numel() for parameter in model.parameters())
            counts.append({"row": row["id"], "parameters": f"{count:,}"})
    return markdown(pd.DataFrame(counts))


def markdown(table):
    """A table in Markdown.

    Arguments
    ---------
    table : pandas.DataFrame
        The table, of texts.

    Returns
    -------
    str
        Lines.

    Example
    -------
    >>> print(markdown(pd.DataFrame({"row": ["sincnet"], "folds": [10]})))
    | row | folds |
    | --- | --- |
    | sincnet | 10 |
    """
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # into a file as well
    # What ends this script ends its folds, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with exit_on_user_error():
        main(sys.argv[1:])
