"""A folder of tracks to a 16 kHz cache, three manifests, and a report."""

import contextlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike
from tqdm import tqdm

from ms_sincresnet.data.audio import SAMPLE_RATE, walk_audio
from ms_sincresnet.data.cache import CachedTrack, cache_audio
from ms_sincresnet.data.decoding import DECODER
from ms_sincresnet.data.twins import find_twins
from ms_sincresnet.errors import AudioFileError, DataFolderError, HparamError
from ms_sincresnet.files import as_json, as_utf8, atomic_path, n_processors, read_json

logger = logging.getLogger(__name__)

PARTS = ("train", "valid", "test")

_INDEX_NAME = "index.json"
_INDEX_INTERVAL = 100  # tracks that are decoded again after a kill, at most


def audio_files(root: str | Path) -> list[Path]:
    """Audio files at any depth, except hidden ones and what archivers add.

    Arguments
    ---------
    root
        A folder.

    Returns
    -------
    Paths, sorted.

    Example
    -------
    >>> (getfixture("tmp_path") / "a.wav").touch()
    >>> [path.name for path in audio_files(getfixture("tmp_path"))]
    ['a.wav']
    """
    paths = filter(Path.is_file, map(Path, walk_audio(root)))
    below = {path: f"/{path.parent.relative_to(root).as_posix()}" for path in paths}
    return sorted(path for path, folder in below.items() if "/__" not in folder)


def find_tracks(root: str | Path, genres: Iterable[str] = ()) -> pd.DataFrame:
    """Tracks of a data set that has a folder for each genre.

    Arguments
    ---------
    root
        The folder of the genre folders.
    genres
        Names for folders that differ from them in case, spaces or signs alone.

    Returns
    -------
    ID (genre and file name), genre and path of each audio file, sorted by ID.

    Example
    -------
    >>> root = getfixture("tmp_path")
    >>> (root / "blues").mkdir()
    >>> (root / "blues" / "01.mp3").touch()
    >>> find_tracks(root).ID.tolist()
    ['blues.01']
    """
    root = Path(root)
    names = {letters(genre): genre for genre in genres}
    rows = []
    for path in audio_files(root):
        if path.parent.parent == root:
            name, stem = as_utf8(path.parent.name), as_utf8(path.stem)
            genre = names.get(letters(name), name)
            for prefix in dict.fromkeys((name, genre)):
                stem = stem.removeprefix(f"{prefix}.")
            rows.append((f"{genre}.{stem}", genre, path))
    filled = {path.parent.name for _, _, path in rows}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if not folder.name.startswith((".", "__")) and folder.name not in filled:
            raise DataFolderError(
                f"{folder}: expected audio of this genre, found none. Move it away."
            )
    if not rows:
        raise DataFolderError(f"{root}: expected a folder for each genre, found none.")
    tracks = pd.DataFrame(rows, columns=["ID", "genre", "path"]).sort_values("ID")
    twins = tracks[tracks.ID.duplicated(keep=False)]
    if len(twins):
        raise DataFolderError(
            f"{twins.path.iloc[0]} and {twins.path.iloc[1]}: expected one file per "
            f"track, found two with the ID {twins.ID.iloc[0]!r}. Move one away."
        )
    return tracks.reset_index(drop=True)


def letters(name: str) -> str:
    """Letters and digits of a name, in lower case; the name if it has none."""
    return re.sub(r"[\W_]", "", name).casefold() or name


