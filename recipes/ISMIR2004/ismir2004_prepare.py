"""Manifests for ISMIR2004: six classes, three parts of 729 whole songs each.

P. Cano, E. Gómez, F. Gouyon, P. Herrera, M. Koppenberger, B. Ong, X. Serra, S. Streich,
N. Wack, "ISMIR 2004 audio description contest", MTG-TR-2006-02, 2006.
"""

import itertools
import logging
import re
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ms_sincresnet.data.audio import AUDIO_SUFFIXES
from ms_sincresnet.data.folds import draw_valid
from ms_sincresnet.data.prepare import audio_files, prepare_manifests
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
"""Class of each genre that folders and lists name: six for the contest."""

TEST_PARTS = ("development", "evaluation")
N_TRACKS = 729  # in each part
LAYOUTS = ("audio", ".", "ismir04_genre/audio", "ismir04_genre")
COLUMNS = ("class", "artist", "album", "track", "number", "path", "magnatune_id")
# Folders that may precede the path of a track below its part's folder.
LEADING = {"/", "tracks", "audio", "training", *TEST_PARTS}

HOW_TO_GET = """\
ISMIR2004 is re-issued by the Music Technology Group, Universitat Pompeu Fabra:
  https://zenodo.org/records/1302992 (audio from Magnatune, CC BY-NC-SA 1.0)
Unpack the archives into one folder, so that it holds
  audio/training/<genre>/<artist>/<album>/*.mp3   metadata/training/tracklist.csv
  audio/development/*.mp3                         metadata/development/tracklist.csv
then run
  python train.py hparams/ms_sincresnet.yaml --data_folder=<that folder>"""


def prepare_ismir2004(
    data_folder: str | Path,
    manifest_folder: str | Path,
    cache_folder: str | Path,
    *,
    test_part: str = "development",
    excerpt: tuple[float, float] | None = None,
    valid_fraction: float = 0.1,
    split_seed: int = 1234,
) -> None:
    """Writes ``train.csv``, ``valid.csv`` and ``test.csv`` for ISMIR2004.

    The training part is split into 656 tracks to train and 73 to validate with,
    stratified by class; the test part is the contest's. ``tracklist.csv``, or else the
    genre folders, name the classes. A track's ID is the part and its ``plain_name``.

    ``report.json`` names tracks that are missing, not listed or not readable, counts
    the tracks by artists of the training part ("artists") and lists tested tracks of a
    recording that is in the training part ("heard_in_training").

    Arguments
    ---------
    data_folder
        ISMIR2004 in any of its layouts.
    manifest_folder
        Folder of the manifests and ``report.json``.
    cache_folder
        Folder of the 16 kHz copies: ``$data_root`` in the manifests.
    test_part
        "development", which the paper most likely tests on, or "evaluation".
    excerpt
        Start and duration of the used part of each song, in s; see ``read_audio``.
        Whole songs by default.
    valid_fraction
        Share of the training part that goes to validation, between 0 and 1.
    split_seed
        Seed of the validation part.

    Raises
    ------
    DataFolderError
        If there is no data, a part lacks a class, or a list is damaged or ambiguous.
    HparamError
        If ``test_part``, ``excerpt`` or ``valid_fraction`` is out of range.

    Example
    -------
    >>> import soundfile
    >>> root = getfixture("tmp_path")
    >>> for nth, genre in enumerate(sorted(set(CLASSES.values())) * 3):
    ...     part = "training" if nth < 12 else "evaluation"
    ...     path = root / "audio" / part / genre / "artist" / "album" / f"{nth}-a'b.wav"
    ...     path.parent.mkdir(parents=True, exist_ok=True)
    ...     soundfile.write(path, np.random.default_rng(nth).normal(size=80) / 9, 16000)
    >>> folders = root, root / "manifests", root / "cache"
    >>> prepare_ismir2004(*folders, test_part="evaluation", valid_fraction=0.5)
    >>> pd.read_csv(root / "manifests" / "test.csv").ID[3]
    'evaluation/metal_punk/artist/album/15-a_b'
    """
    roots = find_ismir2004(data_folder, test_part)
    found = [_find_part(root, part) for part, root in roots.items()]
    tracks = pd.concat([tracks for tracks, _ in found]).sort_values("ID")

    def assign_parts(tracks: pd.DataFrame) -> np.ndarray:
        """Parts with a validation part drawn from the training part."""
        is_test = ~tracks.ID.str.startswith("training/").to_numpy()
        parts = np.where(is_test, "test", "train")
        rest = tracks[~is_test]
        groups = rest.get("recording")
        in_valid = draw_valid(rest.genre, valid_fraction, split_seed, groups)
        parts[np.flatnonzero(~is_test)[in_valid]] = "valid"
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
            "split_seed": split_seed,
        },
        left_out=[row for _, left_out in found for row in left_out],
        describe=_describe_overlap,
        excerpt=excerpt,
    )
    logger.info("tracks by artists of train: %s", report["artists"])


