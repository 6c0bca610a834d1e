"""Songs with their genres: by folders, by a csv file, or by the tags of the files."""

import csv
import hashlib
import logging
import os
import re
from pathlib import Path

import pandas as pd
import yaml
from mediafile import MediaFile, UnreadableFileError
from mutagen.id3 import TCON

from ms_sincresnet.data.prepare import audio_files, letters
from ms_sincresnet.errors import DataFolderError, UserError
from ms_sincresnet.files import as_utf8

logger = logging.getLogger(__name__)


def read_labels(
    folder: str | Path | None = None,
    labels: str | Path | None = None,
    from_tags: bool = False,
) -> pd.DataFrame:
    """ID, genre, path and album of songs, sorted by ID, which can name a file.

    The genre is the first folder below ``folder``, or the tag of a song in it; or songs
    and genres are the columns path and genre of the csv file ``labels``.
    """
    if (folder is None) == (labels is None) or (labels and from_tags):
        raise UserError("name a folder of songs, or --labels FILE without --from-tags")
    source, kind = Path(labels or folder or "."), "songs in a folder for each genre"
    songs = _read_csv(source) if labels else _read_folder(source)
    tags = pd.DataFrame(map(_tags, songs.path), songs.index, ["genre", "album"])
    songs["album"] = tags.album
    if from_tags:
        same = tags.genre.map(letters, na_action="ignore")  # "Hip-Hop" is "hip hop"
        usual = tags.genre.groupby(same).transform(lambda names: names.mode()[0])
        songs["genre"], kind = usual, "songs with a genre tag"
    known, others = songs[songs.genre.notna()].copy(), songs.path[songs.genre.isna()]
    first = others.iloc[0] if len(others) else ""
    found = f"{len(others)} without one, such as {first}" if first else "none"
    if known.empty:
        raise DataFolderError(f"{source}: expected {kind}; found {found}")
    if len(others):
        logger.warning("%s: expected %s; left out %s", source, kind, found)
    known["genre"] = [as_utf8(genre).strip() for genre in known.genre]
    for path in known.path[known.genre == ""]:
        raise DataFolderError(f"{path}: the name of its genre is empty; give it one")
    known.insert(0, "ID", _ids(known.path, source.parent if labels else source))
    return known.sort_values("ID", ignore_index=True)


def _read_folder(root: Path) -> pd.DataFrame:
    """Genre and path of all audio; without a genre directly in the folder."""
    if not root.is_dir():
        raise DataFolderError(f"{root}: no such folder of songs")
    paths = audio_files(root)
    parts = [path.relative_to(root).parts for path in paths]
    genres = [first if below else None for first, *below in parts]
    return pd.DataFrame({"genre": genres, "path": paths}, dtype=object)


def _read_csv(path: Path) -> pd.DataFrame:
    """Genre and path of the songs in a csv file."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = csv.DictReader(file)
            header = as_utf8(",".join(lines.fieldnames or ()))
            rows = [line | {"line": lines.line_num} for line in lines]
    except (OSError, csv.Error) as error:
        raise DataFolderError(f"{path}: cannot be read ({error})") from error
    if not rows or not {"path", "genre"} <= rows[0].keys():
        found = f"found {header[:80]!r} and {len(rows)} rows"
        raise DataFolderError(f"{path}: expected path,genre and rows below; {found}")
    songs = pd.DataFrame(rows, dtype=object)[["genre", "path", "line"]].fillna("")
    songs["path"] = [path.parent / name.strip() for name in songs.path]
    missing = songs[[not song.is_file() for song in songs.path]]
    twins = songs[songs.path.map(lambda song: Path(os.path.abspath(song))).duplicated()]
    for lost, what in (missing, "do not exist"), (twins, "are in lines above as well"):
        for row in lost.itertuples():
            count = f"{len(lost)} of {len(songs)} paths {what}"
            raise DataFolderError(f"{path}, line {row.line}: {row.path}; {count}")
    return songs.drop(columns="line")


def _tags(path: Path) -> tuple[str | None, str]:
    """First genre in the tags of a file, and its album; None and "" if unknown."""
    try:
        tags = MediaFile(path)
    except UnreadableFileError:
        return None, ""
    genre = (tags.genre or "").partition(";")[0].strip()
    genre = next(iter(TCON(text=[genre]).genres), "")  # "(17)" of old mp3s is "Rock"
    album = f"{tags.albumartist or tags.artist or ''} – {tags.album}"
    return genre or None, album if tags.album else ""


def _ids(paths: pd.Series, root: Path) -> list[str]:
    """Relative paths as unique names; a hash parts those that would be the same."""
    names = [os.path.relpath(path, root) for path in paths]
    stems = [as_utf8(os.path.splitext(name)[0]).replace(os.sep, ".") for name in names]
    ids = pd.Series([re.sub(r"[^\w.-]+", "_", stem).lstrip(".") for stem in stems])
    unclear = ids.str.casefold().duplicated(keep=False)
    unclear |= ~ids.str.encode("utf-8").str.len().between(1, 200)  # of 255 in a name
    sums = [hashlib.sha256(os.fsencode(name)).hexdigest()[:12] for name in names]
    return ids.mask(unclear, ids.str[:40] + "-" + sums).tolist()


def read_genre_map(path: str | Path) -> dict[str, list[str]]:
    """Names that others have for our genres, from a yaml file."""
    try:
        names = yaml.load(Path(path).read_text("utf-8"), yaml.BaseLoader).items()
        return {n: [*dict.fromkeys([x] if isinstance(x, str) else x)] for n, x in names}
    except (AttributeError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        expected = "expected lines such as `our genre: theirs` or `ours: [one, two]`"
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not a map of genres; {expected} ({reason})"
        ) from error
