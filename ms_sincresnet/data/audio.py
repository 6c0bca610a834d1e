"""Audio files to mono float samples at one rate.

Preparation, training and inference all come through here, so that there is one
decoder, one down-mix and one resampler: soundfile, the mean of the channels, soxr HQ.
PyAV decodes what soundfile cannot read.
"""

import logging
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from ms_sincresnet.data.containers import decode_container
from ms_sincresnet.data.sound_files import (
    BLOCK_FRAMES,
    DecodingError,
    check_file,
    decode_sound_file,
    not_readable,
)
from ms_sincresnet.errors import AudioFileError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
"""Rate of everything that the network hears, in Hz."""

AUDIO_SUFFIXES = frozenset(
    # Headerless files cannot be read without being told rate and sample format.
    {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}
    | {".aif", ".aifc", ".snd", ".oga", ".opus", ".wave", ".bwf", ".mp1", ".mp2"}
    | {".iff", ".8svx", ".sph", ".mat", ".sf"}
)
"""Lower-case suffixes of the files that soundfile reads."""

FOREIGN_SUFFIXES = frozenset(
    {".m4a", ".m4b", ".mp4", ".aac", ".webm", ".wma", ".mka", ".ape", ".wv", ".mpc"}
    | {".ac3", ".eac3", ".tta"}
)
"""Lower-case suffixes of audio that soundfile cannot read, and PyAV can."""

# Beyond these a header is damaged, and a few samples would become millions.
_RATES_HZ = (1_000, 6_144_000)
# Full scale is 1, or 2**31 in some float files. Beyond, squares overflow float32.
_LOUDEST = 2.0**40


def normalize_audio(samples, sample_rate, target_rate=SAMPLE_RATE):
    """Mean of the channels, then soxr's high-quality resampling.

    Arguments
    ---------
    samples : numpy.ndarray [time] or [time, channels]
        Float samples at ``sample_rate``.
    sample_rate : int
        Rate of ``samples``, in Hz.
    target_rate : int
        Rate of the result, in Hz.

    Returns
    -------
    samples : numpy.ndarray [time * target_rate / sample_rate]
        Mono float32 samples at ``target_rate``.

    Raises
    ------
    AudioFileError
        If there are no samples, or if some are NaN or infinite.

    Example
    -------
    >>> stereo = np.ones((44100, 2), dtype=np.float32)
    >>> normalize_audio(stereo, 44100).shape
    (16000,)
    """
    samples = [np.asarray(samples)]
    return np.concatenate(
        list(_normalize_blocks(samples, sample_rate, target_rate, "audio"))
    )


def read_blocks(path, sample_rate=SAMPLE_RATE):
    """Decodes a file to mono samples at one rate, block by block.

    So an hour of stereo at 48 kHz never lies in memory whole. A file that breaks off or
    cannot be decoded to its end gives what comes before, with a warning.

    Arguments
    ---------
    path : str or pathlib.Path
        A file in any format that soundfile reads, or PyAV where it is installed, at
        any rate, of any channel count.
    sample_rate : int
        Rate of the result, in Hz.

    Yields
    ------
    samples : numpy.ndarray [time]
        Mono float32 samples at ``sample_rate``.

    Raises
    ------
    AudioFileError
        If the file is missing, no regular file, not decodable or empty, or if it holds
        NaN, infinite or huge samples.

    Example
    -------
    >>> path = getfixture("tmp_path") / "two channels.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> sum(len(block) for block in read_blocks(path))
    16000
    """
    path = Path(path)
    rate, blocks = _decode(path)
    blocks = _until_fault(blocks, rate, path)
    yield from _normalize_blocks(blocks, rate, sample_rate, path)


def read_audio(path, sample_rate=SAMPLE_RATE, *, excerpt=None):
    """Decodes a file, or an excerpt, to mono samples as ``read_blocks`` does.

    Nothing after an excerpt is decoded. What precedes it is, as seeking in an mp3 is
    not exact.

    Arguments
    ---------
    path : str or pathlib.Path
        A file in any format that soundfile reads, or PyAV where it is installed, at
        any rate, of any channel count.
    sample_rate : int
        Rate of the result, in Hz.
    excerpt : (float, float), optional
        Start and duration, in s. A file that ends before the excerpt does gives its
        last ``duration`` seconds, or all of it if it is no longer than that.

    Returns
    -------
    samples : numpy.ndarray [time]
        Mono float32 samples at ``sample_rate``.

    Raises
    ------
    AudioFileError
        If the file is missing, no regular file, not decodable or empty, or if it holds
        NaN, infinite or huge samples.

    Example
    -------
    >>> path = getfixture("tmp_path") / "two channels.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> read_audio(path).shape
    (16000,)
    >>> read_audio(path, excerpt=(0.25, 0.5)).shape
    (8000,)
    """
    if excerpt is None:
        return np.concatenate(list(read_blocks(path, sample_rate)))
    start_s, duration_s = excerpt
    length = round(duration_s * sample_rate)
    end = round(start_s * sample_rate) + length
    blocks, n_samples = [], 0
    with closing(read_blocks(path, sample_rate)) as decoding:
        for block in decoding:
            blocks.append(block)
            n_samples += len(block)
            if n_samples >= end:
                break
    return np.concatenate(blocks)[:end][-length:]


