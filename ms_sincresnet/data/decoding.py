"""Decoding of audio files by FFmpeg, through PyAV, up to the end of each file.

The 20 to 50 ms that an encoder such as AAC's puts in front of the audio stay, unless
the file says that they are to be dropped.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from ms_sincresnet.data import mpeg
from ms_sincresnet.errors import AudioFileError, NoAudioError

Block = tuple[int, np.ndarray]  # sample rate, and samples [time, channels]

DECODER = f"libavcodec-{av.library_versions['libavcodec'][0]}"

# Formats that FFmpeg recognises with certainty. Others can be noise read as music, text
# read as video, or a playlist of any files.
_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,ast,au,avi,avr,caf,dsf,dts,dtshd,eac3,epaf,flac,flv,gxf,"
    "iff,ircam,matroska,mlp,mov,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nsv,nut,ogg,oma,"
    "pvf,qcp,qoa,rm,shn,sox,spdif,tak,truehd,tta,voc,vqf,w64,wav,wtv,wv,xwma"
)
# These formats do not state their length: FFmpeg guesses it from the bit rate.
_WITHOUT_LENGTH = {"aac", "ac3", "amr", "dts", "eac3", "mlp", "mpeg", "truehd"}
# Codec tags of encrypted packets, FairPlay's and others.
_ENCRYPTED = {"drms", "enca"}
_SECONDS_TOLERATED = 0.25
_SAMPLES_JOINED = 2**15  # of all channels
_BYTES_TOLERATED = 512  # by which writers count their own headers wrongly
_UNKNOWN_SIZE = 0x7FFFF000  # of streams; this and more, or 0
# NumPy's type of a sample, the value of silence, and a step; full scale is 1.
_SAMPLE_FORMATS = {
    "u8": ("u1", 128, 2.0**-7),
    "s16": ("i2", 0, 2.0**-15),
    "s32": ("i4", 0, 2.0**-31),
    "s64": ("i8", 0, 2.0**-63),
    "flt": ("f4", 0, 1.0),
    "dbl": ("f8", 0, 1.0),
}


class Faults(list[str]):
    """Faults of a file that cost audio, and the number of its decoded frames."""

    n_frames = 0


class _UnknownError(Exception):
    """Reason why nothing can be decoded."""


def check_file(path: str | Path) -> None:
    """Raises an ``AudioFileError`` unless a path leads to a regular, filled file."""
    try:
        state = os.stat(path)
    except FileNotFoundError as error:
        if re.match(r"\w{2,}:/", str(path)):  # one slash is left of two by pathlib
            reason = "an address, not a file. Download it first (curl -LO …)."
            raise AudioFileError(f"{path}: {reason}") from error
        raise AudioFileError(f"{path}: no such file. Check the path.") from error
    except (OSError, ValueError) as error:  # a name too long, a null character …
        reason = getattr(error, "strerror", error)  # type: ignore[arg-type]
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


def decode(path: str | Path, faults: Faults) -> Iterator[Block]:
    """Blocks of a file; notes its frames, and the faults that cost audio."""
    check_file(path)
    try:
        file = open(path, "rb")  # noqa: SIM115, see below
    except OSError as error:
        raise AudioFileError(f"{path}: {error.strerror}. Check the path.") from error
    with file:
        start = mpeg.first_frame(file)
        if start is None:
            try:
                yield from _decode_container(path, file, faults)
                return
            except _UnknownError as error:
                start = mpeg.first_frame(file, search=True)
                if start is None:
                    is_code = Path(path).suffix.lower() == ".ts" and _is_text(file)
                    kind = NoAudioError if is_code else AudioFileError
                    raise kind(*not_readable(path, error).args) from error
            except LookupError as error:
                raise NoAudioError(*not_readable(path, error.args[0]).args) from error
        yield from _decode_mpeg(file, start, faults)


def _is_text(file: BinaryIO) -> bool:
    """True for source code and the like."""
    return not set(mpeg.read_at(file, 0, 1024)) & {*range(9), 127, *range(14, 27)}


def _decode_mpeg(file: BinaryIO, start: int, faults: Faults) -> Iterator[Block]:
    """Blocks of mp1, mp2 and mp3 frames, without what the encoder added."""
    frames = mpeg.read_frames(file, start, faults)
    for stream, group in groupby(frames, itemgetter(0)):
        codec: Any = av.CodecContext.create("mp3float", "r")
        held: deque[Block] = deque()  # it may be padding
        n_frames, n_held, delay = 0, 0, stream.delay
        for _, data in group:
            n_frames += 1
            try:
                decoded = codec.decode(av.Packet(data))
            except av.FFmpegError:
                if n_frames > 2:  # the first ones may borrow bits that were cut off
                    faults.append("damaged frames")
                continue
            for frame in decoded:
                faults.n_frames += 1
                samples = _samples(frame)[delay:]
                delay -= min(delay, frame.samples)
                held.append((frame.sample_rate, samples))
                n_held += len(samples)
                while held and n_held - len(held[0][1]) >= stream.padding:
                    n_held -= len(held[0][1])
                    yield held.popleft()
        n_music = n_held - (stream.padding if n_frames == stream.frames else 0)
        for rate, samples in held:
            yield rate, samples[: max(0, n_music)]
            n_music -= len(samples)


def _decode_container(path: str | Path, file: BinaryIO, faults: Faults) -> Any:
    """Blocks of any other file."""
    head, length = mpeg.read_at(file, 0, 24), file.seek(0, os.SEEK_END)
    # "file:", since FFmpeg would read what precedes a colon as a protocol.
    sources: list[Any] = [f"file:{os.fspath(path)}"]
    promised, (starts, is_whole) = 0, _ogg_links(file)
    if head.startswith(b".snd"):
        size = int.from_bytes(head[8:12], "big")
        if size == 0 or size >= _UNKNOWN_SIZE:
            sources = [_Rewritten(file, head[:8] + b"\xff" * 4)]
    elif head.startswith(b"riff"):  # w64
        promised = int.from_bytes(head[16:24], "little")
    elif head.startswith(b"RIFF"):
        size = int.from_bytes(head[4:8], "little")
        promised = size if size < _UNKNOWN_SIZE else 0
    elif len(starts) > 1:
        spans = zip(starts, [*starts[1:], length], strict=True)
        sources = [f"subfile,,start,{a},end,{b},,:{sources[0]}" for a, b in spans]
    elif head[4:8] == b"ftyp" and _promises_too_much(file, length):
        raise not_readable(path, "its table of samples is damaged")
    if promised > length + _BYTES_TOLERATED or (starts and not is_whole):
        faults.append("its header promises more audio")
    for source in sources:
        yield from _decode_source(source, faults)


class _Rewritten:
    """A file with other first bytes, for FFmpeg to read from start to end."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._head, self._file = head, file
        file.seek(len(head))

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``."""
        head, self._head = self._head[:size], self._head[size:]
        return head or self._file.read(size)


def _ogg_links(file: BinaryIO) -> tuple[list[int], bool]:
    """Starts of the streams that follow each other in an Ogg file; True if it ends."""
    starts: list[int] = []
    was_first = is_last = False
    length = file.seek(0, os.SEEK_END)
    position = mpeg.skip_tags(file, 0)
    if mpeg.read_at(file, position, 4) != b"OggS":
        return [], True
    while len(head := mpeg.read_at(file, position, 282)) > 27:
        if not head.startswith(b"OggS"):
            place = mpeg.read_at(file, position + 1, 2**16).find(b"OggS")
            position += 1 + (place if place >= 0 else 2**16 - 3)
            continue
        is_first, is_last = bool(head[5] & 2), bool(head[5] & 4)
        if is_first and not was_first:  # the streams of a film start together
            starts.append(position)
        was_first = is_first
        position += 27 + head[26] + sum(head[27 : 27 + head[26]])
        is_last &= position <= length
    return starts, is_last


def _promises_too_much(file: BinaryIO, length: int) -> bool:
    """True for an MP4 file whose table has more samples than a cut file can lack.

    FFmpeg would make an entry in memory for each.
    """
    position = 0
    while position < length:
        head = mpeg.read_at(file, position, 16)
        size = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        if head[4:8] == b"moov":
            _, *tables = mpeg.read_at(file, position, min(size, 2**24)).split(b"stsz")
            for table in tables:
                each, count = (int.from_bytes(table[n : n + 4], "big") for n in (4, 8))
                if each * count > 64 * length + 2**24:
                    return True
        position += max(size, 8) if size else length
    return False


def _decode_source(source: Any, faults: Faults) -> Iterator[Block]:
    """Blocks of the first audio stream, without packets that cannot be decoded."""
    try:
        # Of wav files, FFmpeg would otherwise read a megabyte in search of hidden DTS.
        options = {"format_whitelist": _DEMUXERS, "max_probe_packets": "4"}
        container: Any = av.open(
            source, container_options=options, metadata_errors="replace"
        )
    except av.ArgumentError as error:  # not in the list
        raise _UnknownError("no format that FFmpeg is sure of") from error
    except (av.FFmpegError, UnicodeError) as error:
        raise _UnknownError(getattr(error, "strerror", error)) from error
    with container:
        if not container.streams.audio:
            kind = LookupError if container.streams.video else _UnknownError
            raise kind("no audio stream")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise _UnknownError("unknown codec")
        with suppress(UnicodeDecodeError):  # some tags are no text
            if stream.codec_context.codec_tag in _ENCRYPTED:
                raise _UnknownError("protected against copying")
        length_s = 0.0
        for frame in _joined(_frames(container.demux(stream), faults)):
            length_s += frame.samples / frame.sample_rate
            yield frame.sample_rate, _samples(frame)
        if length_s < _length_s(container) - _SECONDS_TOLERATED:
            faults.append("its header promises more audio")


def _frames(packets: Iterator[Any], faults: Faults) -> Iterator[Any]:
    """Decoded frames of packets, counted; notes packets that are damaged."""
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = packet.decode()
        except av.FFmpegError:
            faults.append("damaged packets")
            continue
        for frame in filter(attrgetter("samples"), frames):
            faults.n_frames += 1
            yield frame


def _joined(frames: Iterator[Any]) -> Iterator[Any]:
    """Longer frames of short ones: the network waits while Python handles a frame."""
    for (*_, n_channels), group in groupby(frames, _form):
        queue: Any = av.AudioFifo()  # of one form: it would crash with another
        for frame in group:
            frame.pts = None  # the queue would insist that nothing is missing
            queue.write(frame)
            if queue.samples * n_channels >= _SAMPLES_JOINED:
                yield queue.read()
        if queue.samples:
            yield queue.read()


def _form(frame: Any) -> tuple[str, int, int]:
    """Sample format, rate and number of channels of a frame."""
    return frame.format.name, frame.sample_rate, frame.layout.nb_channels


def _length_s(container: Any) -> float:
    """Length of the audio by the file's own account, in s; 0 if it is not stated."""
    stream = container.streams.audio[0]
    if container.format.name in _WITHOUT_LENGTH:
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / av.time_base
    return 0.0


def _samples(frame: Any) -> np.ndarray:
    """Samples [time, channels] of a frame, full scale 1."""
    dtype, silence, step = _SAMPLE_FORMATS[frame.format.packed.name]
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > 1:
        # PyAV lists more planes than channels from eight channels on.
        planes = frame.planes[:channels]
        samples = np.array([np.frombuffer(p, dtype, frame.samples) for p in planes]).T
    else:
        samples = np.frombuffer(frame.planes[0], dtype, frame.samples * channels)
        samples = samples.reshape(-1, channels)
    if dtype == "f4":
        return samples
    # float32 holds 24 bits.
    wide: Any = np.float32 if dtype in ("u1", "i2") else np.float64
    return (samples.astype(wide) - wide(silence)) * wide(step)
