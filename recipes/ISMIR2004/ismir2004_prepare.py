"""Manifests for ISMIR2004: six classes, three parts of 729 whole songs each.

P. Cano, E. Gómez, F. Gouyon, P. Herrera, M. Koppenberger, B. Ong, X. Serra, S. Streich,
N. Wack, "ISMIR 2004 audio description contest", MTG-TR-2006-02, 2006.
"""

import itertools
import logging
import re
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ms_sincresnet.data.audio import AUDIO_SUFFIXES, FOREIGN_SUFFIXES
from ms_sincresnet.data.prepare import (
    audio_files,
    genre_folders,
    prepare_manifests,
)
from ms_sincresnet.data.validation import draw_valid
from ms_sincresnet.errors import DataFolderError, HparamError

logger = logging.getLogger(__name__)

CLASSES = {
    "classical": "classical",
    "electronic": "electronic",
    "jazz": "jazz_blues",
    "blues": "jazz_blues",
    "jazz_blues": "jazz_blues",
    "metal": "metal_punk",
    "punk": "metal_punk",
    "metal_punk": "metal_punk",
    "pop": "rock_pop",
    "rock": "rock_pop",
    "rock_pop": "rock_pop",
    "world": "world",
}
"""The class of each name that folders and lists have: six for the contest."""

TEST_PARTS = ("development", "evaluation")
N_TRACKS = 729  # in each part
LAYOUTS = ("audio", ".", "ismir04_genre/audio", "ismir04_genre")
LIST_NAME = "tracklist.csv"
COLUMNS = ("class", "artist", "album", "track", "number", "path", "magnatune_id")
# What may precede the path of a track below its part's folder.
LEADING = {"/", "tracks", "audio", "training", *TEST_PARTS}

HOW_TO_GET = """\
ISMIR2004 is re-issued by the Music Technology Group, Universitat Pompeu Fabra:
  https://zenodo.org/records/1302992 (audio from Magnatune, CC BY-NC-SA 1.0)
Unpack the archives into one folder, so that it holds
  audio/training/<genre>/<artist>/<album>/*.mp3   metadata/training/tracklist.csv
  audio/development/*.mp3                         metadata/development/tracklist.csv
then type
  python train.py hparams/ms_sincresnet.yaml --data_folder=<that folder>"""


def prepare_ismir2004(
    data_folder,
    manifest_folder,
    cache_folder,
    *,
    test_part="development",
    excerpt=None,
    valid_fraction=0.1,
    seed=1234,
    n_jobs=None,
):
    """Writes ``train.csv``, ``valid.csv`` and ``test.csv`` for ISMIR2004.

    The training part is split into tracks to train and to validate with, 656 and 73,
    stratified by class; the test part is fixed. ``tracklist.csv`` names the tracks and
    their classes. Where a part has none, the names of its genre folders do. Listed
    tracks that are not on disk and files that are not listed are named in warnings and
    in ``report.json``, as are tracks that cannot be decoded. Tracks are decoded once,
    to 16 kHz mono.

    Paths in lists and names on disk differ in signs, marks and leading zeros: see
    ``plain_name``. A track's ID is the part and the plain name of its path.

    The report says as well how many tracks are by artists that are trained on
    ("artists") and which tested tracks have the audio of a track of the training part
    ("heard_in_training"). Nothing is moved for it: the parts are those of the contest.

    A second call does nothing. A call with other options, or after a change of the
    data, writes the manifests anew.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ISMIR2004 lies.
    manifest_folder : str or pathlib.Path
        Where manifests and ``report.json`` go.
    cache_folder : str or pathlib.Path
        Where the 16 kHz copies go: ``$data_root`` in the manifests.
    test_part : str
        "development", which the paper most likely tests on, or "evaluation".
    excerpt : (float, float), optional
        Start and duration of what is used of each song, in s. One that ends sooner
        gives its last ``duration`` seconds, or all of it. Whole songs without it.
    valid_fraction : float
        Share of the training part that validates instead, between 0 and 1.
    seed : int
        Seed of the validation part.
    n_jobs : int, optional
        Threads that decode; as many as there are processors without it.

    Raises
    ------
    DataFolderError
        If there is no data, if a part lacks a class, if a list cannot be read, or if it
        is not clear which file a track is.
    HparamError
        If ``test_part``, ``excerpt`` or ``valid_fraction`` cannot be used.

    Example
    -------
    >>> import soundfile
    >>> root = getfixture("tmp_path")
    >>> genres = ["classical", "electronic", "jazz", "punk", "pop", "world"]
    >>> for nth, genre in enumerate(genres * 3):
    ...     part = "training" if nth < 12 else "evaluation"
    ...     path = root / "audio" / part / genre / "artist" / "album" / f"{nth}-a'b.wav"
    ...     path.parent.mkdir(parents=True, exist_ok=True)
    ...     noise = np.random.default_rng(nth).normal(size=800) / 9
    ...     soundfile.write(path, noise, 16000)
    >>> prepare_ismir2004(
    ...     root,
    ...     root / "manifests",
    ...     root / "cache",
    ...     test_part="evaluation",
    ...     valid_fraction=0.5,
    ... )
    >>> test = pd.read_csv(root / "manifests" / "test.csv")
    >>> test.ID[4], test.genre[4]
    ('evaluation/punk/artist/album/15-a_b', 'metal_punk')
    """
    roots = find_ismir2004(data_folder, test_part)
    found = [_find_part(root, part) for part, root in roots.items()]
    tracks = pd.concat([tracks for tracks, _ in found]).sort_values("ID")

    def assign_parts(tracks):
        """Draws the validation part; identical tracks go together once decoded."""
        trained = tracks.ID.str.startswith("training/").to_numpy()
        parts = np.where(trained, "train", "test")
        in_valid = _draw_valid(tracks[trained], valid_fraction, seed)
        parts[np.flatnonzero(trained)[in_valid]] = "valid"
        return parts

    report = prepare_manifests(
        tracks.reset_index(drop=True),
        manifest_folder,
        cache_folder,
        assign_parts=assign_parts,
        options={
            "data_folder": str(Path(data_folder).absolute()),
            "test_part": test_part,
            "excerpt": excerpt,
            "valid_fraction": valid_fraction,
            "seed": seed,
        },
        left_out=[row for _, left_out in found for row in left_out],
        describe=lambda tracks: {
            "artists": shared_artists(tracks),
            "heard_in_training": _heard_in_training(tracks),
        },
        excerpt=excerpt,
        n_jobs=n_jobs,
    )
    _log_overlap(report)