def find_ismir2004(
    data_folder: str | Path, test_part: str = "development"
) -> dict[str, Path]:
    """Folders of the training part and of a test part, in any layout, by part."""
    if test_part not in TEST_PARTS:
        raise HparamError(
            f"test_part: expected {' or '.join(TEST_PARTS)}, got {test_part!r}"
        )
    if not data_folder or not Path(data_folder).is_dir():
        raise DataFolderError(
            "data_folder: expected the folder of ISMIR2004, unpacked; got "
            f"{str(data_folder)!r}.\n{HOW_TO_GET}"
        )
    roots = {}
    for part in ("training", test_part):
        candidates = (Path(data_folder, layout, part) for layout in LAYOUTS)
        root = next(filter(audio_files, candidates), None)
        if root is None:
            raise DataFolderError(
                f"data_folder: {data_folder}: expected audio files in audio/{part} or "
                f"{part} below it; found none.\n{HOW_TO_GET}"
            )
        roots[part] = root
    return roots


def plain_name(path: str) -> str:
    """The ASCII name that a track has in all copies of the lists and on any disk.

    Paths differ in ``./`` or ``tracks/`` at the start, punctuation, accents and zeros.

    >>> plain_name("./rock/the_band/d'été_(live)/05-kruhov\u00fd_objazd.mp3")
    'rock/the_band/d_ete__live_/5-kruhovy_objazd'
    """
    return _plain(_below_part(path))


def _find_part(root: Path, part: str) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """ID, genre, path and artist of a part's tracks, and the tracks left out of it."""
    files: dict[str, list[Path]] = {}
    for path in audio_files(root):
        name = plain_name(path.relative_to(root).as_posix())
        files.setdefault(name, []).append(path)
    list_name = f"metadata/{part}/tracklist.csv"
    lists = (folder / list_name for folder in (root.parent.parent, root.parent))
    list_path = next(filter(Path.is_file, lists), None)
    listed = _read_list(list_path) if list_path else _list_by_folders(files)
    if len(listed) != N_TRACKS:
        logger.warning(
            f"{list_path or root}: expected the {N_TRACKS} tracks of the contest's "
            f"{part} part, found {len(listed)}"
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
            f"{root}: expected tracks of six classes, by {list_name} or by folders, "
            f"found none of {missing}.\n{HOW_TO_GET}"
        )
    return tracks, [
        {"ID": f"{part}/{name}", "path": path, "reason": reason}
        for name, path, reason in left_out
    ]


def _read_list(path: Path) -> pd.DataFrame:
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
    suffixes = rows.path.map(lambda path: PurePosixPath(path).suffix.lower())
    is_track = suffixes.isin(AUDIO_SUFFIXES)
    rows["genre"] = rows["class"].str.strip().str.lower().map(CLASSES)
    is_header = (rows.index == 0) & ~is_track & rows.genre.isna()
    unusable = rows[~is_header & (~is_track | rows.genre.isna())]
    if len(unusable):
        raise DataFolderError(
            f"{path}: expected a class, artist, album, track, number and path, "
            f"found {','.join(unusable.iloc[0, :6])!r}. Replace the list."
        )
    return rows.loc[~is_header, ["genre", "artist", "path"]]


def _list_by_folders(files: dict[str, list[Path]]) -> pd.DataFrame:
    """The table of a tracklist, from paths <genre>/<artist>/<album>/<n>-<track>."""
    rows = []
    for name, (path, *_) in files.items():
        genre, artist, *_ = [*name.split("/")[:-1], "", ""]
        if genre in CLASSES:
            rows.append((CLASSES[genre], artist, name + path.suffix))
    return pd.DataFrame(rows, columns=["genre", "artist", "path"])


def _match(
    paths: pd.Series, files: dict[str, list[Path]], list_path: Path | None
) -> list[str | None]:
    """Plain name of the file of each listed path; None where there is no file."""
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
                f"{list_path}: expected one line for {candidates[0]}, found two, one "
                f"of them with {path!r}. Delete one."
            )
        names.append(found[0] if found else None)
    return names


def _pattern(path: str) -> Any:
    """Matcher of plain names with up to two characters for each one beyond ASCII."""
    pieces = re.split(r"[^\x00-\x7f]", _below_part(path))
    return re.compile("[^/]{0,2}".join(re.escape(_plain(p)) for p in pieces)).fullmatch


def _below_part(path: str) -> str:
    """A listed path without its suffix and the folders that may precede it."""
    names = PurePosixPath(path).with_suffix("").parts
    return "/".join(itertools.dropwhile(LEADING.__contains__, names))


def _plain(text: str) -> str:
    """ASCII letters, digits, - and / of a text; an underscore for other ASCII signs."""
    text = unicodedata.normalize("NFKD", re.sub("[‘’“”]", "_", text))
    text = text.encode("ascii", "ignore").decode().lower()
    return re.sub(r"(^|/)0+(?=\d)", r"\1", re.sub(r"[^a-z0-9/-]", "_", text))


def _describe_overlap(tracks: pd.DataFrame) -> dict[str, Any]:
    """Overlap of validation and test with training, by artist and by audio."""
    trained = tracks.artist[tracks.part == "train"]
    counts = {}
    for part in ("valid", "test"):
        artists = tracks.artist[tracks.part == part]
        # Artists of the development part are anonymous.
        anonymous = pd.concat([trained, artists]).str.fullmatch(r"artist_\d+|").any()
        n_known = None if anonymous else int(artists.isin(trained).sum())
        counts[part] = {"tracks": len(artists), "by_artists_of_train": n_known}
    tested = tracks.part == "test"
    heard = tracks.ID[tested & tracks.recording.isin(tracks.recording[~tested])]
    return {"artists": counts, "heard_in_training": heard.tolist()}
