"""Paired comparison of models on the tracks that all were tested on, and their fusion.

Models tested on the same tracks err on the same ones; the tracks that one alone has
right are the difference. Both tests treat tracks as independent, which tracks of one
artist and predictions of one fold's model are not quite. They speak about these
trained models: another seed may reverse a small difference.
"""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from ms_sincresnet.errors import UserError
from ms_sincresnet.training.scores import POSTERIOR

# Of a cross-validation, of a single run.
PREDICTIONS = ("predictions.csv", "test_predictions.csv")
COLUMNS = ("ID", "genre", "predicted")
LEVEL = 0.95
RESAMPLES = 9999
FUSED = "fused by the sum rule"


def read_predictions(source: str | Path) -> pd.DataFrame:
    """Predictions by track ID, from a run's or cross-validation's folder, or a csv."""
    source = Path(source)
    files = [source / name for name in PREDICTIONS] if source.is_dir() else [source]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        raise UserError(
            f"{source}: no predictions found; expected a folder with "
            f"{' or '.join(PREDICTIONS)}, or such a file"
        )
    try:
        table = pd.read_csv(
            path, dtype=dict.fromkeys(COLUMNS, str), keep_default_na=False
        )
    except ValueError as error:  # as pandas' and Unicode's own are
        raise UserError(f"{path}: not a table of predictions ({error})") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UserError(
            f"{path}: not a table of predictions: no columns {', '.join(missing)}; "
            "expected the file that train.py writes"
        )
    twins = table.ID[table.ID.duplicated()]
    if len(twins):
        raise UserError(f"{path}: expected one row per track; {twins.iloc[0]} has more")
    return table.set_index("ID")


def shared_tracks(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables, by model, reduced to the tracks of all of them, in one order."""
    (name, first), *others = tables.items()
    ids = first.index
    for _, other in others:
        ids = ids[ids.isin(other.index)]
    if len(ids) < 2:
        sizes = ", ".join(str(len(table)) for table in tables.values())
        raise UserError(
            f"{', '.join(tables)}: expected tests on the same tracks; they share "
            f"{len(ids)} (of {sizes})"
        )
    for other_name, other in others:
        differing = ids[first.genre[ids] != other.genre[ids]]
        if len(differing):
            track = differing[0]
            raise UserError(
                f"{track} is {first.genre[track]} in {name} and {other.genre[track]} "
                f"in {other_name}: expected tests on the same data"
            )
    return {name: table.loc[ids] for name, table in tables.items()}


def mcnemar(only_first: int, only_second: int) -> float:
    """P-value of McNemar's exact two-sided test: are both models right equally often?

    Its arguments count the tracks that one model alone has right. Q. McNemar, "Note on
    the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12(2), 1947, with the binomial distribution itself.
    """
    n = only_first + only_second
    return float(stats.binomtest(only_first, n).pvalue) if n else 1.0


def difference_interval(
    first_right: ArrayLike, second_right: ArrayLike, seed: int = 0
) -> tuple[float, float]:
    """Paired bootstrap 95 % interval, over tracks, of a difference of accuracies."""
    differences = np.asarray(first_right, float) - np.asarray(second_right, float)
    result = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=1000,  # samples at a time: bounds the memory
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    low, high = map(float, result.confidence_interval)
    return low, high


def compare(first_right: ArrayLike, second_right: ArrayLike) -> dict[str, Any]:
    """Counts of tracks by who is right, difference of accuracies, interval and p."""
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    return {
        "both": int((first & second).sum()),
        "only_first": only_first,
        "only_second": only_second,
        "neither": int((~first & ~second).sum()),
        "difference": (only_first - only_second) / len(first),
        "interval": difference_interval(first, second),
        "p": mcnemar(only_first, only_second),
    }


def fuse_predictions(tables: dict[str, pd.DataFrame]) -> pd.Series:
    """Late fusion by the sum rule: the genre with the largest sum of mean posteriors.

    As in a ``GenreClassifier`` of several model folders.
    """
    posteriors = {
        name: table.filter(regex=f"^{POSTERIOR}") for name, table in tables.items()
    }
    first, *_ = posteriors
    for name, table in posteriors.items():
        genres, expected = sorted(table.columns), sorted(posteriors[first].columns)
        if genres != expected or not genres:
            raise UserError(
                f"{name}: cannot be fused with {first}: expected the columns "
                f"{POSTERIOR}<genre> of the same genres; found "
                f"{', '.join(genres) or 'none'} here and {', '.join(expected)} there"
            )
        numbers = table.apply(pd.to_numeric, errors="coerce")
        gaps = numbers.index[numbers.isna().any(axis=1)]
        if len(gaps):
            raise UserError(
                f"{name}: the posteriors of {len(gaps)} tracks are not all numbers, "
                f"{gaps[0]} the first; did training diverge?"
            )
        posteriors[name] = numbers
    fused = reduce(pd.DataFrame.add, posteriors.values()).idxmax(axis=1)
    return fused.astype(str).str.removeprefix(POSTERIOR)


def compare_sources(sources: Sequence[str | Path], fuse: bool = False) -> str:
    """Compares two models, or several with their fusion, by their predictions.

    Arguments
    ---------
    sources
        The folder of a cross-validation or of a single run, or its csv file, per model.
    fuse
        True to fuse the models, and to compare the fusion with each of them.

    Returns
    -------
    Lines for the screen: accuracies on the tracks that all were tested on, and for each
    pair the tracks that one model alone has right, with interval and p-value.

    Raises
    ------
    UserError
        If the number of sources does not fit, or they cannot be compared.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> tables = {"a": "1,r,r 2,r,r 3,r,r 4,r,j", "b": "1,r,r 2,r,j 3,r,j 4,r,j"}
    >>> for name, rows in tables.items():
    ...     text = "\\n".join(["ID,genre,predicted", *rows.split()])
    ...     _ = (folder / f"{name}.csv").write_text(text)
    >>> report = compare_sources([folder / "a.csv", folder / "b.csv"])
    >>> print(*report.splitlines()[-3:], sep="\\n")
    right: both 1, the first alone 2, the second alone 0, neither 1
    first − second: +50.0 points, 95 % interval +0.0 to +100.0 (bootstrap over tracks)
    McNemar's exact test: p = 0.5
    """
    names = list(dict.fromkeys(map(str, sources)))
    if len(names) != len(sources) or len(names) < 2 or (len(names) > 2 and not fuse):
        raise UserError(
            "expected two models to compare, or several and --fuse; got "
            f"{', '.join(map(str, sources))}"
        )
    tables = {name: read_predictions(name) for name in names}
    shared = shared_tracks(tables)
    genre = shared[names[0]].genre
    right = {name: table.predicted == genre for name, table in shared.items()}
    pairs = [(names[0], names[1])]
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
        pair = compare(right[first], right[second])
        low, high = (f"{100 * end:+.1f}" for end in pair["interval"])
        lines += [
            "",
            f"first: {first}",
            f"second: {second}",
            f"right: both {pair['both']}, the first alone {pair['only_first']}, the "
            f"second alone {pair['only_second']}, neither {pair['neither']}",
            f"first − second: {100 * pair['difference']:+.1f} points, 95 % interval "
            f"{low} to {high} (bootstrap over tracks)",
            f"McNemar's exact test: p = {pair['p']:.2g}",
        ]
    return "\n".join(lines)
