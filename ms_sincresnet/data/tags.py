"""Genres in the tags of files, which are replaced whole; a log can undo it."""

import base64
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from mediafile import MediaFile
from mediafile.exceptions import MediaFileError
from mutagen import MutagenError
from mutagen.apev2 import APEv2
from mutagen.id3 import TCON

from ms_sincresnet.data.prepare import letters
from ms_sincresnet.errors import UserError
from ms_sincresnet.files import atomic_path

logger = logging.getLogger(__name__)

_SPELLINGS = {letters(name): name for name in reversed(TCON.GENRES)}


def genre_names(genre: str, genre_map: dict[str, list[str]]) -> list[str]:
    """Names to write for a genre: the map's, else in the spelling of ID3, if any."""
    for ours, names in genre_map.items():
        if letters(ours) == letters(genre):
            return names
    return [_SPELLINGS.get(letters(genre), genre)]


def read_tags(path: str) -> tuple[list[str], tuple | None]:
    """Genres of a file that can be tagged, and a key that songs of one album share."""
    with _errors_of(path):
        file, folder = MediaFile(path), os.path.dirname(path)
        for needed in path, folder:
            if not os.access(needed, os.W_OK):
                raise UserError(f"{needed}: cannot be written (Permission denied)")
        genres = [genre for genre in file.genres or () if genre.strip()]
        genres = genres or [*filter(None, [_elsewhere(file)])]
    return genres, file.album and (file.album, file.albumartist or Path(folder))


def _elsewhere(file: MediaFile) -> str | None:
    """Genre that players may find in tags that MediaFile neither reads nor changes."""
    if file.type == "mp3":
        with suppress(MutagenError):
            return str(APEv2(file.path).get("Genre") or "")
    elif file.type in ("flac", "wav") and not file.genres:  # in ID3, in LIST/INFO
        with av.open(file.path, metadata_errors="replace") as container:
            return container.metadata.get("genre")
    return None


@contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Turns errors of reading and writing tags into errors for the user."""
    try:
        yield
    except (OSError, MediaFileError, av.FFmpegError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: cannot be tagged ({reason})") from error


def write_genres(path: str, genres: list[str], log: str, id3v23: bool = False) -> None:
    """Writes genres into a file that is no link, after a line in a log."""
    with _errors_of(path), _replacement(path) as copy:
        song = MediaFile(copy, id3v23=id3v23)
        old, other, song.genres = song.genres, _elsewhere(song), genres
        song.save()
        if _packets(path) != _packets(copy):
            raise UserError(f"{path}: left alone, since its audio would have changed")
        entry = {"file": path, "old": old or [], "new": genres}
        # The line break comes first, so that a line cut short spoils no other.
        line = b"\n" + json.dumps(entry | _difference(path, copy)).encode()
        with open(log, "ab") as file:
            file.write(line)
        _sync(log)
    if other:
        what = "another tag in it, which players may show, has the genre"
        logger.warning("%s: %s %s", path, what, other)


@contextmanager
def _replacement(path: str) -> Iterator[str]:
    """A copy with the owner, mode and attributes of a file, which it then replaces."""
    before = os.stat(path)
    if before.st_nlink > 1:
        logger.warning("%s: its other names (hard links) keep the old tags", path)
    with atomic_path(path) as copy:
        shutil.copy2(path, copy)
        for owner in (before.st_uid, -1), (-1, before.st_gid):
            with suppress(AttributeError, PermissionError):  # Windows has no owners
                os.chown(copy, *owner)
        yield str(copy)
        _sync(copy)
    with suppress(OSError):  # not all systems know this of folders
        _sync(os.path.dirname(path))


def _sync(path: str | Path) -> None:
    """Waits until a file or folder is on the disk."""
    number = os.open(path, os.O_RDONLY)
    if os.name != "nt":  # Windows syncs only what is open for writing
        os.fsync(number)
    os.close(number)


def _packets(path: str) -> str | None:
    """Hash of the encoded audio in a file, if FFmpeg finds it."""
    digest = hashlib.sha256()
    with suppress(av.FFmpegError), av.open(path, metadata_errors="replace") as file:
        for packet in file.demux(audio=0):
            digest.update(packet)
        return digest.hexdigest()
    return None


def _difference(old: str, new: str) -> dict[str, Any]:
    """Data that make an old file of a new one, and the hash of the old one."""
    # The files agree from the start or from the end on. Their exclusive or is then
    # mostly zeros: some hundred bytes when compressed twice.
    before: Any = np.memmap(old, mode="r")
    after = np.memmap(new, mode="r")
    size, n = len(before), min(len(before), len(after))
    at_start = np.count_nonzero(before[:n] == after[:n])
    at_end = np.count_nonzero(before[size - n :] == after[len(after) - n :])
    shift = len(after) - size if at_end > at_start else 0
    both = _aligned(after, size, shift)
    both ^= before
    undo = base64.b64encode(zlib.compress(zlib.compress(both, 1))).decode()
    return {"sha256": hashlib.sha256(before).hexdigest(), "shift": shift, "undo": undo}


def _aligned(content: np.ndarray, size: int, shift: int) -> Any:
    """As many bytes from ``shift`` on; zeros in front of the content and behind it."""
    padded, first = np.zeros(size, np.uint8), max(-shift, 0)
    found = content[max(shift, 0) :][: size - first]
    padded[first : first + len(found)] = found
    return padded


def read_log(path: str) -> list[dict[str, Any]]:
    """Entries of a log, the last first, without a line that a kill cut short."""
    try:
        lines = Path(path).read_text("ascii").splitlines()
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        return [x | {"undo": base64.b64decode(x["undo"])} for x in entries[::-1]]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a log of `tag` ({error!r})") from error


def undo(entry: dict[str, Any]) -> str:
    """Gives a file its old bytes; returns what was done."""
    path = os.path.realpath(entry["file"])
    with _errors_of(path):
        now: Any = np.fromfile(path, np.uint8)
        if hashlib.sha256(now).hexdigest() == entry["sha256"]:
            return "unchanged"
        both = zlib.decompress(zlib.decompress(entry["undo"]))
        old = _aligned(now, len(both), entry["shift"])
        old ^= np.frombuffer(both, np.uint8)
        if hashlib.sha256(old).hexdigest() != entry["sha256"]:
            was = f"its genre was {'; '.join(entry['old']) or 'empty'}"
            raise UserError(f"{path}: left alone, since it has changed; {was}")
        with _replacement(path) as copy:
            old.tofile(copy)
    return "restored"
