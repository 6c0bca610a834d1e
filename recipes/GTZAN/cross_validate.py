#!/usr/bin/env python3
"""Trains and tests a model on all folds of GTZAN, or all models of Table 1.

    python cross_validate.py hparams/ms_sincresnet.yaml --data_folder=GTZAN
    python cross_validate.py --table1 --data_folder=GTZAN
    python cross_validate.py --compare results/table1/mel_resnet results/table1/…

Options that are not listed here go to train.py. The same command resumes a call that
was stopped; finished folds are not repeated.
"""

import argparse
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import speechbrain as sb
import yaml

from ms_sincresnet import models
from ms_sincresnet.errors import HparamError, UserError, exit_on_user_error
from ms_sincresnet.files import atomic_path, read_json, write_json
from ms_sincresnet.training.comparison import compare_sources
from ms_sincresnet.training.folds import is_finished, write_summary
from ms_sincresnet.training.hparams import plain_hparams, quoted

HERE = Path(__file__).parent
TRAIN = HERE / "train.py"
OF_A_FOLD = ("--fold=", "--save_folder", "--model_folder", "--manifest_folder")
OF_THE_MACHINE = ("--cache", "--device=", "--num_workers=")  # change no figure

# Columns of Table 1, accuracies in %; low and high bound the interval of the mean.
COLUMNS = (
    *("row", "system", "K", "L", "SPP", "dataset", "folds"),
    *("mean", "sd", "low", "high", "paper_GTZAN", "paper_ISMIR2004"),
)


def words_between_commas(text: str) -> list[str]:
    """Values of an option such as ``--rows=mel_resnet,sincnet_k80_l251``."""
    return [word.strip() for word in text.split(",")]


def get_parser() -> argparse.ArgumentParser:
    """The command line, but for what goes to train.py."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s hparams/SYSTEM.yaml [options] [options of train.py]\n"
        "       %(prog)s --table1 [options] [options of train.py]\n"
        "       %(prog)s --parameters [--rows ID,ID]\n"
        "       %(prog)s --compare FOLDER FOLDER … [--fuse]",
        description=__doc__.partition("\n\n")[0],
        allow_abbrev=False,  # --fold is not --folds
    )
    add = parser.add_argument
    add("--table1", action="store_true", help="run the rows of table1.yaml instead")
    add("--parameters", action="store_true", help="count the rows' parameters instead")
    listed = {"type": words_between_commas}
    add("--rows", metavar="ID,ID", help="some of the rows (default: all)", **listed)
    add("--folds", metavar="K,K", help="some folds, from 0 (default: all)", **listed)
    default = "results/SYSTEM/cross_validation/seed_SEED, or results/table1"
    help_text = f"for folds and summary, or the rows of Table 1 (default: {default})"
    add("--output_folder", type=Path, metavar="FOLDER", help=help_text)
    help_text = "compare two models, by the folders of their tests"
    add("--compare", nargs="+", metavar="FOLDER", help=help_text)
    add("--fuse", action="store_true", help="compare them with their late fusion")
    return parser


def main(arguments: list[str]) -> None:
    """Runs what the command line asks for."""
    # As in train.py the yaml file is first: argparse could not tell it from values of
    # the options that it does not know.
    n_files = int(bool(arguments) and not arguments[0].startswith("-"))
    options, words = get_parser().parse_known_args(arguments[n_files:])
    chosen = (n_files, options.table1, options.parameters, options.compare)
    if sum(map(bool, chosen)) != 1:
        get_parser().error(
            "expected a yaml file first, or one of --table1, --parameters, --compare"
        )
    if options.compare:
        print(compare_sources(options.compare, options.fuse))
    elif options.parameters:
        print(parameter_table(read_rows(options.rows)), end="")
    elif options.table1:
        folder = options.output_folder or Path("results/table1")
        run_table1(read_rows(options.rows), words, folder, options.folds)
    else:
        run_folds(arguments[0], words, options.output_folder, options.folds)


def overrides_of(words: list[str]) -> str:
    """Overrides of hparams among options of train.py, as yaml."""
    return sb.parse_arguments(quoted(["hparams.yaml", *words]))[2]


def run_folds(
    hparams_file: str | Path,
    words: list[str],
    folder: Path | None = None,
    folds: list[str] | None = None,
    system: str | None = None,
) -> None:
    """Trains and tests on each fold that is not finished, and prints the summary."""
    for word in words:
        if word.startswith(OF_A_FOLD):
            raise HparamError(
                f"{word}: each fold has its own; leave it out. --folds chooses folds, "
                "--output_folder the folder of all of them"
            )
    stem = Path(hparams_file).stem
    hparams = plain_hparams(hparams_file, overrides_of(words))
    if hparams["protocol"] != "random":
        raise HparamError(
            f"protocol: {hparams['protocol']!r} is a single split without folds; run "
            f"train.py {hparams_file} --protocol={hparams['protocol']}"
        )
    n_folds = hparams["n_folds"]
    folder = folder or Path(f"results/{stem}/cross_validation/seed_{hparams['seed']}")
    refuse_other_options(folder, [Path(hparams_file).name, *words])
    about = {"system": system or stem, "options": words}
    summary = ""
    for fold in folds or range(n_folds):
        if is_finished(folder / f"fold_{fold}"):
            continue
        print(f"fold {fold}, of 0 to {n_folds - 1}")
        own = [f"--fold={fold}", f"--output_folder={folder / f'fold_{fold}'}"]
        command = [TRAIN, hparams_file, *words, *own]
        status = subprocess.run([sys.executable, *map(str, command)]).returncode
        if status:
            raise UserError(f"fold {fold} failed (exit status {status}): see above")
        summary = write_summary(folder, n_folds, **about)
    print(f"{folder}: {summary or write_summary(folder, n_folds, **about)}")


def refuse_other_options(folder: Path, words: list[str]) -> None:
    """Raises if the folder's folds were run with other options."""
    note = folder / "options.json"
    words = sorted(word for word in words if not word.startswith(OF_THE_MACHINE))
    noted = read_json(note) if note.is_file() else words
    if noted != words:
        raise HparamError(
            f"{folder}: its folds were run with {' '.join(noted)}; repeat these "
            "options, or give another output_folder"
        )
    write_json(words, note)


