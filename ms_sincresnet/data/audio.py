"""Audio files as mono float samples at one rate.

Preparation, training and inference share one decoder, one down-mix and one resampler:
libsndfile, the mean of the channels, soxr HQ. PyAV decodes what libsndfile cannot read.
"""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from ms_sincresnet.data.containers import FOREIGN_SUFFIXES, decode_container
from ms_sincresnet.data.sound_files import (
    BLOCK_FRAMES,
    DecodingError,
    check_file,
    decode_sound_file,
    not_readable,
)
from ms_sincresnet.errors import AudioFileError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000  # of everything that the network hears, in Hz
# Lower-case suffixes, including those that need PyAV.
AUDIO_SUFFIXES = FOREIGN_SUFFIXES.union(
    # Headerless files do not state their rate and sample format.
    {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"},
    {".aif", ".aifc", ".snd", ".oga", ".opus", ".wave", ".bwf", ".mp1", ".mp2"},
    {".iff", ".8svx", ".sph", ".mat", ".sf"},
)
# Beyond these a header is damaged, and a few samples would become millions.
_RATES_HZ = (1_000, 6_144_000)
# Full scale is 1, or 2**31 in some float files. Beyond, squares overflow float32.
_LOUDEST = 2.0**40


def read_blocks(
    path: str | Path, sample_rate: int = SAMPLE_RATE
) -> Generator[np.ndarray, None, None]:
    """Mono float32 blocks [time] of a file, with a warning where damage ends them."""
    path = Path(path)
    rate, blocks = _decode(path)
    yield from _normalize(_until_fault(blocks, rate, path), rate, sample_rate, path)


def read_audio(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    *,
    excerpt: tuple[float, float] | None = None,
) -> np.ndarray:
    """Mono samples of a file, or of an excerpt.

    Arguments
    ---------
    path
        A file that libsndfile reads, or PyAV where it is installed.
    sample_rate
        Rate of the result, in Hz.
    excerpt
        Start and duration, in s; the last ``duration`` seconds of a shorter file.

    Returns
    -------
    Float32 samples [time].

    Raises
    ------
    AudioFileError
        If there is no usable audio in the file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "song.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
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
        for block in decoding:  # from the start: seeking in an mp3 is not exact
            blocks.append(block)
            n_samples += len(block)
            if n_samples >= end:
                break
    return np.concatenate(blocks)[:end][-length:]


class AudioNormalizer:
    """Down-mix and resampler for tensors, the ``audio_normalizer`` of model folders.

    SpeechBrain's class of this name resamples with torchaudio, which leaks: a tone of
    8.2 kHz folds back at -8 dB, where soxr leaves -138 dB.

    Arguments
    ---------
    sample_rate
        Rate of the result, in Hz.

    Example
    -------
    >>> AudioNormalizer()(torch.zeros(44100, 2), 44100).shape
    torch.Size([16000])
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        self.sample_rate = sample_rate

    def __call__(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        """Mono samples [time] of audio [time] or [time, channels], on its device."""
        samples = audio.detach().cpu().numpy()
        blocks = _normalize([samples], sample_rate, self.sample_rate, "audio")
        return torch.from_numpy(np.concatenate(list(blocks))).to(audio.device)


def _decode(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """Sample rate and blocks [time, channels], from the first library that can."""
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
        raise AudioFileError(
            f"{path}: not readable as audio ({reason}). To read m4a, aac, webm …, run "
            "`pip install '.[audio]'` in a clone of the repository, or convert it."
        ) from error


def _until_fault(
    blocks: Iterator[np.ndarray], sample_rate: int, path: Path
) -> Iterator[np.ndarray]:
    """Blocks up to where decoding fails, with a warning if it does."""
    n_frames = 0
    try:
        for block in blocks:
            n_frames += len(block)
            yield block
    except DecodingError as error:
        if n_frames == 0:
            raise not_readable(path, error) from error
        usable = f"the {n_frames / sample_rate:.2f} s that were decoded"
        logger.warning(f"{path}: damaged or cut short ({error}); using {usable}")


def _normalize(
    blocks: Iterable[np.ndarray], sample_rate: int, target_rate: int, name: str | Path
) -> Iterator[np.ndarray]:
    """Blocks [time] at the target rate: the one down-mix and resampler."""
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
            is_number = np.isfinite(mono[first])
            found = f"{mono[first]:.3g}" if is_number else "NaN or infinity"
            raise AudioFileError(
                f"{name}: expected samples from -1 to 1, found {found} at "
                f"{(n_samples + first) / sample_rate:.3f} s. Leave it out."
            )
        n_samples += len(mono)
        resampled = resampler.resample_chunk(mono)
        n_resampled += len(resampled)
        if len(resampled):
            yield resampled
    resampled = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if n_resampled + len(resampled) == 0:
        raise AudioFileError(f"{name}: expected audio, found an empty track.")
    if len(resampled):
        yield resampled


def _downmix(block: np.ndarray) -> np.ndarray:
    """Mean of the channels of [time] or [time, channels], float32 and contiguous."""
    if block.ndim == 2:
        # float64 inside, since the sum of two full-scale channels rounds in float32.
        block = block.mean(axis=1, dtype=np.float64)
    elif block.ndim != 1:
        raise ValueError(f"expected [time] or [time, channels], got {block.shape}")
    with np.errstate(over="ignore"):  # to infinity, which is reported
        return np.ascontiguousarray(block, dtype=np.float32)


def _join(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Mono blocks of at least ``BLOCK_FRAMES``, from a decoder's short ones."""
    waiting: list[np.ndarray] = []
    n_waiting = 0
    for block in blocks:
        waiting.append(block)
        n_waiting += len(block)
        if n_waiting >= BLOCK_FRAMES:
            yield np.concatenate(waiting)
            waiting, n_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)