def find_ismir2004(data_folder, test_part="development"):
    """Finds the folders of the training part and of a test part.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ISMIR2004 lies: holds ``audio``, the parts' folders or ``ismir04_genre``.
    test_part : str
        "development" or "evaluation".

    Returns
    -------
    roots : dict of str to pathlib.Path
        The folder of "training" and that of the test part.

    Raises
    ------
    DataFolderError
        If there is none, or if nothing tells the classes of its tracks; the message
        says how to get ISMIR2004.
    HparamError
        If there is no such test part.

    Example
    -------
    >>> data_folder = getfixture("tmp_path")
    >>> for part in ["training", "evaluation"]:
    ...     album = data_folder / "audio" / part / "jazz" / "artist" / "album"
    ...     album.mkdir(parents=True)
    ...     (album / "1-track.mp3").touch()
    >>> roots = find_ismir2004(data_folder, "evaluation")
    >>> [root.relative_to(data_folder).as_posix() for root in roots.values()]
    ['audio/training', 'audio/evaluation']
    """
    if test_part not in TEST_PARTS:
        raise HparamError(
            f"test_part: expected {' or '.join(TEST_PARTS)}, got {test_part!r}"
        )
    if not data_folder:
        raise DataFolderError(
            f"data_folder: expected ISMIR2004, got none.\n{HOW_TO_GET}"
        )
    data_folder = Path(data_folder)
    if not data_folder.is_dir():
        found = "a file: unpack it" if data_folder.exists() else "no such folder"
        raise DataFolderError(
            f"data_folder: {data_folder}: expected ISMIR2004, found {found}.\n"
            f"{HOW_TO_GET}"
        )
    return {part: _find_root(data_folder, part) for part in ("training", test_part)}


def plain_name(path):
    """The name that a track has in every copy of the lists and on every disk.

    Copies of the lists begin paths with ``./`` or ``tracks/``; archivers made
    underscores of quotes; marks were lost. So: no suffix, lower case, no marks and no
    leading zeros, and an underscore for whatever is no letter, digit, ``-`` or ``/``.

    Arguments
    ---------
    path : str
        A path with its suffix, from a list or below a part's folder.

    Returns
    -------
    name : str
        In ASCII.

    Example
    -------
    >>> plain_name("./rock/the_band/d'été_(live)/05-kruhov\u00fd_objazd.mp3")
    'rock/the_band/d_ete__live_/5-kruhovy_objazd'
    """
    return _plain(_below_part(path))


