"""A folder of tracks to ``train.csv``, ``valid.csv`` and ``test.csv``.

What the prepare scripts of all data sets share. A script finds its tracks, says how
they are split, and leaves the rest to ``prepare_manifests``: the 16 kHz cache, tracks
that cannot be used, identical tracks, manifests, and a report of it all. What was done
before and still holds is not done again.
"""

import hashlib
import json
import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ms_sincresnet import __version__
from ms_sincresnet.data.audio import (
    AUDIO_SUFFIXES,
    FOREIGN_SUFFIXES,
    SAMPLE_RATE,
)
from ms_sincresnet.data.cache import cache_audio
from ms_sincresnet.errors import AudioFileError, DataFolderError, HparamError
from ms_sincresnet.files import atomic_path

logger = logging.getLogger(__name__)

PARTS = ("train", "valid", "test")
"""Parts of a split; each has a manifest of its name."""

REPORT_NAME = "report.json"
"""The report's file name. It is written last: where it stands, all else does."""

_INDEX_NAME = "index.json"
_INDEX_INTERVAL = 100  # tracks that a killed preparation decodes again at the most


def audio_files(folder):
    """Audio files that lie directly in a folder, hidden ones left out.

    Told by their suffix alone, and including formats that need PyAV: where it is not
    installed they shall be named as unreadable, not passed over.

    Arguments
    ---------
    folder : str or pathlib.Path
        An existing folder.

    Returns
    -------
    paths : list of pathlib.Path
        Sorted by name.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ["b.AU", "a.wav", "._a.wav", "notes.txt"]:
    ...     (folder / name).touch()
    >>> [path.name for path in audio_files(folder)]
    ['a.wav', 'b.AU']
    """
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in AUDIO_SUFFIXES | FOREIGN_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def genre_folders(root):
    """Folders in a folder, without hidden ones and those that archivers add.

    Arguments
    ---------
    root : str or pathlib.Path
        An existing folder.

    Returns
    -------
    folders : list of pathlib.Path
        Sorted by name.

    Example
    -------
    >>> root = getfixture("tmp_path")
    >>> for name in ["rock", "jazz", ".git", "__MACOSX"]:
    ...     (root / name).mkdir()
    >>> [folder.name for folder in genre_folders(root)]
    ['jazz', 'rock']
    """
    return sorted(
        path
        for path in Path(root).iterdir()
        if path.is_dir() and not path.name.startswith((".", "__"))
    )


def find_tracks(root):
    """Lists the tracks of a data set that has a folder for each genre.

    A track's ID is its file name without suffix. Where that does not begin with the
    genre and a dot, as GTZAN's "blues.00000" does, they are put in front: so "01.wav"
    in two folders are two tracks.

    Arguments
    ---------
    root : str or pathlib.Path
        The folder of the genre folders.

    Returns
    -------
    tracks : pandas.DataFrame
        ID, genre and path (pathlib.Path) of each audio file, sorted by ID.

    Raises
    ------
    DataFolderError
        If there is no genre folder, if one has no audio, or if two files get one ID.

    Example
    -------
    >>> root = getfixture("tmp_path")
    >>> for name in ["blues/blues.00000.wav", "rock/01.mp3"]:
    ...     (root / name).parent.mkdir()
    ...     (root / name).touch()
    >>> find_tracks(root)[["ID", "genre"]].values.tolist()
    [['blues.00000', 'blues'], ['rock.01', 'rock']]
    """
    rows = []
    for folder in genre_folders(root):
        paths = audio_files(folder)
        if not paths:
            raise DataFolderError(
                f"{folder}: expected audio files of this genre (.wav, .au, .mp3, "
                ".flac, .ogg, ...), found none. Add them, or move the folder away."
            )
        for path in paths:
            genre, stem = _as_text(folder.name), _as_text(path.stem)
            track_id = stem if stem.startswith(f"{genre}.") else f"{genre}.{stem}"
            rows.append((track_id, genre, path))
    if not rows:
        raise DataFolderError(f"{root}: expected a folder for each genre, found none.")
    tracks = pd.DataFrame(rows, columns=["ID", "genre", "path"]).sort_values("ID")
    twins = tracks[tracks.ID.duplicated(keep=False)]
    if len(twins):
        raise DataFolderError(
            f"{twins.path.iloc[0]} and {twins.path.iloc[1]}: expected one file a "
            f"track, found two with the ID {twins.ID.iloc[0]!r}. Move one away."
        )
    return tracks.reset_index(drop=True)


