"""Audio that libsndfile does not read: m4a, aac, webm, wma … through PyAV.

PyAV, the extra ``audio``, brings FFmpeg, of which only the demuxers and decoders are
used. Samples that an encoder such as AAC's puts in front of the audio, some 20 ms to
50 ms, stay where the file does not say that they are to be dropped.
"""

import os
from itertools import chain

import numpy as np

from ms_sincresnet.data.sound_files import DecodingError

# Formats that FFmpeg cannot mistake. It would take noise for mp3 and text for video,
# and would open what a playlist names.
_DEMUXERS = (
    "aac,ac3,aiff,ape,asf,avi,caf,eac3,flac,flv,matroska,mov,mpc,mpc8,mpegts,ogg,tta,"
    "wav,wv"
)
# Their files do not tell their length: FFmpeg guesses it from the bit rate.
_WITHOUT_LENGTH = {"aac", "ac3", "eac3"}
# What stands in the codec's place where packets are encrypted, by FairPlay or others.
_ENCRYPTED = {"drms", "enca"}
_SECONDS_TOLERATED = 0.25
# NumPy's type of a sample, what stands for silence, and a step; full scale is 1.
_SAMPLE_FORMATS = {
    "u8": ("u1", 128, 2.0**-7),
    "s16": ("i2", 0, 2.0**-15),
    "s32": ("i4", 0, 2.0**-31),
    "s64": ("i8", 0, 2.0**-63),
    "flt": ("f4", 0, 1.0),
    "dbl": ("f8", 0, 1.0),
}


def decode_container(path):
    """Opens the first audio stream of a file for decoding.

    Video, pictures, tags and further audio streams are passed over, as are packets that
    cannot be decoded and frames whose sample rate is not the first one's.

    Arguments
    ---------
    path : str or pathlib.Path
        A file that lies on this machine.

    Returns
    -------
    sample_rate : int
        In Hz.
    blocks : generator of numpy.ndarray [time, channels]
        Float64 samples, full scale 1. The channels may change from block to block. Ends
        with a ``DecodingError`` if some of the audio is damaged or missing.

    Raises
    ------
    DecodingError
        If the file is of no known format, or no audio in it can be decoded.
    ModuleNotFoundError
        If PyAV is not installed.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "two channels.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> sample_rate, blocks = decode_container(path)
    >>> sample_rate, np.concatenate(list(blocks)).shape
    (44100, (44100, 2))
    """
    import av

    try:
        # "file:", as FFmpeg would take what precedes a colon for a protocol.
        container = av.open(
            f"file:{os.fspath(path)}",
            container_options={"format_whitelist": _DEMUXERS},
            metadata_errors="replace",
        )
    except av.ArgumentError as error:  # not in the list
        raise DecodingError("no format that it is sure of") from error
    except av.FFmpegError as error:
        raise DecodingError(error.strerror) from error
    frames = _decode_frames(container)
    first = next(frames, None)
    if first is None:
        raise DecodingError("empty audio stream")
    rate, length_s = first.sample_rate, _length_s(container)
    return rate, _to_blocks(chain([first], frames), rate, length_s)


def _decode_frames(container):
    """Yields the frames of the first audio stream, and tells of damage at the end."""
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


def _to_blocks(frames, sample_rate, length_s):
    """Yields the samples of frames; raises at the end if some are missing."""
    n_frames, other_rate = 0, None
    for frame in frames:
        if frame.sample_rate != sample_rate:
            other_rate = frame.sample_rate
            continue
        n_frames += frame.samples
        yield _to_samples(frame)
    if other_rate is not None:
        raise DecodingError(
            f"its sample rate changes from {sample_rate} to {other_rate} Hz"
        )
    if n_frames / sample_rate < length_s - _SECONDS_TOLERATED:
        raise DecodingError("its header tells of more audio")


def _length_s(container):
    """How long a file says that its audio is, in s; 0 if it does not."""
    import av

    stream = container.streams.audio[0]
    if container.format.name in _WITHOUT_LENGTH:
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / av.time_base
    return 0.0


def _to_samples(frame):
    """Samples [time, channels] of a frame in float64, full scale 1."""
    dtype, silence, step = _SAMPLE_FORMATS[frame.format.packed.name]
    channels = frame.layout.nb_channels
    if frame.format.is_planar:
        # PyAV lists planes beyond the last where there are eight channels and more.
        planes = frame.planes[:channels]
        samples = np.stack([np.frombuffer(p, dtype, frame.samples) for p in planes], 1)
    else:
        samples = np.frombuffer(frame.planes[0], dtype, frame.samples * channels)
    return (samples.reshape(-1, channels).astype(np.float64) - silence) * step