class AudioNormalizer:
    """The ``audio_normalizer`` of a model folder, on this module's resampler.

    SpeechBrain's own of the same name resamples with torchaudio, which leaks: a tone
    of 8.2 kHz folds back with -8 dB, where soxr leaves -138 dB.

    Arguments
    ---------
    sample_rate : int
        Rate of the result, in Hz.

    Example
    -------
    >>> normalizer = AudioNormalizer()
    >>> normalizer(torch.zeros(44100, 2), 44100).shape
    torch.Size([16000])
    """

    def __init__(self, sample_rate=SAMPLE_RATE):
        self.sample_rate = sample_rate

    def __call__(self, audio, sample_rate):
        """Gives mono samples at ``self.sample_rate``.

        Arguments
        ---------
        audio : torch.Tensor [time] or [time, channels]
            Float samples at ``sample_rate``, on any device.
        sample_rate : int
            Rate of ``audio``, in Hz.

        Returns
        -------
        audio : torch.Tensor [time]
            Mono float32 samples, on the device that they came from.

        Raises
        ------
        AudioFileError
            If there are no samples, or if some are NaN or infinite.
        """
        samples = normalize_audio(
            audio.detach().cpu().numpy(), sample_rate, self.sample_rate
        )
        return torch.from_numpy(samples).to(audio.device)


def _decode(path):
    """Sample rate and blocks [time, channels], by the first library that can."""
    check_file(path)
    try:
        return decode_sound_file(path)
    except DecodingError as error:
        reason = f"libsndfile: {error}"
    try:
        return decode_container(path)
    except DecodingError as error:
        raise not_readable(path, f"{reason}; FFmpeg: {error}") from error
    except ModuleNotFoundError as error:
        suffix = path.suffix.lower()
        those = f"{suffix} files" if suffix in FOREIGN_SUFFIXES else "m4a, aac, webm …"
        raise AudioFileError(
            f"{path}: not readable as audio ({reason}). To read {those}, run "
            "`pip install 'ms_sincresnet[audio]'`; or convert it to wav or flac, for "
            "example with `ffmpeg -i IN OUT.wav`."
        ) from error


def _until_fault(blocks, sample_rate, path):
    """Hands blocks on, and warns at the end if some of the audio is missing."""
    n_frames = 0
    try:
        for block in blocks:
            n_frames += len(block)
            yield block
    except DecodingError as error:
        if n_frames == 0:
            raise not_readable(path, error) from error
        logger.warning(
            "%s: damaged or cut short (%s); going on with the %.2f s that were decoded",
            path,
            error,
            n_frames / sample_rate,
        )


def _normalize_blocks(blocks, sample_rate, target_rate, name):
    """The one down-mix and resampler: blocks in a row to mono ones."""
    if not _RATES_HZ[0] <= sample_rate <= _RATES_HZ[1]:
        raise AudioFileError(
            f"{name}: expected a sample rate of {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz, "
            f"found {sample_rate} Hz. Repair the header, or leave the file out."
        )
    resampler = soxr.ResampleStream(
        sample_rate, target_rate, num_channels=1, dtype="float32", quality="HQ"
    )
    n_samples = n_resampled = 0
    for mono in _join(map(_downmix, blocks)):
        usable = np.abs(mono) <= _LOUDEST
        if not usable.all():
            first = int(np.argmin(usable))
            value = mono[first]
            found = f"{value:.3g}" if np.isfinite(value) else "NaN or infinity"
            raise AudioFileError(
                f"{name}: expected samples from -1 to 1, found {found} at "
                f"{(n_samples + first) / sample_rate:.3f} s. Repair the audio, or "
                "leave it out."
            )
        n_samples += len(mono)
        resampled = resampler.resample_chunk(mono)
        n_resampled += len(resampled)
        if len(resampled):
            yield resampled
    resampled = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if n_resampled + len(resampled) == 0:
        raise AudioFileError(
            f"{name}: expected audio, found an empty track ({n_samples} samples at "
            f"{sample_rate} Hz). Replace it, or leave it out."
        )
    if len(resampled):
        yield resampled


def _downmix(block):
    """Mean of the channels of [time] or [time, channels], float32 and contiguous."""
    if block.ndim == 2:
        # float64 inside, as the sum of two full-scale channels rounds in float32.
        block = block.mean(axis=1, dtype=np.float64)
    elif block.ndim != 1:
        raise ValueError(
            f"samples must be [time] or [time, channels]; got shape {block.shape}"
        )
    with np.errstate(over="ignore"):  # to infinity, which is told of
        return np.ascontiguousarray(block, dtype=np.float32)


def _join(blocks):
    """Joins short mono blocks, as decoders give them, to such of some length."""
    waiting, n_waiting = [], 0
    for block in blocks:
        waiting.append(block)
        n_waiting += len(block)
        if n_waiting >= BLOCK_FRAMES:
            yield np.concatenate(waiting)
            waiting, n_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)
