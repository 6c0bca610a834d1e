"""Paired comparison of systems on the tracks that all were tested on, and their fusion.

    python -m ms_sincresnet.training.comparison results/a results/b
    python -m ms_sincresnet.training.comparison results/a results/b results/c --fuse

Systems that heard the same tracks err on the same ones, so what tells two apart are the
tracks that one alone has right. Both tests take the tracks for independent; those of
one artist are not quite, nor are the folds' models. They tell of these trained models:
another seed may turn a small difference round.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from ms_sincresnet.errors import UserError, exit_on_user_error

# Of a cross-validation, of a single run.
PREDICTIONS = ("predictions.csv", "test_predictions.csv")
POSTERIOR = "posterior_"
LEVEL = 0.95
RESAMPLES = 9999


def read_predictions(source):
    """What each track was taken for.

    Arguments
    ---------
    source : str or pathlib.Path
        The folder of a cross-validation or of a single run, or its csv file.

    Returns
    -------
    pandas.DataFrame
        A row a track, by ID: genre, predicted and what else the file holds.

    Raises
    ------
    UserError
        If there is no such file, or it is no table of predictions.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> text = "ID,genre,predicted\\njazz.1,jazz,rock\\n"
    >>> _ = (folder / "predictions.csv").write_text(text)
    >>> read_predictions(folder).loc["jazz.1", "predicted"]
    'rock'
    """
    source = Path(source)
    files = [source / name for name in PREDICTIONS] if source.is_dir() else [source]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        raise UserError(
            f"{source}: no predictions there; expected a folder with "
            f"{' or '.join(PREDICTIONS)}, or such a file"
        )
    texts = ("ID", "genre", "predicted")
    try:
        table = pd.read_csv(
            path, dtype=dict.fromkeys(texts, str), keep_default_na=False
        )
    except ValueError as error:  # as pandas' and Unicode's own are
        raise UserError(f"{path}: not a table of predictions ({error})") from error
    lacking = [name for name in texts if name not in table]
    if lacking:
        raise UserError(
            f"{path}: not a table of predictions: it lacks the columns "
            f"{', '.join(lacking)}; expected the file that train.py writes"
        )
    twins = table.ID[table.ID.duplicated()]
    if len(twins):
        raise UserError(f"{path}: expected a row a track; {twins.iloc[0]} has several")
    return table.set_index("ID")


def shared_tracks(tables):
    """The tracks that all systems were tested on.

    Arguments
    ---------
    tables : dict of str to pandas.DataFrame
        What ``read_predictions`` returns, by the names of the systems.

    Returns
    -------
    dict of str to pandas.DataFrame
        The same, with the shared tracks alone, in one order.

    Raises
    ------
    UserError
        If fewer than two tracks are shared, or a track has two genres: then these are
        not tests on the same data.

    Example
    -------
    >>> a = pd.DataFrame({"genre": list("xyz")}, index=["1", "2", "3"])
    >>> b = pd.DataFrame({"genre": list("zy")}, index=["3", "2"])
    >>> [list(table.index) for table in shared_tracks({"a": a, "b": b}).values()]
    [['2', '3'], ['2', '3']]
    """
    (name, first), *others = tables.items()
    ids = first.index
    for _, other in others:
        ids = ids[ids.isin(other.index)]
    if len(ids) < 2:
        raise UserError(
            f"{', '.join(tables)}: expected tests of the same tracks; they share "
            f"{len(ids)} ({', '.join(str(len(table)) for table in tables.values())} in "
            "all)"
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


def mcnemar(only_first, only_second):
    """McNemar's exact test of whether two systems are right equally often.

    Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12(2), 1947, with the binomial
    distribution itself. Two-sided.

    Arguments
    ---------
    only_first, only_second : int
        Tracks that one system alone has right.

    Returns
    -------
    float
        The p-value: how often chance alone would part these tracks so unevenly, or
        more so. 1 if there are none.

    Example
    -------
    >>> mcnemar(1, 5)  # 2 (1 + 6) / 2**6
    0.21875
    """
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def difference_interval(first_right, second_right, seed=0):
    """Paired bootstrap interval, over tracks, of a difference of accuracies.

    Arguments
    ---------
    first_right, second_right : array_like of bool [tracks]
        Whether each system has each track right.
    seed : int
        Of the resampling.

    Returns
    -------
    (float, float)
        The 2.5th and the 97.5th percentile of first − second, from -1 to 1, over 9999
        samples of as many tracks.

    Example
    -------
    >>> difference_interval([True, True, True], [False, False, False])
    (1.0, 1.0)
    """
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
    return tuple(map(float, result.confidence_interval))


def compare(first_right, second_right):
    """Compares two systems on the same tracks.

    Arguments
    ---------
    first_right, second_right : array_like of bool [tracks]
        Whether each system has each track right.

    Returns
    -------
    dict
        Numbers of tracks by who has them right (both, only_first, only_second,
        neither), difference (of the accuracies, first − second), its interval, and p
        of McNemar's test.

    Example
    -------
    >>> comparison = compare([True, True, False, True], [True, False, False, False])
    >>> comparison["only_first"], comparison["difference"], comparison["p"]
    (2, 0.5, 0.5)
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    counts = {
        "both": int((first & second).sum()),
        "only_first": int((first & ~second).sum()),
        "only_second": int((~first & second).sum()),
        "neither": int((~first & ~second).sum()),
    }
    return {
        **counts,
        "difference": (counts["only_first"] - counts["only_second"]) / len(first),
        "interval": list(difference_interval(first, second)),
        "p": mcnemar(counts["only_first"], counts["only_second"]),
    }


