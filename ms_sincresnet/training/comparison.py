"""Paired comparison of models on the tracks that all were tested on, and their fusion.

Interval and p-value treat tracks as independent, which tracks of one artist and
predictions of one fold's model are not quite. They speak about these trained models:
another seed may reverse a small difference.
"""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ms_sincresnet.errors import UserError
from ms_sincresnet.training.scores import POSTERIOR

# Of a cross-validation, of a single run.
PREDICTIONS = ("predictions.csv", "test_predictions.csv")
COLUMNS = ("ID", "genre", "predicted")
FUSED = "fused by the sum rule"


def read_predictions(source: str | Path) -> pd.DataFrame:
    """Predictions by track ID, from a run's or cross-validation's folder, or a csv."""
    source = Path(source)
    files = [source / name for name in PREDICTIONS] if source.is_dir() else [source]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        expected = f"expected a folder with {' or '.join(PREDICTIONS)}, or such a file"
        raise UserError(f"{source}: no predictions found; {expected}")
    types = dict.fromkeys(COLUMNS, str)
    try:
        table = pd.read_csv(path, dtype=types, keep_default_na=False)
    except ValueError as error:  # as pandas' and Unicode's own are
        raise UserError(f"{path}: not a table of predictions ({error})") from error
    missing = ", ".join(name for name in COLUMNS if name not in table)
    if missing:
        raise UserError(f"{path}: not a table of predictions ({missing} missing)")
    twins = table.ID[table.ID.duplicated()]
    if len(twins):
        raise UserError(f"{path}: expected one row per track; {twins.iloc[0]} has more")
    return table.set_index("ID")


def shared_tracks(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables, by model, reduced to the tracks of all, in one order."""
    (name, first), *others = tables.items()
    ids = first.index
    for _, other in others:
        ids = ids[ids.isin(other.index)]
    if len(ids) < 2:
        shared = f"{len(ids)} (of {', '.join(str(len(t)) for t in tables.values())})"
        message = f"expected tests on the same tracks; they share {shared}"
        raise UserError(f"{', '.join(tables)}: {message}")
    for other_name, other in others:
        for track in ids[first.genre[ids] != other.genre[ids]]:
            raise UserError(
                f"{track} is {first.genre[track]} in {name} and {other.genre[track]} "
                f"in {other_name}: expected tests on the same data"
            )
    return {name: table.loc[ids] for name, table in tables.items()}


def compare(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Counts of tracks by which model is right, and the difference in points.

    With a 95 % interval of the difference by paired bootstrap over tracks, ``low`` and
    ``high``, and the p-value of McNemar's test (Psychometrika 12(2), 1947), exact by
    the binomial distribution, that both are right equally often.
    """
    points = 100.0 * (first.astype(int) - second)
    interval = stats.bootstrap(
        (points,),
        np.mean,
        batch=1000,  # samples at a time: bounds the memory
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    alone = [int((first & ~second).sum()), int((~first & second).sum())]
    return {
        "both": int((first & second).sum()),
        "only_first": alone[0],
        "only_second": alone[1],
        "neither": int((~first & ~second).sum()),
        "difference": points.mean(),
        "low": interval.low,
        "high": interval.high,
        "p": stats.binomtest(alone[0], sum(alone)).pvalue if any(alone) else 1.0,
    }


def fuse_predictions(tables: dict[str, pd.DataFrame]) -> pd.Series:
    """Late fusion by the sum rule: the genre with the largest sum of mean posteriors.

    As in a ``GenreClassifier`` of several model folders.
    """
    (first, table), *_ = tables.items()
    expected, fused = sorted(table.filter(regex=f"^{POSTERIOR}")), []
    for name, table in tables.items():
        columns = sorted(table.filter(regex=f"^{POSTERIOR}"))
        if columns != expected or not expected:
            found = f"{', '.join(columns) or 'none'} here and {', '.join(expected)}"
            raise UserError(
                f"{name}: cannot be fused with {first}: expected columns "
                f"{POSTERIOR}<genre> of the same genres; found {found} there"
            )
        posteriors = table[expected].apply(pd.to_numeric, errors="coerce")
        for track in posteriors.index[posteriors.isna().any(axis=1)]:
            raise UserError(f"{name}: {track} has no posteriors; did training diverge?")
        fused.append(posteriors)
    winners = reduce(pd.DataFrame.add, fused).idxmax(axis=1)
    return winners.str.removeprefix(POSTERIOR)


def compare_sources(sources: Sequence[str | Path], fuse: bool = False) -> str:
    """Compares two models, or several with their fusion, by their predictions.

    Arguments
    ---------
    sources
        The folder of a cross-validation or of a single run, or its csv file, per model.
    fuse
        True to compare the fusion of all with each of them.

    Returns
    -------
    Lines for the screen.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("a", "b"):
    ...     text = f"ID,genre,predicted\\n1,a,{name}\\n2,a,{name}\\n"
    ...     _ = (folder / name).write_text(text)
    >>> print(compare_sources([folder / "a", folder / "b"]).splitlines()[-3])
    right: both 0, the first alone 2, the second alone 0, neither 0
    """
    names = list(dict.fromkeys(map(str, sources)))
    if len(names) != len(sources) or len(names) < 2 or (len(names) > 2 and not fuse):
        given = ", ".join(map(str, sources))
        raise UserError(f"expected two models, or several and --fuse; got {given}")
    tables = {name: read_predictions(name) for name in names}
    shared = shared_tracks(tables)
    genre = shared[names[0]].genre
    right = {name: table.predicted == genre for name, table in shared.items()}
    pairs = [tuple(names[:2])]
    if fuse:
        right[FUSED] = fuse_predictions(shared) == genre
        pairs = [(FUSED, name) for name in names]
    lines = [f"{len(genre)} tracks shared by all"]
    for name, values in right.items():
        left_out = len(tables.get(name, genre)) - len(genre)
        note = f" ({left_out} more tested)" if left_out else ""
        accuracy = f"{100 * values.mean():.1f} %{note}"
        lines.append(f"  {name}: {values.sum()} right, {accuracy}")
    for first, second in pairs:
        pair = compare(right[first].to_numpy(), right[second].to_numpy())
        lines += ["", f"first: {first}", f"second: {second}"]
        lines.append(
            "right: both {both}, the first alone {only_first}, the second alone "
            "{only_second}, neither {neither}\n"
            "first − second: {difference:+.1f} points, 95 % interval {low:+.1f} to "
            "{high:+.1f} (bootstrap over tracks)\n"
            "McNemar's exact test: p = {p:.2g}".format(**pair)
        )
    return "\n".join(lines)
