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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import speechbrain as sb
import yaml

from ms_sincresnet import models
from ms_sincresnet.errors import HparamError, UserError, exit_on_user_error
from ms_sincresnet.files import atomic_path, read_json, write_json
from ms_sincresnet.training.comparison import report_comparison
from ms_sincresnet.training.folds import is_finished, write_summary
from ms_sincresnet.training.hparams import plain_hparams

HERE = Path(__file__).parent
TRAIN = HERE / "train.py"

# Options that change no figure.
OF_THE_MACHINE = ("cache", "cache_folder", "device", "noprogressbar", "num_workers")

# Columns of table1.csv, accuracies in %; low and high bound the interval of the mean.
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


def parser() -> argparse.ArgumentParser:
    """The command line, but for what goes to train.py."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s hparams/SYSTEM.yaml [options] [options of train.py]\n"
        "       %(prog)s --table1 [options] [options of train.py]\n"
        "       %(prog)s --parameters [--rows ID,ID]\n"
        "       %(prog)s --compare FOLDER FOLDER … [--fuse] [--output JSON]",
        description=__doc__.partition("\n\n")[0],
        allow_abbrev=False,  # --fold is not --folds
    )
    add = parser.add_argument
    add("--table1", action="store_true", help="run the rows of table1.yaml instead")
    add("--parameters", action="store_true", help="count the rows' parameters instead")
    add("--rows", metavar="ID,ID", help="some of the rows (default: all)")
    add("--folds", metavar="K,K", help="some of the folds, from 0 (default: all)")
    add(
        "--output_folder",
        type=Path,
        help="for folds and summary (default: results/<yaml file>/cross_validation/"
        "seed_<seed>), or for the rows of Table 1 (default: results/table1)",
    )
    add(
        "--compare",
        nargs="+",
        metavar="FOLDER",
        help="compare two models, by the folders of their tests",
    )
    add("--fuse", action="store_true", help="compare them with their late fusion")
    add("--output", metavar="JSON", help="also write the comparison there")
    return parser


def main(arguments: list[str]) -> None:
    """Runs what the command line asks for."""
    # As in train.py the yaml file is first: argparse could not tell it from values of
    # the options that it does not know.
    n_files = int(bool(arguments) and not arguments[0].startswith("-"))
    options, words = parser().parse_known_args(arguments[n_files:])
    chosen = (n_files, options.table1, options.parameters, options.compare)
    if sum(map(bool, chosen)) != 1:
        parser().error(
            "expected a yaml file first, or one of --table1, --parameters, --compare"
        )
    if options.compare:
        print(report_comparison(options.compare, options.fuse, options.output))
    elif options.parameters:
        print(parameter_table(read_rows(options.rows)))
    elif options.table1:
        folder = options.output_folder or Path("results/table1")
        run_table1(read_rows(options.rows), words, folder, options.folds)
    else:
        run_folds(arguments[0], words, options.output_folder, options.folds)


def overrides_of(words: list[str]) -> str:
    """Overrides of hparams among options of train.py, as yaml."""
    return sb.parse_arguments(["hparams.yaml", *words])[2]


def run_folds(
    hparams_file: str | Path,
    words: list[str],
    folder: Path | None = None,
    chosen: str | None = None,
    system: str | None = None,
) -> None:
    """Trains and tests on each fold that is not finished, and prints the summary."""
    stem = Path(hparams_file).stem
    hparams = plain_hparams(hparams_file, overrides_of(words))
    if hparams["protocol"] != "random":
        raise HparamError(
            f"protocol: {hparams['protocol']!r} is a single split without folds; run "
            f"train.py {hparams_file} --protocol={hparams['protocol']}"
        )
    n_folds = hparams["n_folds"]
    folder = folder or Path(f"results/{stem}/cross_validation/seed_{hparams['seed']}")
    folds = choose_folds(chosen, n_folds)
    refuse_other_options(folder, [Path(hparams_file).name, *words])
    about = {"system": system or stem, "options": words}
    for fold in folds:
        if is_finished(folder / f"fold_{fold}"):
            continue
        print(f"fold {fold} of {n_folds}")
        own = [f"--fold={fold}", f"--output_folder={folder / f'fold_{fold}'}"]
        command = [sys.executable, str(TRAIN), str(hparams_file), *words, *own]
        status = subprocess.run(command).returncode
        if status:
            raise UserError(
                f"fold {fold} failed (exit status {status}; its error is above); the "
                "same command resumes"
            )
        write_summary(folder, n_folds, **about)
    print(f"{folder}: {write_summary(folder, n_folds, **about)}")


def choose_folds(text: str | None, n_folds: int) -> list[int]:
    """Numbers of the folds to run, from a list with commas.

    >>> choose_folds("3,0", n_folds=10)
    [0, 3]
    """
    folds = list(map(str, range(n_folds)))
    chosen = folds if text is None else [word.strip() for word in text.split(",")]
    if not set(chosen) <= set(folds):
        raise HparamError(
            f"--folds: expected numbers from 0 to {n_folds - 1} with commas between; "
            f"got {text!r}"
        )
    return sorted({int(fold) for fold in chosen})


def refuse_other_options(folder: Path, words: list[str]) -> None:
    """Raises if the folder's folds were run with other options."""
    note = folder / "options.json"
    of_the_machine = tuple(f"--{name}=" for name in OF_THE_MACHINE)
    words = sorted(word for word in words if not word.startswith(of_the_machine))
    noted = read_json(note) if note.is_file() else words
    if noted != words:
        raise HparamError(
            f"{folder}: its folds were run with {' '.join(noted)}; repeat these "
            "options, or give another output_folder"
        )
    try:
        write_json(words, note)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error