def fuse_predictions(tables):
    """Late fusion by the sum rule: the genre with the largest sum of posteriors.

    As a ``GenreClassifier`` of several model folders decides, where each song has its
    clips' mean posterior by all models.

    Arguments
    ---------
    tables : dict of str to pandas.DataFrame
        What ``shared_tracks`` returns, with the columns ``posterior_<genre>``.

    Returns
    -------
    pandas.Series
        The predicted genre of each track.

    Raises
    ------
    UserError
        If a table has no posteriors, those of other genres than the first, or some
        that are no numbers.

    Example
    -------
    >>> names = ["posterior_jazz", "posterior_rock"]
    >>> a = pd.DataFrame([[0.9, 0.1]], ["song"], names)
    >>> b = pd.DataFrame([[0.4, 0.6]], ["song"], names)
    >>> fuse_predictions({"a": a, "b": b})["song"]
    'jazz'
    """
    posteriors = {
        name: table.filter(regex=f"^{POSTERIOR}") for name, table in tables.items()
    }
    (first_name, first), *others = posteriors.items()
    if first.columns.empty:
        raise UserError(
            f"{first_name}: the predictions lack the columns {POSTERIOR}<genre>, which "
            "the sum rule needs; test again: train.py … --test_only"
        )
    for name, other in others:
        if set(other.columns) != set(first.columns):
            raise UserError(
                f"{name}: cannot be fused with {first_name}: expected posteriors of "
                f"the same genres; found {_genres(other)} here and {_genres(first)} "
                "there"
            )
    total = sum(_numbers(name, table) for name, table in posteriors.items())
    return total.idxmax(axis=1).str.removeprefix(POSTERIOR)


def _numbers(name, posteriors):
    """The posteriors as numbers; raises if some are none, as of a run that diverged."""
    numbers = posteriors.apply(pd.to_numeric, errors="coerce")
    missing = numbers.index[numbers.isna().any(axis=1)]
    if len(missing):
        raise UserError(
            f"{name}: the posteriors of {missing[0]} are not all numbers, nor those of "
            f"{len(missing) - 1} other tracks; did training diverge?"
        )
    return numbers


def _genres(posteriors):
    """The genres of some columns, for errors."""
    names = [name.removeprefix(POSTERIOR) for name in posteriors.columns]
    return ", ".join(sorted(names)) or "none"


def compare_sources(sources, fuse=False):
    """Compares two systems, or several with their fusion, from what they predicted.

    Arguments
    ---------
    sources : list of str or pathlib.Path
        What ``read_predictions`` reads.
    fuse : bool
        Whether to fuse them, and to compare the fusion with each of them.

    Returns
    -------
    dict
        tracks (that all share), systems (name, tracks_left_out, right and accuracy of
        each; the fusion last) and comparisons (what ``compare`` returns, and the names
        of first and second).

    Raises
    ------
    UserError
        If the number of sources does not fit, or they cannot be compared.

    Example
    -------
    >>> compare_sources(["results/a"])
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.UserError: expected two systems to compare, or several and \
--fuse; got results/a
    """
    names = list(dict.fromkeys(map(str, sources)))
    if len(names) != len(sources) or len(names) < 2 or (len(names) > 2 and not fuse):
        raise UserError(
            "expected two systems to compare, or several and --fuse; got "
            f"{', '.join(map(str, sources))}"
        )
    tables = {name: read_predictions(name) for name in names}
    shared = shared_tracks(tables)
    genre = shared[names[0]].genre
    right = {name: table.predicted == genre for name, table in shared.items()}
    pairs = [tuple(names)]
    if fuse:
        fused = "fused by the sum rule"
        right[fused] = fuse_predictions(shared) == genre
        pairs = [(fused, name) for name in names]
    return {
        "tracks": len(genre),
        "systems": [
            {
                "name": name,
                "tracks_left_out": len(tables.get(name, genre)) - len(genre),
                "right": int(values.sum()),
                "accuracy": float(values.mean()),
            }
            for name, values in right.items()
        ],
        "comparisons": [
            {"first": first, "second": second, **compare(right[first], right[second])}
            for first, second in pairs
        ],
    }


