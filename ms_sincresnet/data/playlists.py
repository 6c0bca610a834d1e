"""Playlists: read, and written as m3u8."""

import codecs
import logging
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import atomic_path, natural

logger = logging.getLogger(__name__)

PLAYLISTS = {".m3u", ".m3u8", ".pls"}


def is_playlist(path: str | Path) -> bool:
    """True for a file name with the suffix of a playlist."""
    return os.path.splitext(path)[1].lower() in PLAYLISTS


def read_list(path: str | Path) -> list[str]:
    """Paths from a text file with one path per line, or from a playlist.

    "-" reads the standard input. What a playlist names is relative to its folder.
    """
    try:
        text = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    lines = text.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").split(b"\n")
    folder = os.path.split(path)[0]
    if lines[0].strip().lower() == b"[playlist]":
        lines = [
            line.partition(b"=")[2] for line in lines if line[:4].lower() == b"file"
        ]
    elif is_playlist(path) or lines[0].startswith(b"#EXTM3U"):
        lines = [line for line in lines if not line.startswith(b"#")]
    else:
        return [os.fsdecode(line) for line in lines if line]
    return [_listed(line.strip(), folder) for line in lines if line.strip()]


def _listed(line: bytes, folder: str) -> str:
    """The path of a song in a playlist, or its address."""
    name = os.fsdecode(line)
    if name.lower().startswith("file://"):
        name = unquote(urlsplit(name).path)
    if "://" in name:
        return name
    # Old playlists come from Windows.
    names = name, name.replace("\\", "/"), line.decode("cp1252", "replace")
    paths = [os.path.join(folder, name) for name in names]
    return next(filter(os.path.exists, paths), paths[0])


def write_playlist(path: str | os.PathLike, songs: Iterable[tuple]) -> None:
    """Writes songs, (path, length in s or None), to an m3u8 file."""
    path = os.path.realpath(path)  # to write to a link's target, and keep the link
    lines, n_left_out = ["#EXTM3U"], 0
    for song, duration in songs:
        if (name := _relative(song, os.path.dirname(path))) is None:
            n_left_out += 1
        else:
            length = -1 if duration is None else round(duration)
            lines += [f"#EXTINF:{length},{Path(name).stem}", name]
    if n_left_out:
        logger.warning("%s: cannot hold the names of %d songs", path, n_left_out)
    try:
        with atomic_path(path) as new_path:
            new_path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def _relative(song: str, folder: str) -> str | None:
    """The name of a song in a playlist of a folder; None if no playlist can hold it."""
    # ".." after a link leads elsewhere, so links to folders are resolved.
    home, name = os.path.split(song)
    name = os.path.relpath(os.path.join(os.path.realpath(home), name), folder)
    name = song if "://" in song else name
    if name.startswith(("#", " ")):
        name = f"./{name}"
    # In results, escapes replace bytes that are not UTF-8.
    escaped = re.search(r"\\udc[89a-f][0-9a-f]", song) and not os.path.lexists(song)
    broken = re.search(r"[\r\n\ud800-\udfff]|\s$", name)
    return None if escaped or broken else name


def write_genres(
    folder: str, genres: Iterable[str], songs: Iterable[tuple[str, str, float]]
) -> None:
    """Writes songs (genre, path, length) to a playlist per genre, in natural order.

    An old playlist of a genre without songs is emptied.
    """
    by_genre, taken = defaultdict(list), set()
    for genre, *song in sorted(songs, key=lambda song: natural(song[1])):
        by_genre[genre].append(tuple(song))
    for genre in sorted(genres):
        name = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", genre)[:60].strip(". ") or "_"
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        path = Path(folder, f"{name}.m3u8")
        if genre in by_genre or path.exists():
            write_playlist(path, by_genre[genre])