def read_rows(ids: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of Table 1, all or some."""
    rows = yaml.safe_load((HERE / "table1.yaml").read_text(encoding="utf-8"))
    known = [row["id"] for row in rows]
    unknown = ", ".join(set(ids or []) - set(known))
    if unknown:
        raise HparamError(f"--rows: no row {unknown}; expected {', '.join(known)}")
    return [row for row in rows if row["id"] in (ids or known)]


@cache
def hparam_names(hparams_file: str) -> frozenset[str]:
    """Names of the hparams of a row's file."""
    return frozenset(plain_hparams(HERE / hparams_file, "data_folder: none"))


def row_words(row: dict[str, Any], words: list[str]) -> list[str]:
    """A row's options of train.py: its overrides, and the words that fit its model.

    >>> (row,) = read_rows(["sincnet_k80_l251"])
    >>> row_words(row, ["--resnet_weights=null", "--seed=1", "--device=cpu"])
    ['--n_filters=80', '--kernel_size=251', '--seed=1', '--device=cpu']
    """
    given = yaml.safe_load(overrides_of(words)) or {}
    for name in row["overrides"].keys() & given:
        raise HparamError(f"--{name}: the rows of Table 1 set it; leave it out")
    unknown = {f"--{name}" for name in given.keys() - hparam_names(row["hparams_file"])}
    own = [f"--{name}={value}" for name, value in row["overrides"].items()]
    return own + [word for word in words if word.partition("=")[0] not in unknown]


def run_table1(
    rows: list[dict[str, Any]], words: list[str], folder: Path, folds: list[str] | None
) -> None:
    """Cross-validates the rows and writes ``table1.md`` and ``table1.csv``."""
    known = set().union(*(hparam_names(row["hparams_file"]) for row in rows))
    for name in yaml.safe_load(overrides_of(words)) or {}:
        if name not in known:
            raise HparamError(f"--{name}: no such hparam in any of the rows' files")
    try:
        for row in rows:
            print(f"row {row['id']}")
            file, own = HERE / row["hparams_file"], row_words(row, words)
            run_folds(file, own, folder / row["id"], folds, row["id"])
    finally:
        if any(folder.glob("*/summary.json")):
            write_table1(folder)
            print(f"written: {folder / 'table1.md'} and table1.csv")


def write_table1(folder: Path) -> None:
    """Writes ``table1.md`` and ``table1.csv``: our accuracies next to the paper's."""
    rows = [describe_row(row, folder / row["id"]) for row in read_rows()]
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object).fillna("")
    for suffix, text in [("csv", table.to_csv(index=False)), ("md", markdown(table))]:
        with atomic_path(folder / f"table1.{suffix}") as path:
            path.write_text(text, encoding="utf-8")


def describe_row(row: dict[str, Any], folder: Path) -> dict[str, str]:
    """A row of Table 1, with the figures of its folder if it was run."""
    overrides, path = row["overrides"], folder / "summary.json"
    taps = overrides.get("kernel_sizes") or [overrides.get("kernel_size", "")]
    described = {
        "row": row["id"],
        "system": row["system"],
        "K": str(overrides.get("n_filters", "")),
        "L": ", ".join(map(str, taps)),
        "SPP": "yes" if overrides.get("pooling") == "spp" else "",
        **{f"paper_{name}": f"{paper:.2f}" for name, paper in row["paper"].items()},
    }
    if path.is_file():
        summary = read_json(path)
        songs = summary["song_accuracy"]
        shares = [songs["mean"]]
        if songs["interval"]:  # of several folds
            shares += [songs["sd"], *songs["interval"]]
        figures = zip(("mean", "sd", "low", "high"), shares, strict=False)
        described |= {name: f"{100 * share:.2f}" for name, share in figures}
        described["dataset"] = summary["dataset"]
        described["folds"] = f"{summary['folds_done']} of {summary['n_folds']}"
    return described


def parameter_table(rows: list[dict[str, Any]]) -> str:
    """Numbers of parameters of the models of Table 1, as a table in Markdown."""
    counts = []
    for row in rows:
        overrides = yaml.safe_dump({"data_folder": "none", **row["overrides"]})
        hparams = plain_hparams(HERE / row["hparams_file"], overrides)
        name, arguments = hparams["model"]
        arguments.pop("weights", None)
        model = models.MODELS[name.rpartition(".")[2]](**arguments)
        count = sum(parameter.numel() for parameter in model.parameters())
        counts.append({"row": row["id"], "parameters": f"{count:,}"})
    return markdown(pd.DataFrame(counts))


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown.

    >>> print(markdown(pd.DataFrame({"row": ["sincnet"], "folds": [10]})), end="")
    | row | folds |
    | --- | --- |
    | sincnet | 10 |
    """
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # into a file as well
    with exit_on_user_error("stopped; the same command resumes"):
        main(sys.argv[1:])