def prepare_manifests(
    tracks: pd.DataFrame,
    manifest_folder: str | Path,
    cache_folder: str | Path,
    *,
    assign_parts: Callable[[pd.DataFrame], ArrayLike],
    options: dict[str, Any],
    left_out: Sequence[dict] = (),
    describe: Callable[[pd.DataFrame], dict] | None = None,
    excerpt: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Writes ``train.csv``, ``valid.csv``, ``test.csv`` and ``report.json``.

    Only new or changed tracks are decoded, and only changed files are written.

    Arguments
    ---------
    tracks
        ID, genre and path of each track, sorted by ID, and columns for the callables.
    manifest_folder, cache_folder
        Folders to write, the latter of 16 kHz copies for any number of data sets.
    assign_parts
        Returns the part of each track, from ``tracks``, the sha256 of their audio and
        their recording, which identical tracks and re-encoded twins share. Called
        without the latter two before decoding, to refuse wrong options.
    options
        Options of the split for the report.
    left_out
        ID, path and reason of tracks that the script itself leaves out.
    describe
        Returns more entries of the report, from the tracks with their part and sha256.
    excerpt
        Start and duration of the used part of each track, in s.

    Returns
    -------
    The report: options, counts, left_out, identical, twins, apart (recordings that are
    in several parts), silent, entries of ``describe``.

    Example
    -------
    >>> import soundfile
    >>> root = getfixture("tmp_path")
    >>> soundfile.write(root / "1.wav", [0.5] * 40000, 16000)
    >>> tracks = pd.DataFrame([("blues.1", "blues", root / "1.wav")])
    >>> tracks.columns = ["ID", "genre", "path"]
    >>> split = {"assign_parts": lambda tracks: ["train"], "options": {}}
    >>> prepare_manifests(tracks, root, root / "cache", **split)["counts"]["train"]
    {'blues': 1}
    """
    manifest_folder, cache_folder = Path(manifest_folder), Path(cache_folder)
    cut = _check_excerpt(excerpt)
    tracks = tracks.assign(source=[_source(path, cut) for path in tracks.path])
    found = _find_cached(tracks, cache_folder)
    new = tracks[~tracks.source.isin(found)]
    reasons: dict[str, str] = {}
    if len(new):
        assign_parts(tracks)
        made, reasons = _decode(new, cache_folder, excerpt)
        found |= made
    unusable = tracks[~tracks.source.isin(found)]
    unusable = unusable.assign(reason=unusable.source.map(reasons))
    cached = tracks[tracks.source.isin(found)].reset_index(drop=True)
    for lost in unusable[~unusable.genre.isin(cached.genre)].itertuples():
        raise DataFolderError(
            f"{lost.path.parent}: expected audio of the genre {lost.genre!r}, but none "
            f"of its files can be used. The first: {lost.reason}"
        )
    entries = [found[source] for source in cached.source]
    cached = cached.join(pd.DataFrame(entries, columns=CachedTrack._fields))
    twins = _name_recordings(cached, cache_folder)
    cached["part"] = pd.Series(assign_parts(cached), index=cached.index)
    # Seven digits hold any duration at 16 kHz.
    cached["duration"] = (cached.n_samples / SAMPLE_RATE).round(7)
    cached["wav"] = "$data_root/" + cached.cached
    counts = {}
    for part in PARTS:
        rows = cached[cached.part == part]
        counts[part] = rows.genre.value_counts().sort_index().to_dict()
        columns = ["ID", "duration", "wav", "genre"]
        text = rows.to_csv(columns=columns, index=False, lineterminator="\n")
        _write_if_new(manifest_folder / f"{part}.csv", text)
    lost = [*left_out, *unusable[["ID", "path", "reason"]].to_dict("records")]
    identical = cached.groupby("sha256", sort=False).ID.agg(list)
    recordings = cached.groupby("recording", sort=False).agg({"ID": list, "part": set})
    report = {
        "options": options,
        "counts": counts,
        "left_out": [{k: as_utf8(str(v)) for k, v in row.items()} for row in lost],
        "identical": [group for group in identical if len(group) > 1],
        "twins": twins,
        "apart": recordings.ID[recordings.part.map(len) > 1].tolist(),
        "silent": cached.ID[cached.silent].tolist(),
        **(describe(cached) if describe else {}),
    }
    _write_if_new(manifest_folder / "report.json", as_json(report))
    _log_report(report)
    return report


def _source(path: Path, cut: tuple[float, ...]) -> str:
    """The state of a file: path, size, time of change; decoder, excerpt."""
    stat = os.stat(path)
    state = as_utf8(os.path.abspath(path)), stat.st_size, stat.st_mtime_ns
    return " ".join(map(str, [*state, DECODER, *cut]))


def _check_excerpt(excerpt: Any) -> tuple[float, ...]:
    """Start and duration as floats; empty for whole tracks."""
    if excerpt is None:
        return ()
    with contextlib.suppress(TypeError, ValueError):
        start_s, duration_s = excerpt
        if 0 <= start_s < math.inf and 1 <= duration_s * SAMPLE_RATE < math.inf:
            return float(start_s), float(duration_s)
    raise HparamError(f"excerpt: expected start, duration in s, got {excerpt!r}")


def _find_cached(tracks: pd.DataFrame, cache_folder: Path) -> dict[str, CachedTrack]:
    """Tracks whose copies are in the cache, by their sources."""
    index = _read_index(cache_folder)
    found = {}
    for source in tracks.source:
        with contextlib.suppress(KeyError, TypeError):  # new, or the index is damaged
            track = CachedTrack(**index[source])
            is_whole = [*map(type, track)] == [str, int, str, bool]
            if is_whole and (cache_folder / track.cached).exists():
                found[source] = track
    return found


def _decode(
    tracks: pd.DataFrame, cache_folder: Path, excerpt: tuple[float, float] | None
) -> tuple[dict[str, CachedTrack], dict[str, str]]:
    """Newly cached tracks, and the reasons for the others, by their sources."""

    def decode(path: Path) -> CachedTrack | str:
        try:
            return cache_audio(path, cache_folder, excerpt=excerpt)
        except AudioFileError as error:
            return as_utf8(str(error))

    made: dict[str, CachedTrack] = {}
    reasons: dict[str, str] = {}
    logger.info("decoding %d tracks into %s", len(tracks), cache_folder)
    # Threads suffice, since decoding and resampling release Python's lock.
    with ThreadPoolExecutor(n_processors()) as pool:
        results = pool.map(decode, tracks.path)
        # disable=None: no bar where the output is a file
        bar = tqdm(results, "decoding", len(tracks), unit="track", disable=None)
        try:
            for source, result in zip(tracks.source, bar, strict=True):
                if isinstance(result, str):
                    reasons[source] = result
                    continue
                made[source] = result
                if len(made) % _INDEX_INTERVAL == 0:
                    _add_to_index(made, cache_folder)
        finally:
            _add_to_index(made, cache_folder)
    return made, reasons


def _name_recordings(tracks: pd.DataFrame, cache_folder: Path) -> list[dict]:
    """Adds the column ``recording``; returns the re-encoded twins for the report."""
    unique = tracks.drop_duplicates("sha256")
    rows = unique[[*CachedTrack._fields]].itertuples(index=False)
    pairs = find_twins([CachedTrack(*row) for row in rows], cache_folder)
    names = dict(zip(unique.sha256, unique.sha256, strict=True))
    for pair in pairs:
        first, second = (names[unique.sha256.iloc[nth]] for nth in pair[:2])
        names |= {sha256: first for sha256, name in names.items() if name == second}
    tracks["recording"] = tracks.sha256.map(names)
    return [
        {
            "tracks": [unique.ID.iloc[pair.first], unique.ID.iloc[pair.second]],
            "offset_s": pair.offset_s,
            "correlation": pair.correlation,
        }
        for pair in pairs
    ]


def _add_to_index(made: dict[str, CachedTrack], cache_folder: Path) -> None:
    """Adds entries to the index, which another preparation may have changed."""
    index = _read_index(cache_folder)
    index |= {source: track._asdict() for source, track in made.items()}
    _write_if_new(cache_folder / _INDEX_NAME, as_json(index))


def _write_if_new(path: Path, text: str) -> None:
    """Writes a file whole, unless it has this content."""
    content = text.encode()
    if not path.exists() or path.read_bytes() != content:
        with atomic_path(path) as temporary_path:
            temporary_path.write_bytes(content)


def _log_report(report: dict) -> None:
    """Warns of what is unusual, then gives all counts in one line."""
    for track in report["left_out"]:
        logger.warning("left out %s: %s", track["ID"], track["reason"])
    if report["silent"]:
        logger.warning("silent from end to end: %s", ", ".join(report["silent"]))
    if report["apart"]:
        logger.warning(
            "recordings in more than one part of the split: %d, such as %s",
            len(report["apart"]),
            " = ".join(report["apart"][0]),
        )
    sizes = pd.DataFrame(report["counts"]).sum().astype(int)
    parts = ", ".join(f"{size} {part}" for part, size in sizes.items())
    n_genres = len(set().union(*report["counts"].values()))
    logger.info(
        f"{sum(sizes)} tracks of {n_genres} genres: {parts}; {len(report['left_out'])} "
        f"left out; {len(report['identical'])} groups of identical tracks; "
        f"{len(report['twins'])} pairs of re-encoded twins"
    )


def _read_index(cache_folder: Path) -> dict[str, Any]:
    """The index of the cache; empty if it is missing or damaged."""
    try:
        content = read_json(cache_folder / _INDEX_NAME)
    except (FileNotFoundError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
