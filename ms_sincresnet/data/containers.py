"""Decoding of what libsndfile does not read: m4a, aac, webm, wma … through PyAV.

The 20 to 50 ms that an encoder such as AAC's puts in front of the audio stay, unless
the file says that they are to be dropped.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ms_sincresnet.data.sound_files import DecodingError

FOREIGN_SUFFIXES = frozenset(
    {".m4a", ".m4b", ".mp4", ".aac", ".webm", ".wma", ".mka", ".ape", ".wv", ".mpc"}
    | {".ac3", ".eac3", ".tta"}
)
"""Lower-case suffixes of audio that only PyAV reads."""

# Formats that FFmpeg recognises with certainty. Others can be noise read as mp3, text
# read as video, or a playlist of any files.
_DEMUXERS = (
    "aac,ac3,aiff,ape,asf,avi,caf,eac3,flac,flv,matroska,mov,mpc,mpc8,mpegts,ogg,tta,"
    "wav,wv"
)
# These formats do not state their length: FFmpeg guesses it from the bit rate.
_WITHOUT_LENGTH = {"aac", "ac3", "eac3"}
# Codec tags of encrypted packets, FairPlay's and others.
_ENCRYPTED = {"drms", "enca"}
_SECONDS_TOLERATED = 0.25
# NumPy's type of a sample, the value of silence, and a step; full scale is 1.
_SAMPLE_FORMATS = {
    "u8": ("u1", 128, 2.0**-7),
    "s16": ("i2", 0, 2.0**-15),
    "s32": ("i4", 0, 2.0**-31),
    "s64": ("i8", 0, 2.0**-63),
    "flt": ("f4", 0, 1.0),
    "dbl": ("f8", 0, 1.0),
}


def decode_container(path: str | Path) -> tuple[int, Iterator[np.ndarray]]:
    """Sample rate and float64 blocks [time, channels] of the first audio stream.

    Skips what cannot be decoded or has another sample rate; the blocks then end with a
    ``DecodingError``. Raises ``ModuleNotFoundError`` without PyAV.
    """
    import av

    try:
        # "file:", since FFmpeg would read what precedes a colon as a protocol.
        container = av.open(
            f"file:{os.fspath(path)}",
            container_options={"format_whitelist": _DEMUXERS},
            metadata_errors="replace",
        )
    except av.ArgumentError as error:  # not in the list
        raise DecodingError("no format that it is sure of") from error
    except av.FFmpegError as error:
        raise DecodingError(error.strerror) from error
    frames = _frames(container)
    first = next(frames, None)
    if first is None:
        raise DecodingError("empty audio stream")
    rate, length_s = first.sample_rate, _length_s(container)
    return rate, _blocks(chain([first], frames), rate, length_s)


def _frames(container: Any) -> Iterator[Any]:
    """Frames of the first audio stream; raises at the end if packets were damaged."""
    import av

    with container:
        if not container.streams.audio:
            raise DecodingError("no audio stream")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise DecodingError("unknown codec")
        if stream.codec_context.codec_tag in _ENCRYPTED:
            raise DecodingError("protected against copying")
        damaged = False
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = packet.decode()
            except av.FFmpegError:
                damaged = True
                continue
            yield from (frame for frame in frames if frame.samples)
        if damaged:
            raise DecodingError("damaged packets")


def _blocks(
    frames: Iterable[Any], sample_rate: int, length_s: float
) -> Iterator[np.ndarray]:
    """Samples of the frames; raises at the end if some are missing."""
    n_frames, other_rate = 0, None
    for frame in frames:
        if frame.sample_rate != sample_rate:
            other_rate = frame.sample_rate
            continue
        n_frames += frame.samples
        yield _samples(frame)
    if other_rate is not None:
        raise DecodingError(
            f"its sample rate changes from {sample_rate} to {other_rate} Hz"
        )
    if n_frames / sample_rate < length_s - _SECONDS_TOLERATED:
        raise DecodingError("its header promises more audio")


def _length_s(container: Any) -> float:
    """Length of the audio by the file's own account, in s; 0 if it is not stated."""
    import av

    stream = container.streams.audio[0]
    if container.format.name in _WITHOUT_LENGTH:
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / av.time_base
    return 0.0


def _samples(frame: Any) -> np.ndarray:
    """Samples [time, channels] of a frame in float64, full scale 1."""
    dtype, silence, step = _SAMPLE_FORMATS[frame.format.packed.name]
    channels = frame.layout.nb_channels
    if frame.format.is_planar:
        # PyAV lists more planes than channels from eight channels on.
        planes = frame.planes[:channels]
        samples = np.stack([np.frombuffer(p, dtype, frame.samples) for p in planes], 1)
    else:
        samples = np.frombuffer(frame.planes[0], dtype, frame.samples * channels)
    return (samples.reshape(-1, channels).astype(np.float64) - silence) * step