def shared_artists(tracks):
    """Counts tracks that validate or test and are by artists that are trained on.

    Arguments
    ---------
    tracks : pandas.DataFrame
        part ("train", "valid" or "test") and artist of each track.

    Returns
    -------
    counts : dict of str to dict
        For "valid" and "test": tracks, and by_artists_of_train, which is None where
        artists are anonymous, as they are in the development part.

    Example
    -------
    >>> parts = ["train", "train", "valid", "test", "test"]
    >>> artists = ["the_quintet", "a_singer", "a_singer", "artist_7", "artist_8"]
    >>> counts = shared_artists(pd.DataFrame({"part": parts, "artist": artists}))
    >>> counts["valid"]
    {'tracks': 1, 'by_artists_of_train': 1}
    >>> counts["test"]
    {'tracks': 2, 'by_artists_of_train': None}
    """
    trained = tracks.artist[tracks.part == "train"]
    counts = {}
    for part in ("valid", "test"):
        artists = tracks.artist[tracks.part == part]
        anonymous = pd.concat([trained, artists]).str.fullmatch(r"artist_\d+|").any()
        counts[part] = {
            "tracks": len(artists),
            "by_artists_of_train": (
                None if anonymous else int(artists.isin(trained).sum())
            ),
        }
    return counts


def _find_root(data_folder, part):
    """The folder of a part, in any layout."""
    roots = (data_folder / layout / part for layout in LAYOUTS)
    root = next(
        (path for path in roots if path.is_dir() and _files_by_name(path)), None
    )
    if root is None:
        raise DataFolderError(
            f"data_folder: {data_folder}: expected audio files in audio/{part} or "
            f"{part} below it; found none.\n{HOW_TO_GET}"
        )
    if not (_find_list(root, part) or len(_list_by_folders(_files_by_name(root)))):
        raise DataFolderError(
            f"{root}: expected folders of genres, or the list of the tracks' classes, "
            f"metadata/{part}/{LIST_NAME}, beside it; found neither.\n{HOW_TO_GET}"
        )
    return root


def _find_list(root, part):
    """The tracklist of a part's folder, or None."""
    folders = (root.parent.parent, root.parent)
    lists = [folder / "metadata" / part / LIST_NAME for folder in folders]
    return next(filter(Path.is_file, [root / LIST_NAME, *lists]), None)


def _find_part(root, part):
    """Tracks of a part as (ID, genre, path, artist), and what is left out of it."""
    files, list_path = _files_by_name(root), _find_list(root, part)
    listed = _read_list(list_path) if list_path else _list_by_folders(files)
    if len(listed) != N_TRACKS:
        logger.warning(
            "%s: expected the %d tracks of the contest's %s part, found %d",
            list_path or root,
            N_TRACKS,
            part,
            len(listed),
        )
    rows, left_out = [], []
    names = _match(listed.path, files, list_path)
    for track, name in zip(listed.itertuples(), names, strict=True):
        if name is None:
            track_id, path = plain_name(track.path), root / track.path
            left_out.append((track_id, path, f"not on disk, but in {list_path}"))
        else:
            rows.append((f"{part}/{name}", track.genre, files[name][0], track.artist))
    for name in sorted(files.keys() - set(names)):
        reason = f"not in {list_path or 'a folder of a genre'}"
        left_out += [(name, path, reason) for path in files[name]]
    tracks = pd.DataFrame(rows, columns=["ID", "genre", "path", "artist"])
    missing = sorted(set(CLASSES.values()) - set(tracks.genre))
    if missing:
        raise DataFolderError(
            f"{root}: expected tracks of six classes, found none of {missing}. Unpack "
            f"the whole archive.\n{HOW_TO_GET}"
        )
    return tracks, [
        {"ID": f"{part}/{name}", "path": path, "reason": reason}
        for name, path, reason in left_out
    ]


def _files_by_name(root):
    """Audio files at any depth below a folder, by their plain names."""
    files, folders = {}, [root]
    while folders:
        folder = folders.pop()
        folders += genre_folders(folder)
        for path in audio_files(folder):
            name = plain_name(path.relative_to(root).as_posix())
            files.setdefault(name, []).append(path)
    return files