def cache_tracks(tracks, cache_folder, *, excerpt=None, n_jobs=None):
    """Decodes tracks into the cache, in parallel, those only that are not there yet.

    A track is there if a file of the same path, size and time of change was decoded
    before. A cache folder serves one data set; excerpts lie in it apart from whole
    tracks, and those of each start and duration apart from others.

    Threads do it: decoding and resampling leave Python's lock alone. The 100 tracks of
    GTZAN's mini copy take 1.6 s with two of them, 7 s with two fresh processes.

    Arguments
    ---------
    tracks : pandas.DataFrame
        ID, genre and path of each track.
    cache_folder : str or pathlib.Path
        Where the 16 kHz wav files go, with an index of what they were made from.
    excerpt : (float, float), optional
        Start and duration of what is decoded of each track, in s, see ``read_audio``;
        whole tracks without it.
    n_jobs : int, optional
        Threads; as many as there are processors without it.

    Returns
    -------
    cached : pandas.DataFrame
        The tracks that could be decoded, with the columns cached (path below
        ``cache_folder``), n_samples, sha256 and silent in addition.
    left_out : pandas.DataFrame
        The others, with the column reason in addition.

    Raises
    ------
    HparamError
        If ``excerpt`` is no start and duration.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> root = getfixture("tmp_path")
    >>> (root / "data" / "blues").mkdir(parents=True)
    >>> soundfile.write(root / "data" / "blues" / "1.wav", np.ones(22050) / 2, 22050)
    >>> _ = (root / "data" / "blues" / "2.wav").write_text("no audio")
    >>> tracks = find_tracks(root / "data")
    >>> cached, left_out = cache_tracks(tracks, root / "cache")
    >>> cached[["ID", "n_samples"]].values.tolist()
    [['blues.1', 16000]]
    >>> left_out.ID.tolist()
    ['blues.2']
    """
    cache_folder = Path(cache_folder)
    tracks = _with_sources(tracks, excerpt)
    index = _read_json(cache_folder / _INDEX_NAME)
    reasons = {}
    missing = tracks[~_is_cached(tracks, index, cache_folder)]
    if len(missing):
        _fill_cache(missing, cache_folder, index, reasons, excerpt, n_jobs)
    left_out = tracks[tracks.cached.isin(reasons)]
    cached = tracks[~tracks.cached.isin(reasons)]
    found = [index[name] for name in cached.cached]
    cached = cached.assign(
        **{key: [entry[key] for entry in found] for key in _ENTRY_KEYS}
    )
    return (
        cached.drop(columns="source").reset_index(drop=True),
        left_out.assign(reason=left_out.cached.map(reasons))
        .drop(columns=["source", "cached"])
        .reset_index(drop=True),
    )


def identical_groups(tracks):
    """Lists the groups of tracks whose audio is the same to the last sample.

    Arguments
    ---------
    tracks : pandas.DataFrame
        ID and sha256 of each track.

    Returns
    -------
    groups : list of lists of str
        IDs; groups of two and more, in order of the tracks.

    Example
    -------
    >>> identical_groups(pd.DataFrame({"ID": ["a", "b", "c"], "sha256": list("xyx")}))
    [['a', 'c']]
    """
    groups = tracks.groupby("sha256", sort=False).ID.agg(list)
    return [group for group in groups if len(group) > 1]