def describe(report):
    """A report in words and tables.

    Arguments
    ---------
    report : dict
        What ``compare_sources`` returns.

    Returns
    -------
    str
        Lines for the screen.

    Example
    -------
    >>> report = {
    ...     "tracks": 4,
    ...     "systems": [
    ...         {"name": "a", "tracks_left_out": 1, "right": 3, "accuracy": 0.75},
    ...         {"name": "b", "tracks_left_out": 0, "right": 1, "accuracy": 0.25},
    ...     ],
    ...     "comparisons": [
    ...         {"first": "a", "second": "b"}
    ...         | compare([True, True, False, True], [True, False, False, False])
    ...     ],
    ... }
    >>> print(describe(report))
    4 tracks shared by all
      a: 3 right, 75.0 % (1 track of it left out)
      b: 1 right, 25.0 %
    <BLANKLINE>
    first: a
    second: b
                    second right    second wrong
    first right                1               2
    first wrong                0               1
    first − second: +50.0 points, 95 % interval +0.0 to +100.0 (bootstrap over tracks)
    McNemar's exact test (tracks that one alone has right: 2): p = 0.5
    """
    lines = [f"{report['tracks']} tracks shared by all"]
    for system in report["systems"]:
        left_out = system["tracks_left_out"]
        plural = "" if left_out == 1 else "s"
        note = f" ({left_out} track{plural} of it left out)" if left_out else ""
        lines.append(
            f"  {system['name']}: {system['right']} right, "
            f"{100 * system['accuracy']:.1f} %{note}"
        )
    for pair in report["comparisons"]:
        low, high = pair["interval"]
        decided = pair["only_first"] + pair["only_second"]
        lines += [
            "",
            f"first: {pair['first']}",
            f"second: {pair['second']}",
            f"{'':11} {'second right':>16}{'second wrong':>16}",
            f"first right {pair['both']:16}{pair['only_first']:16}",
            f"first wrong {pair['only_second']:16}{pair['neither']:16}",
            f"first − second: {100 * pair['difference']:+.1f} points, 95 % interval "
            f"{100 * low:+.1f} to {100 * high:+.1f} (bootstrap over tracks)",
            f"McNemar's exact test (tracks that one alone has right: {decided}): "
            f"p = {pair['p']:.2g}",
        ]
    return "\n".join(lines)


def write_report(report, path):
    """Writes a report as json, whole or not at all.

    Arguments
    ---------
    report : dict
        What ``compare_sources`` returns.
    path : str or pathlib.Path
        The file. Its folder is made.

    Raises
    ------
    UserError
        If it cannot be written there.

    Example
    -------
    >>> path = getfixture("tmp_path") / "report.json"
    >>> write_report({"tracks": 4}, path)
    >>> json.loads(path.read_text())
    {'tracks': 4}
    """
    from ms_sincresnet.files import atomic_path

    try:
        with atomic_path(path) as temporary_path:
            text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
            temporary_path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def main(argv=None):
    """Compares systems from the command line.

    Arguments
    ---------
    argv : list of str, optional
        The command line.

    Example
    -------
    >>> main(["nowhere", "elsewhere"])
    Traceback (most recent call last):
    ...
    SystemExit: error: nowhere: no predictions there; expected a folder with \
predictions.csv or test_predictions.csv, or such a file
    """
    parser = argparse.ArgumentParser(
        "python -m ms_sincresnet.training.comparison",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument(
        "sources",
        metavar="FOLDER",
        nargs="+",
        help="the folder of a cross-validation or of a single run, or its csv file",
    )
    parser.add_argument(
        "--fuse",
        action="store_true",
        help="fuse the systems by the sum rule, and compare that with each of them",
    )
    parser.add_argument("--output", metavar="JSON", help="also write the report there")
    arguments = parser.parse_args(argv)
    with exit_on_user_error():
        report = compare_sources(arguments.sources, arguments.fuse)
        if arguments.output:
            write_report(report, arguments.output)
    print(describe(report))


if __name__ == "__main__":
    main()
