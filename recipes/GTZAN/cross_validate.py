#!/usr/bin/env python3
"""Trains and tests a model on all folds of GTZAN, or all models of Table 1.

    python cross_validate.py hparams/ms_sincresnet.yaml --data_folder=GTZAN
    python cross_validate.py --table1 --data_folder=GTZAN
    python cross_validate.py --compare results/table1/mel_resnet results/table1/…

Options that are not listed here go to train.py. The same command resumes a call that
was stopped; finished folds are not repeated.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import speechbrain as sb
import yaml

from ms_sincresnet import models
from ms_sincresnet.errors import HparamError, exit_on_user_error
from ms_sincresnet.files import as_markdown, atomic_path, read_json
from ms_sincresnet.training.comparison import compare_sources
from ms_sincresnet.training.folds import run_folds
from ms_sincresnet.training.hparams import plain_hparams, quoted

HERE = Path(__file__).parent
TRAIN = HERE / "train.py"


def main(arguments: list[str]) -> None:
    """Runs what the command line asks for."""
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
    listed = {"type": re.compile(r"[^\s,]+").findall}
    add("--rows", metavar="ID,ID", help="some of the rows (default: all)", **listed)
    add("--folds", metavar="K,K", help="some folds, from 0 (default: all)", **listed)
    default = "results/SYSTEM/cross_validation/seed_SEED, or results/table1"
    help_text = f"for folds and summary, or the rows of Table 1 (default: {default})"
    add("--output_folder", type=Path, metavar="FOLDER", help=help_text)
    help_text = "compare two models, by the folders of their tests"
    add("--compare", nargs="+", metavar="FOLDER", help=help_text)
    add("--fuse", action="store_true", help="compare them with their late fusion")
    # As in train.py the yaml file is first: argparse could not tell it from values of
    # the options that it does not know.
    n_files = int(bool(arguments) and not arguments[0].startswith("-"))
    options, rest = parser.parse_known_args(arguments[n_files:])
    words: list[str] = []
    for word in rest:  # "--name value" becomes "--name=value"
        is_value = words and "=" not in words[-1] and not word.startswith("--")
        words.append(f"{words.pop()}={word}" if is_value else word)
    chosen = (n_files, options.table1, options.parameters, options.compare)
    if sum(map(bool, chosen)) != 1:
        parser.error(
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
        run_folds(TRAIN, arguments[0], words, options.output_folder, options.folds)


def read_rows(ids: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of Table 1, all or some."""
    rows = yaml.safe_load((HERE / "table1.yaml").read_text(encoding="utf-8"))
    known = [row["id"] for row in rows]
    unknown = ", ".join(set(ids or []) - set(known))
    if unknown:
        raise HparamError(f"--rows: no row {unknown}; expected {', '.join(known)}")
    return [row for row in rows if row["id"] in (ids or known)]


def run_table1(
    rows: list[dict[str, Any]], words: list[str], folder: Path, folds: list[str] | None
) -> None:
    """Cross-validates the rows and writes ``table1.md`` and ``table1.csv``."""
    _, _, overrides = sb.parse_arguments(quoted(["hparams.yaml", *words]))
    given = yaml.safe_load(overrides) or {}
    known = {
        file: set(plain_hparams(HERE / file, "data_folder: none"))
        for file in {row["hparams_file"] for row in rows}
    }
    for name in given:
        if any(name in row["overrides"] for row in rows):
            raise HparamError(f"--{name}: the rows of Table 1 set it; leave it out")
        if not any(name in names for names in known.values()):
            raise HparamError(f"--{name}: no such hparam in any of the rows' files")
    try:
        for row in rows:
            print(f"row {row['id']}")
            file, own = row["hparams_file"], row["overrides"].items()
            of_other_models = tuple(f"--{name}=" for name in given.keys() - known[file])
            fitting = [word for word in words if not word.startswith(of_other_models)]
            fitting = [f"--{name}={value}" for name, value in own] + fitting
            run_folds(TRAIN, HERE / file, fitting, folder / row["id"], folds, row["id"])
    finally:
        if any(folder.glob("*/summary.json")):
            write_table1(folder)
            print(f"written: {folder / 'table1.md'} and table1.csv")


def write_table1(folder: Path) -> None:
    """Writes ``table1.md`` and ``table1.csv``: our accuracies next to the paper's."""
    rows = [describe_row(row, folder / row["id"]) for row in read_rows()]
    table = pd.DataFrame(rows)
    with atomic_path(folder / "table1.csv") as path:
        table.to_csv(path, index=False)
    with atomic_path(folder / "table1.md") as path:
        path.write_text(as_markdown(table, table.to_numpy()), encoding="utf-8")


def describe_row(row: dict[str, Any], folder: Path) -> dict[str, str]:
    """A row of Table 1, in %; low and high bound the interval of the mean."""
    overrides, path = row["overrides"], folder / "summary.json"
    taps = overrides.get("kernel_sizes") or [overrides.get("kernel_size", "")]
    described = {"row": row["id"], "system": row["system"]}
    described |= {"K": overrides.get("n_filters", ""), "L": ", ".join(map(str, taps))}
    described |= {"SPP": "yes" if overrides.get("pooling") == "spp" else ""}
    described |= dict.fromkeys(("dataset", "folds", "mean", "sd", "low", "high"), "")
    if path.is_file():
        summary = read_json(path)
        described["dataset"] = summary["dataset"]
        described["folds"] = f"{summary['folds_done']} of {summary['n_folds']}"
        songs = summary["song_accuracy"]
        shares = [songs["mean"]]
        if songs["interval"]:  # of several folds
            shares += [songs["sd"], *songs["interval"]]
        for name, share in zip(("mean", "sd", "low", "high"), shares, strict=False):
            described[name] = f"{100 * share:.2f}"
    for name, paper in row["paper"].items():
        described[f"paper_{name}"] = f"{paper:.2f}"
    return described


def parameter_table(rows: list[dict[str, Any]]) -> str:
    """Numbers of parameters of the models of Table 1, as a table in Markdown."""
    counts = []
    for row in rows:
        overrides = yaml.safe_dump({"data_folder": "none", **row["overrides"]})
        name, arguments = plain_hparams(HERE / row["hparams_file"], overrides)["model"]
        arguments.pop("weights", None)
        model = models.MODELS[name.rpartition(".")[2]](**arguments)
        count = sum(parameter.numel() for parameter in model.parameters())
        counts.append((row["id"], f"{count:,}"))
    return as_markdown(["row", "parameters"], counts)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # into a file as well
    with exit_on_user_error("stopped; the same command resumes"):
        main(sys.argv[1:])
