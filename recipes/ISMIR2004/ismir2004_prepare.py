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

import pandas as pd

from ms_sincresnet.data.audio import AUDIO_SUFFIXES
from ms_sincresnet.data.folds import draw_valid
from ms_sincresnet.data.prepare import audio_files, prepare_manifests
from ms_sincresnet.errors import DataFolderError, HparamError

logger = logging.getLogger(__name__)

NAMES = ("classical", "electronic", "jazz_blues", "metal_punk", "rock_pop", "world")
CLASSES = {genre: name for name in NAMES for genre in (name, *name.split("_"))}
"""Class of each genre that folders and lists name: six for the contest."""

TEST_PARTS = ("development", "evaluation")
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
    README.md describes ``report.json``.

    Arguments
    ---------
    data_folder
        ISMIR2004 in any of its layouts.
    manifest_folder, cache_folder
        Folders of the manifests and ``report.json``, and of the 16 kHz copies.
    test_part
        "development", which the paper most likely tests on, or "evaluation".
    excerpt
        Start and duration of the used part of each song, in s; see ``read_audio``.
        Whole songs by default.
    valid_fraction, split_seed
        Share of the training part that goes to validation, and the seed of the draw.

    Raises
    ------
    DataFolderError
        If there is no data, a part lacks a class, or a list is damaged or ambiguous.
    HparamError
        If ``test_part``, ``excerpt`` or ``valid_fraction`` is out of range.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> root, parts = getfixture("tmp_path"), ["training", "training", "evaluation"]
    >>> for nth, genre in enumerate(NAMES * 3):
    ...     path = root / parts[nth // 6] / genre / f"{nth}.wav"
    ...     path.parent.mkdir(parents=True, exist_ok=True)
    ...     soundfile.write(path, np.random.default_rng(nth).normal(size=80) / 9, 16000)
    >>> folders = root, root / "manifests", root / "cache"
    >>> prepare_ismir2004(*folders, test_part="evaluation", valid_fraction=0.5)
    >>> pd.read_csv(root / "manifests" / "test.csv").ID[3]
    'evaluation/metal_punk/15'
    """
    if test_part not in TEST_PARTS:
        raise HparamError(
            f"test_part: expected {' or '.join(TEST_PARTS)}, got {test_part!r}"
        )
    found = pd.concat(_find_part(data_folder, part) for part in ("training", test_part))
    is_used = found.reason.isna()
    options = {"data_folder": str(Path(data_folder).absolute()), "test_part": test_part}
    options |= {"excerpt": excerpt, "valid_fraction": valid_fraction}

    def assign_parts(tracks: pd.DataFrame) -> pd.Series:
        """Parts with a validation part drawn from the training part."""
        is_train = tracks.ID.str.startswith("training/")
        parts, rest = is_train.map({True: "train", False: "test"}), tracks[is_train]
        groups = rest.get("recording")
        in_valid = draw_valid(rest.genre, valid_fraction, split_seed, groups)
        parts[rest.index[in_valid]] = "valid"
        return parts

    report = prepare_manifests(
        found[is_used].sort_values("ID", ignore_index=True),
        manifest_folder,
        cache_folder,
        assign_parts=assign_parts,
        options=options | {"split_seed": split_seed},
        left_out=found.loc[~is_used, ["ID", "path", "reason"]].to_dict("records"),
        describe=_describe_overlap,
        excerpt=excerpt,
    )
    logger.info("tracks by artists of train: %s", report["artists"])


def plain_name(path: str) -> str:
    """The ASCII name that a track has in all copies of the lists and on any disk."""
    return _plain(_below_part(path))


def _find_part(data_folder: str | Path, part: str) -> pd.DataFrame:
    """ID, genre, path and artist of a part's tracks; the reason if one is left out."""
    roots = (Path(data_folder, layout, part) for layout in LAYOUTS if data_folder)
    root = next(filter(audio_files, roots), None)
    if root is None:
        raise DataFolderError(
            f"data_folder: expected the folder of ISMIR2004, unpacked; got "
            f"{str(data_folder)!r}. Searched for audio files in audio/{part} or "
            f"{part} below it; found none.\n{HOW_TO_GET}"
        )
    files: dict[str, list[Path]] = {}
    for path in audio_files(root):
        name = plain_name(path.relative_to(root).as_posix())
        files.setdefault(name, []).append(path)
    list_name = f"metadata/{part}/tracklist.csv"
    lists = (folder / list_name for folder in (root.parent.parent, root.parent))
    list_path = next(filter(Path.is_file, lists), None)
    listed = _read_list(list_path) if list_path else _list_by_folders(files)
    if len(listed) != 729:
        logger.warning(
            f"{list_path or root}: expected the 729 tracks of the contest's {part} "
            f"part, found {len(listed)}"
        )
    names = _match(listed.path, files, list_path)
    rows, reason = [], f"not on disk, but in {list_path}"
    for genre, artist, path in listed.itertuples(index=False):
        name = names.get(path, plain_name(path))
        file, lost = (files[name][0], None) if path in names else (root / path, reason)
        rows.append((f"{part}/{name}", genre, file, artist, lost))
    reason = f"not in {list_path or 'a folder of a genre'}"
    for name in sorted(files.keys() - {*names.values()}):
        rows += [(f"{part}/{name}", None, path, None, reason) for path in files[name]]
    found = pd.DataFrame(rows, columns=["ID", "genre", "path", "artist", "reason"])
    if missing := sorted({*NAMES} - {*found.genre[found.reason.isna()]}):
        raise DataFolderError(
            f"{root}: expected tracks of six classes, by {list_name} or by folders, "
            f"found none of {missing}.\n{HOW_TO_GET}"
        )
    return found


def _read_list(path: Path) -> pd.DataFrame:
    """Genre, artist and path of each track of a tracklist, with or without a header."""
    try:
        rows = pd.read_csv(
            path,
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
    rows["genre"] = rows["class"].str.strip().str.lower().map(CLASSES)
    is_track = rows.path.str.lower().str.endswith((*AUDIO_SUFFIXES,))
    is_header = (rows.index == 0) & ~is_track & rows.genre.isna()
    unusable = rows[~is_header & ~(is_track & rows.genre.notna())]
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
) -> dict[str, str]:
    """Plain name of the file of each listed path that has one."""
    free = files.keys() - set(map(plain_name, paths))
    names: dict[str, str] = {}
    for path in paths:
        name = plain_name(path)
        # A name that lost a letter still finds its file, if no other would do as well.
        found = [name] if name in files else sorted(filter(_pattern(path), free))
        if not found:
            continue
        first, *others = [file for name in found for file in files[name]]
        if others:
            raise DataFolderError(
                f"{first} and {others[0]}: expected one file for the track {path!r}, "
                "found two. Move one away."
            )
        if found[0] in names.values():
            raise DataFolderError(
                f"{list_path}: expected one line for {first}, found two, one of them "
                f"with {path!r}. Delete one."
            )
        names[path] = found[0]
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