def read_rows(ids: str | None = None) -> list[dict[str, Any]]:
    """Rows of Table 1, all or those whose ids are given with commas."""
    rows = yaml.safe_load((HERE / "table1.yaml").read_text(encoding="utf-8"))
    known = [row["id"] for row in rows]
    wanted = known if ids is None else [name.strip() for name in ids.split(",")]
    for name in wanted:
        if name not in known:
            raise HparamError(
                f"--rows: no row {name!r} in Table 1; expected some of "
                f"{', '.join(known)}"
            )
    return [row for row in rows if row["id"] in wanted]


def known_names(row: dict[str, Any]) -> set[str]:
    """Names of the hparams of a row's model."""
    return set(plain_hparams(HERE / row["hparams_file"], "data_folder: none"))


def row_words(row: dict[str, Any], words: list[str]) -> list[str]:
    """A row's options of train.py: its overrides, and the words that fit its model.

    >>> (row,) = read_rows("sincnet_k80_l251")
    >>> row_words(row, ["--resnet_weights=null", "--seed=1", "--device=cpu"])
    ['--n_filters=80', '--kernel_size=251', '--seed=1', '--device=cpu']
    """
    given = yaml.safe_load(overrides_of(words)) or {}
    for name in row["overrides"].keys() & given:
        raise HparamError(f"--{name}: the rows of Table 1 set it; leave it out")
    unknown = {f"--{name}" for name in given.keys() - known_names(row)}
    own = [f"--{name}={value}" for name, value in row["overrides"].items()]
    return own + [word for word in words if word.partition("=")[0] not in unknown]


def run_table1(
    rows: list[dict[str, Any]], words: list[str], folder: Path, folds: str | None
) -> None:
    """Cross-validates the rows and writes ``table1.md`` and ``table1.csv``."""
    known = set().union(*map(known_names, rows))
    for name in yaml.safe_load(overrides_of(words)) or {}:
        if name not in known:
            raise HparamError(f"--{name}: no such hparam in any of the rows' files")
    try:
        for n, row in enumerate(rows, start=1):
            print(f"row {n} of {len(rows)}: {row['id']}")
            file, own = HERE / row["hparams_file"], row_words(row, words)
            run_folds(file, own, folder / row["id"], folds, row["id"])
    except UserError as error:
        raise UserError(f"row {row['id']}: {error}") from error
    finally:
        if any(folder.glob("*/summary.json")):
            write_table1(folder)
            print(f"written: {folder / 'table1.md'} and table1.csv")


def write_table1(folder: Path) -> None:
    """Writes ``table1.md`` and ``table1.csv``: our accuracies next to the paper's."""
    rows = [describe_row(row, folder / row["id"]) for row in read_rows()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    with atomic_path(folder / "table1.csv") as path:
        table.to_csv(path, index=False, float_format="%.2f")
    numbers = table.select_dtypes("number")
    table[numbers.columns] = numbers.map("{:.2f}".format).where(numbers.notna(), "")
    table["mean"] += table["sd"].radd(" ± ").where(table["sd"] != "", "")
    table = table.drop(columns=["row", "sd", "low", "high"]).fillna("")
    text = f"{TITLE}\n\n{markdown(table.rename(columns=HEADINGS))}\n"
    with atomic_path(folder / "table1.md") as path:
        path.write_text(text, encoding="utf-8")


def describe_row(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A row of ``table1.csv``, with the figures of its folder if it was run."""
    overrides, path = row["overrides"], folder / "summary.json"
    taps = overrides.get("kernel_sizes") or [overrides.get("kernel_size", "")]
    described = {
        "row": row["id"],
        "system": row["system"],
        "K": str(overrides.get("n_filters", "")),
        "L": ", ".join(map(str, taps)),
        "SPP": "yes" if overrides.get("pooling") == "spp" else "",
        **{f"paper_{name}": accuracy for name, accuracy in row["paper"].items()},
    }
    if not path.is_file():
        return described
    summary = read_json(path)
    songs = summary["song_accuracy"]
    interval = songs["interval"] or (None, None)  # of a single fold
    percent = 100 * np.array([songs["mean"], songs["sd"], *interval], dtype=float)
    return described | {
        "dataset": summary["dataset"],
        "folds": f"{summary['folds_done']} of {summary['n_folds']}",
        **dict(zip(("mean", "sd", "low", "high"), percent, strict=True)),
    }


def build_row(row: dict[str, Any]) -> models.GenreModel:
    """The model of a row, with random weights."""
    overrides = yaml.safe_dump({"data_folder": "none", **row["overrides"]})
    name, arguments = plain_hparams(HERE / row["hparams_file"], overrides)["model"]
    arguments.pop("weights", None)
    return models.MODELS[name.rpartition(".")[2]](**arguments)


def parameter_table(rows: list[dict[str, Any]]) -> str:
    """Numbers of parameters of the models of Table 1, as a table in Markdown."""
    counts = {
        row["id"]: sum(p.numel() for p in build_row(row).parameters()) for row in rows
    }
    table = pd.DataFrame(counts.items(), columns=["row", "parameters"])
    return markdown(table.assign(parameters=table.parameters.map("{:,}".format)))


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown.

    >>> print(markdown(pd.DataFrame({"row": ["sincnet"], "folds": [10]})))
    | row | folds |
    | --- | --- |
    | sincnet | 10 |
    """
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # into a file as well
    with exit_on_user_error("stopped; the same command resumes"):
        main(sys.argv[1:])
