"""Decoding of what libsndfile reads: wav, flac, mp3, ogg, opus, aiff, au …"""

import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from ms_sincresnet.errors import AudioFileError

BLOCK_FRAMES = 16384
"""Frames decoded at a time: short, since up to a block is lost before damage."""

_BLOCK_SAMPLES = 2**20  # of all channels: a header may claim a thousand
# Headers of mp3 files are off by the encoder's delay, a few frames of 1152 samples.
_MISSING_FRAMES_TOLERATED = 5 * 1152
# Only libsndfile's log says that a wav, au, aiff or ogg file lacks its end.
_CUT_SHORT = re.compile(
    r"^ *(data|Data Size|SSND) *: \d+ \(should be \d+\)|lacks an end-of-stream"
    r"|Junk after the last page|does not match value from 'ds64'",
    re.M,
)
# libsndfile keeps the reason of a failed open in a global that other threads reset.
_OPEN_LOCK = threading.Lock()


class DecodingError(Exception):
    """A fault of a file, raised after the audio that could be decoded."""


class _SequentialFile(soundfile.SoundFile):
    """A file that is read from start to end."""

    def seekable(self) -> bool:
        """Prevents seeks between blocks, which lose what mp3 frames borrow."""
        return False


def check_file(path: str | Path) -> None:
    """Raises an ``AudioFileError`` unless a path leads to a regular, filled file."""
    try:
        state = os.stat(path)
    except FileNotFoundError as error:
        raise AudioFileError(f"{path}: no such file. Check the path.") from error
    except (OSError, ValueError) as error:  # a name too long, a null character …
        reason = getattr(error, "strerror", error)
        raise AudioFileError(f"{path}: {reason}. Check the path.") from error
    if stat.S_ISDIR(state.st_mode):
        raise AudioFileError(f"{path}: expected an audio file, found a folder.")
    if not stat.S_ISREG(state.st_mode):  # reading it could take forever
        raise AudioFileError(
            f"{path}: expected an audio file, found a pipe, a socket or a device."
        )
    if state.st_size == 0:
        raise AudioFileError(f"{path}: the file is empty (0 bytes). Replace it.")


def not_readable(path: str | Path, reason: object) -> AudioFileError:
    """The error for a file that cannot be decoded."""
    return AudioFileError(
        f"{path}: not readable as audio ({reason}). Replace it, or leave it out."
    )


def open_sound_file(
    path: str | Path, kind: type[soundfile.SoundFile] = soundfile.SoundFile
) -> soundfile.SoundFile:
    """An existing file, opened; raises a ``DecodingError`` for an unknown format."""
    try:
        with _OPEN_LOCK:
            # bytes, since soundfile would not encode a name that is not UTF-8
            return kind(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip(" .")
        if reason.startswith("File does not exist"):  # wrongly said of mp3 files
            reason = "no MPEG audio"
        raise DecodingError(reason) from error
    except TypeError as error:  # soundfile's answer to the suffix .raw
        raise DecodingError(str(error)) from error


def decode_sound_file(path: str | Path) -> tuple[int, Iterator[np.ndarray]]:
    """Sample rate and float32 blocks [time, channels]; may end with a DecodingError."""
    file = open_sound_file(path, _SequentialFile)
    return file.samplerate, _blocks(file)


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Frames [time, channels] of an open file up to where decoding ends."""
    length = min(BLOCK_FRAMES, _BLOCK_SAMPLES // file.channels)
    n_frames = 0
    with file:
        while True:
            try:
                block = file.read(length, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise DecodingError(error.error_string.strip(" .")) from error
            if len(block) == 0:
                break
            n_frames += len(block)
            yield block
        missing = file.frames - n_frames > _MISSING_FRAMES_TOLERATED
        if missing or _CUT_SHORT.search(file.extra_info):
            raise DecodingError("its header promises more audio")