def prepare_manifests(
    tracks,
    manifest_folder,
    cache_folder,
    *,
    assign_parts,
    options,
    left_out=(),
    describe=None,
    excerpt=None,
    n_jobs=None,
):
    """Writes ``train.csv``, ``valid.csv``, ``test.csv`` and the report.

    The manifests have the columns ID, duration (decoded, in s), wav and genre; wav
    begins with ``$data_root``, which stands for the cache folder. They depend on the
    tracks' audio, names and genres and on the split, not on where anything lies.

    Nothing is touched if tracks, options and folders are those of the last call.
    Otherwise the report goes first and comes last, so that an interrupted call is
    never taken for a finished one.

    Arguments
    ---------
    tracks : pandas.DataFrame
        ID, genre and path of each track, sorted by ID. Further columns, of such as JSON
        can hold, are handed on to ``assign_parts`` and ``describe``.
    manifest_folder : str or pathlib.Path
        Where manifests and ``report.json`` go.
    cache_folder : str or pathlib.Path
        Where the 16 kHz copies go, see ``cache_tracks``.
    assign_parts : callable
        Gives "train", "valid" or "test" for each row of a table of ID, genre, path and,
        once the audio is decoded, sha256. Called before that as well, so that wrong
        options are told at once.
    options : dict
        All that decides what ``assign_parts`` gives; goes into the report. Values must
        be such as JSON can hold.
    left_out : list of dict
        ID, path and reason of tracks that the script itself leaves out: they are named
        as those are that cannot be decoded.
    describe : callable, optional
        Gives a dict of more that the report shall hold, from the table of tracks that
        are in a manifest, with the columns part and sha256 in addition.
    excerpt : (float, float), optional
        Start and duration of what is used of each track, in s, see ``cache_tracks``.
    n_jobs : int, optional
        Threads that decode; as many as there are processors without it.

    Returns
    -------
    report : dict
        What ``report.json`` holds: fingerprint, options, counts (part, genre), left_out
        (ID, path, reason), identical (groups of IDs), silent (IDs), and what
        ``describe`` gave.

    Raises
    ------
    DataFolderError
        If no track of a genre can be decoded.
    HparamError
        If ``excerpt`` is no start and duration.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> root = getfixture("tmp_path")
    >>> (root / "data" / "blues").mkdir(parents=True)
    >>> for name in ["1.wav", "2.wav", "3.wav"]:
    ...     soundfile.write(root / "data" / "blues" / name, np.ones(40000) / 2, 16000)
    >>> report = prepare_manifests(
    ...     find_tracks(root / "data"),
    ...     root / "manifests",
    ...     root / "cache",
    ...     assign_parts=lambda tracks: ["train", "valid", "test"],
    ...     options={},
    ... )
    >>> report["identical"]
    [['blues.1', 'blues.2', 'blues.3']]
    >>> print((root / "manifests" / "train.csv").read_text())
    ID,duration,wav,genre
    blues.1,2.5,$data_root/blues/blues.1.wav,blues
    <BLANKLINE>
    """
    manifest_folder, cache_folder = Path(manifest_folder), Path(cache_folder)
    tracks = _with_sources(tracks, excerpt)
    known = [{key: _as_text(value) for key, value in row.items()} for row in left_out]
    fingerprint = _fingerprint(tracks, cache_folder, options, known)
    report_path = manifest_folder / REPORT_NAME
    report = _read_json(report_path)
    if report.get("fingerprint") == fingerprint and _is_complete(
        report, tracks, manifest_folder, cache_folder
    ):
        logger.info("%s: nothing changed, nothing to prepare", manifest_folder)
        return report

    assign_parts(tracks)
    cached, unusable = cache_tracks(
        tracks, cache_folder, excerpt=excerpt, n_jobs=n_jobs
    )
    _check_genres(tracks, cached, unusable)
    parts = pd.Series(assign_parts(cached), index=cached.index)
    report_path.unlink(missing_ok=True)
    for part in PARTS:
        _write_manifest(cached[parts == part], manifest_folder / f"{part}.csv")
    report = {
        "fingerprint": fingerprint,
        "options": options,
        "counts": {
            part: cached[parts == part].genre.value_counts().sort_index().to_dict()
            for part in PARTS
        },
        "left_out": known
        + [
            {"ID": track.ID, "path": _as_text(track.path), "reason": track.reason}
            for track in unusable.itertuples()
        ],
        "identical": identical_groups(cached),
        "silent": cached.ID[cached.silent].tolist(),
        **(describe(cached.assign(part=parts)) if describe else {}),
    }
    _write_json(report, report_path)
    _log_report(report, report_path)
    return report


_ENTRY_KEYS = {"n_samples": int, "sha256": str, "silent": bool}


def _fill_cache(missing, cache_folder, index, reasons, excerpt, n_jobs):
    """Decodes tracks; notes in ``index`` what it made, in ``reasons`` why it failed."""

    def decode(track):
        """What goes into the index for a track, or why it cannot be used."""
        try:
            made = cache_audio(track.path, cache_folder / track.cached, excerpt=excerpt)
        except AudioFileError as error:
            return _as_text(str(error))
        return {"source": track.source, **made._asdict()}

    logger.info("decoding %d tracks into %s", len(missing), cache_folder)
    with ThreadPoolExecutor(n_jobs or os.cpu_count()) as pool:
        results = pool.map(decode, missing.itertuples())
        # disable=None: no bar where the output is a file
        bar = tqdm(results, "decoding", len(missing), unit="track", disable=None)
        try:
            named_results = zip(missing.cached, bar, strict=True)
            for n_done, (name, result) in enumerate(named_results, start=1):
                if isinstance(result, str):
                    reasons[name] = result
                else:
                    index[name] = result
                if n_done % _INDEX_INTERVAL == 0:
                    _write_json(index, cache_folder / _INDEX_NAME)
        finally:
            _write_json(index, cache_folder / _INDEX_NAME)


