"""Audio that libsndfile reads: wav, flac, mp3, ogg, opus, aiff, au …"""

import os
import re
import stat
import threading

import soundfile

from ms_sincresnet.errors import AudioFileError

BLOCK_FRAMES = 16384
"""What is decoded at a time, 0.7 s at 22050 Hz.

Short, as what precedes a damaged spot is lost up to one block.
"""

_BLOCK_SAMPLES = 2**20  # of all channels: a header may name a thousand
# Headers of mp3 files are off by the encoder's delay, a few frames of 1152 samples.
_MISSING_FRAMES_TOLERATED = 5 * 1152
# What libsndfile logs of wav, au, aiff and ogg files whose end is missing. It mends the
# length that it reports.
_CUT_SHORT = re.compile(
    r"^ *(data|Data Size|SSND) *: \d+ \(should be \d+\)|lacks an end-of-stream"
    r"|Junk after the last page|does not match value from 'ds64'",
    re.M,
)
# libsndfile keeps why an open failed in one global, which another thread may reset.
_OPEN_LOCK = threading.Lock()


class DecodingError(Exception):
    """What is wrong with a file, told after what could be decoded of it."""


def check_file(path):
    """Raises if a path does not lead to a file that holds something.

    Pipes, sockets and devices are no files: to read them could take for ever.

    Arguments
    ---------
    path : str or pathlib.Path
        What should be audio.

    Raises
    ------
    AudioFileError
        If it is missing, no regular file or empty.

    Example
    -------
    >>> check_file("/dev/zero")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.AudioFileError: /dev/zero: expected an audio file, found a ...
    """
    try:
        state = os.stat(path)
    except FileNotFoundError as error:
        raise AudioFileError(f"{path}: no such file. Check the path.") from error
    except (OSError, ValueError) as error:  # a name too long, a null character …
        reason = getattr(error, "strerror", error)
        raise AudioFileError(f"{path}: {reason}. Check the path.") from error
    if stat.S_ISDIR(state.st_mode):
        raise AudioFileError(f"{path}: expected an audio file, found a folder.")
    if not stat.S_ISREG(state.st_mode):
        raise AudioFileError(
            f"{path}: expected an audio file, found a pipe, a socket or a device. "
            "Write the audio to a file first."
        )
    if state.st_size == 0:
        raise AudioFileError(f"{path}: the file is empty (0 bytes). Replace it.")


def open_sound_file(path):
    """Opens a file with soundfile.

    Arguments
    ---------
    path : str or pathlib.Path
        A file in any format that soundfile reads.

    Returns
    -------
    file : soundfile.SoundFile
        The open file.

    Raises
    ------
    AudioFileError
        If the file is missing, no regular file, empty or in no such format.

    Example
    -------
    >>> path = getfixture("tmp_path") / "tone.flac"
    >>> soundfile.write(path, [0.0] * 44100, 44100)
    >>> with open_sound_file(path) as file:
    ...     file.samplerate
    44100
    """
    check_file(path)
    try:
        return _sound_file(path)
    except DecodingError as error:
        raise not_readable(path, error) from error


def decode_sound_file(path):
    """Opens a file for decoding.

    Arguments
    ---------
    path : str or pathlib.Path
        A file for which ``check_file`` did not raise.

    Returns
    -------
    sample_rate : int
        In Hz.
    blocks : generator of numpy.ndarray [time, channels]
        Float32 samples, full scale 1. Ends with a ``DecodingError`` where decoding does
        before the file.

    Raises
    ------
    DecodingError
        If libsndfile does not know the format.

    Example
    -------
    >>> path = getfixture("tmp_path") / "two channels.flac"
    >>> soundfile.write(path, [[0.0, 0.5]] * 44100, 44100)
    >>> sample_rate, blocks = decode_sound_file(path)
    >>> sample_rate, sum(len(block) for block in blocks)
    (44100, 44100)
    """
    file = _sound_file(path)
    return file.samplerate, _decode(file)


def not_readable(path, reason):
    """The error for a file that cannot be decoded.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    reason : object
        Why, as its text.

    Returns
    -------
    error : AudioFileError
        To be raised.

    Example
    -------
    >>> print(not_readable("song.mp3", "no header"))
    song.mp3: not readable as audio (no header). Replace it, or leave it out.
    """
    return AudioFileError(
        f"{path}: not readable as audio ({reason}). Replace it, or leave it out."
    )


def _sound_file(path):
    """Opens an existing file with soundfile."""
    try:
        with _OPEN_LOCK:
            # bytes, as soundfile would not encode a name that is no UTF-8
            return soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip(" .")
        if reason.startswith("File does not exist"):  # said of mp3 files, and wrong
            reason = "no MPEG audio"
        raise DecodingError(reason) from error
    except TypeError as error:  # what soundfile raises on the suffix .raw
        raise DecodingError(str(error)) from error


def _decode(file):
    """Yields the frames [time, channels] of an open file up to where decoding ends."""
    # Between reads soundfile seeks to where it stands, which in an mp3 loses the bits
    # that a frame borrows from those before it: a few damaged frames a block.
    file.seekable = lambda: False
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
            raise DecodingError("its header tells of more audio")