def _read_list(path):
    """Genre, artist and path of each track of a tracklist, with or without a header."""
    try:
        rows = pd.read_csv(
            path,
            header=None,
            names=COLUMNS,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            encoding_errors="replace",
        ).fillna("")
    except pd.errors.ParserError as error:
        raise DataFolderError(
            f"{path}: not readable as a list ({str(error).strip()}). Replace it."
        ) from error
    if rows.empty:
        raise DataFolderError(
            f"{path}: expected a list of tracks, found an empty file."
        )
    suffixes = AUDIO_SUFFIXES | FOREIGN_SUFFIXES
    is_track = rows.path.map(lambda p: PurePosixPath(p).suffix.lower() in suffixes)
    rows["genre"] = rows["class"].str.strip().str.lower().map(CLASSES)
    is_header = (rows.index == 0) & ~is_track & rows.genre.isna()
    unusable = rows[~is_header & (~is_track | rows.genre.isna())]
    if len(unusable):
        raise DataFolderError(
            f"{path}: expected a class (classical, electronic, jazz_blues, metal_punk, "
            "rock_pop or world), artist, album, track, number and path on each line; "
            f"found {','.join(unusable.iloc[0, :6])!r}. Replace the list."
        )
    return rows.loc[~is_header, ["genre", "artist", "path"]]


def _list_by_folders(files):
    """The same as a tracklist, from paths <genre>/<artist>/<album>/<n>-<track>."""
    rows = []
    for name, (path, *_) in files.items():
        genre, *artist = name.split("/")[:-1] or [""]
        if genre in CLASSES:
            rows.append(
                (CLASSES[genre], artist[0] if artist else "", name + path.suffix)
            )
    return pd.DataFrame(rows, columns=["genre", "artist", "path"])


def _match(paths, files, list_path):
    """The plain name of the file of each listed path; None where there is no file."""
    free = files.keys() - set(map(plain_name, paths))
    names = []
    for path in paths:
        name = plain_name(path)
        # A name that lost a letter still finds its file, if no other would do as well.
        found = [name] if name in files else sorted(filter(_pattern(path), free))
        candidates = [file for name in found for file in files[name]]
        if len(candidates) > 1:
            raise DataFolderError(
                f"{candidates[0]} and {candidates[1]}: expected one file for the track "
                f"{path!r}, found two. Move one away."
            )
        if found and found[0] in names:
            raise DataFolderError(
                f"{list_path}: expected a file for each line, found two lines for "
                f"{candidates[0]}, one of them {path!r}. Delete one."
            )
        names.append(found[0] if found else None)
    return names


def _pattern(path):
    """Tells plain names that have up to two characters for each one not in ASCII."""
    pieces = re.split(r"[^\x00-\x7f]", _below_part(path))
    return re.compile("[^/]{0,2}".join(re.escape(_plain(p)) for p in pieces)).fullmatch


def _below_part(path):
    """A listed path without its suffix and without what may precede it."""
    names = PurePosixPath(path).with_suffix("").parts
    return "/".join(itertools.dropwhile(LEADING.__contains__, names))


def _plain(text):
    """ASCII letters, digits, - and / of a text; an underscore for other ASCII signs."""
    text = unicodedata.normalize("NFKD", re.sub("[‘’“”]", "_", text))
    text = text.encode("ascii", "ignore").decode().lower()
    return re.sub(r"(^|/)0+(?=\d)", r"\1", re.sub(r"[^a-z0-9/-]", "_", text))


def _draw_valid(tracks, valid_fraction, seed):
    """Draws the validation part, identical tracks together where that can be done."""
    if "sha256" in tracks:
        try:
            return draw_valid(tracks.genre, valid_fraction, seed, tracks.sha256)
        except HparamError as error:
            # As with placeholders of one audio, by which the lists are tried.
            logger.warning("%s Going on with identical tracks in two parts.", error)
    return draw_valid(tracks.genre, valid_fraction, seed)


def _heard_in_training(tracks):
    """IDs of tested tracks whose audio a track of the training part has."""
    tested = tracks.part == "test"
    return tracks.ID[tested & tracks.sha256.isin(tracks.sha256[~tested])].tolist()


def _log_overlap(report):
    """Says in one line how many tracks are by artists that are trained on."""
    told = {
        part: "unknown, as artists are anonymous"
        if counts["by_artists_of_train"] is None
        else f"{counts['by_artists_of_train']} of {counts['tracks']}"
        for part, counts in report["artists"].items()
    }
    logger.info(
        "tracks by artists that are trained on: valid %(valid)s; test %(test)s", told
    )
    heard = report["heard_in_training"]
    if heard:
        logger.warning(
            "%d tested tracks have the audio of a track of the training part; the "
            "first: %s",
            len(heard),
            heard[0],
        )