def _with_sources(tracks, excerpt):
    """Adds where a track is cached, and what tells one state of a file from another."""
    stats = [os.stat(path) for path in tracks.path]
    return tracks.assign(
        # SpeechBrain takes $name in a manifest for something to be replaced.
        cached=(
            _excerpt_folder(excerpt) + tracks.genre + "/" + tracks.ID + ".wav"
        ).str.replace("$", "%24", regex=False),
        source=[
            [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]
            for path, stat in zip(tracks.path, stats, strict=True)
        ],
    )


def _excerpt_folder(excerpt):
    """Where in the cache excerpts lie: a folder for each start and duration."""
    if excerpt is None:
        return ""
    try:
        start_s, duration_s = excerpt
        usable = 0 <= start_s < math.inf and 1 <= duration_s * SAMPLE_RATE < math.inf
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise HparamError(
            "excerpt: expected a start from 0 up and a duration above 0, in s, for "
            f"example [30, 60]; got {excerpt!r}"
        )
    return f"excerpt_{float(start_s)}_{float(duration_s)}/"


def _is_cached(tracks, index, cache_folder):
    """Whether the cache holds each track as its file is now."""
    return pd.Series(
        [
            _is_entry(index.get(track.cached), track.source)
            and (cache_folder / track.cached).exists()
            for track in tracks.itertuples()
        ],
        index=tracks.index,
        dtype=bool,
    )


def _is_entry(entry, source):
    """Whether the index tells all of a track, as its file is now."""
    return (
        isinstance(entry, dict)
        and entry.get("source") == source
        and all(type(entry.get(key)) is kind for key, kind in _ENTRY_KEYS.items())
    )


def _fingerprint(tracks, cache_folder, options, left_out):
    """Hash of all that decides what manifests and report hold."""
    listing = tracks.drop(columns="path").values.tolist()
    state = [__version__, listing, os.path.abspath(cache_folder), options, left_out]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _is_complete(report, tracks, manifest_folder, cache_folder):
    """Whether all that a report speaks of is there."""
    if not all((manifest_folder / f"{part}.csv").exists() for part in PARTS):
        return False
    index = _read_json(cache_folder / _INDEX_NAME)
    is_cached = _is_cached(tracks, index, cache_folder)
    try:
        left_out = {track["ID"] for track in report["left_out"]}
    except (LookupError, TypeError):  # damaged
        return False
    return set(tracks.ID[~is_cached]) == left_out & set(tracks.ID)


def _check_genres(tracks, cached, left_out):
    """Raises if a genre has lost all its tracks."""
    for genre in sorted(set(tracks.genre) - set(cached.genre)):
        lost = left_out[left_out.genre == genre]
        raise DataFolderError(
            f"{lost.path.iloc[0].parent}: expected audio of the genre {genre!r}, found "
            f"{len(lost)} file(s) of which none can be used. The first: "
            f"{lost.reason.iloc[0]}"
        )


def _write_manifest(tracks, path):
    """Writes a manifest; seven digits tell every sample of a duration at 16 kHz."""
    manifest = pd.DataFrame(
        {
            "ID": tracks.ID,
            "duration": (tracks.n_samples / SAMPLE_RATE).round(7),
            "wav": "$data_root/" + tracks.cached,
            "genre": tracks.genre,
        }
    )
    with atomic_path(path) as temporary_path:
        manifest.to_csv(temporary_path, index=False, lineterminator="\n")


def _log_report(report, report_path):
    """Warns of what is unusual, then gives all counts in one line."""
    for track in report["left_out"]:
        logger.warning("left out %s: %s", track["ID"], track["reason"])
    if report["silent"]:
        logger.warning("silent from end to end: %s", ", ".join(report["silent"]))
    sizes = {part: sum(counts.values()) for part, counts in report["counts"].items()}
    logger.info(
        "%d tracks of %d genres: %s; %d left out; %d groups of identical tracks (%s)",
        sum(sizes.values()),
        len(set().union(*report["counts"].values())),
        ", ".join(f"{size} {part}" for part, size in sizes.items()),
        len(report["left_out"]),
        len(report["identical"]),
        report_path,
    )


def _as_text(name):
    """A file name as text that UTF-8 can hold, whatever bytes it has on disk."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def _read_json(path):
    """What a JSON file names; an empty dict if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(content, path):
    """Writes a JSON file, whole or not at all."""
    with atomic_path(path) as temporary_path:
        temporary_path.write_text(json.dumps(content, indent=1) + "\n")
