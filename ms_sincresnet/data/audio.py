"""Audio files as mono float samples at one rate.

Preparation, training and inference share one decoder, one down-mix and one resampler:
FFmpeg, the mean of the channels, soxr HQ.

Stereo out of phase, whose mean is silence or a rest that nobody hears, gives its left
channel: where the mean is more than 20 dB below each channel, in the 30 s from the
first sound of a file on, for all of the file.
"""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import soxr
import torch

from ms_sincresnet.data.decoding import Block, Faults, decode, not_readable
from ms_sincresnet.errors import AudioFileError
from ms_sincresnet.files import natural

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000  # of everything that the network hears, in Hz
_SUFFIXES = """
mp3 mp2 mp1 mpga mpa m2a wav wave bwf rf64 w64 aif aiff aifc au snd flac fla ogg oga
opus spx m4a m4b m4r aac adts caf wma ape wv mpc mp+ mpp tta tak ac3 eac3 ec3 dts dtshd
amr 3ga dsf dff voc iff 8svx svx nist sph ircam sf avr pvf paf qcp qoa oma aa3 ra shn
thd mlp mka weba xwma ast vqf
mp4 m4v mov qt 3gp 3g2 mkv webm ogv ogx ogm avi divx flv f4v f4a asf wmv mpg mpeg mpe
vob ts m2ts mts m2t mxf nut nsv rm rmvb wtv gxf
"""
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
"""Lower-case suffixes of what FFmpeg decodes, films included."""
# Beyond these a header is damaged, and a few samples would become millions.
_RATES_HZ = (1_000, 6_144_000)
# Full scale is 1, or 2**31 in some float files. Beyond, squares overflow float32.
_LOUDEST = 2.0**40
_BLOCK_FRAMES = 16384
_BLOCK_SAMPLES = 2**20  # of all channels: a header may claim hundreds
_PHASE_S, _PHASE_FRAMES = 30, 2**21  # from which the down-mix of a file is decided
_PHASE_POWER = 10.0 ** (-20 / 10)  # of the mean, in relation to each channel
_SILENCE_POWER = 10.0 ** (-80 / 10)
_END = np.zeros(0, np.float32)  # after the last block


def is_audio(path: str | Path) -> bool:
    """True for a file name with a suffix of audio, unless the file is hidden."""
    path = Path(path)
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def walk_audio(root: str | Path) -> Iterator[str]:
    """Audio in a folder and its subfolders, which links may connect to a loop."""

    def warn(error: OSError) -> None:
        if os.path.exists(error.filename):
            message = "%s: this folder cannot be read (%s)"
            logger.warning(message, error.filename, error.strerror)

    seen = set()
    for folder, below, names in os.walk(root, onerror=warn, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            below.clear()
            continue
        seen.add(place)
        visible = [name for name in below if not name.startswith(".")]
        below[:] = sorted(visible, key=natural)  # the order that walk takes
        for name in sorted(filter(is_audio, names), key=natural):
            yield os.path.join(folder, name)


def read_blocks(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    warn: Callable[[str], None] = logger.warning,
) -> Generator[np.ndarray, None, None]:
    """Mono float32 blocks [time] of a file; at the end, it warns of damage."""
    path = Path(path)
    yield from _normalize(_decode(path, warn), sample_rate, path)


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
        A file with audio that FFmpeg decodes.
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
    >>> import soundfile
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
        blocks = _normalize([(sample_rate, samples)], self.sample_rate, "audio")
        return torch.from_numpy(np.concatenate(list(blocks))).to(audio.device)


def _decode(path: str | Path, warn: Callable[[str], None]) -> Iterator[Block]:
    """Blocks of a file, with a warning at the end if some of it is lost."""
    faults, length_s = Faults(), 0.0
    for rate, block in decode(path, faults):
        length_s += len(block) / rate
        yield rate, block
    if len(faults) > faults.n_frames:  # noise that resembles frames in places
        raise not_readable(path, faults[0])
    if faults:
        usable = f"the {length_s:.2f} s that were decoded"
        warn(f"{path}: damaged or cut short ({faults[0]}); using {usable}")


def _normalize(
    blocks: Iterable[Block], target_rate: int, name: str | Path
) -> Iterator[np.ndarray]:
    """Blocks [time] at the target rate: the one down-mix and resampler."""
    n_resampled, start_s = 0, 0.0
    for rate, group in groupby(_downmix(_join(blocks)), itemgetter(0)):
        if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
            raise AudioFileError(
                f"{name}: expected a sample rate of {_RATES_HZ[0]} to {_RATES_HZ[1]} "
                f"Hz, found {rate} Hz. Repair the header, or leave the file out."
            )
        resampler = soxr.ResampleStream(
            rate, target_rate, num_channels=1, dtype="float32", quality="HQ"
        )
        for _, mono in chain(group, [(rate, _END)]):
            usable = np.abs(mono) <= _LOUDEST
            if not usable.all():
                first = int(np.argmin(usable))
                is_number = np.isfinite(mono[first])
                found = f"{mono[first]:.3g}" if is_number else "NaN or infinity"
                raise AudioFileError(
                    f"{name}: expected samples from -1 to 1, found {found} at "
                    f"{start_s + first / rate:.3f} s. Leave it out."
                )
            start_s += len(mono) / rate
            resampled = resampler.resample_chunk(mono, last=mono is _END)
            n_resampled += len(resampled)
            if len(resampled):
                yield resampled
    if n_resampled == 0:
        raise AudioFileError(f"{name}: expected audio, found an empty track.")


def _downmix(blocks: Iterable[Block]) -> Iterator[Block]:
    """Mono blocks [time] of [time] or [time, channels], float32 and contiguous."""
    blocks = iter(blocks)
    waiting: list[Block] = []  # from the first sound on, until it is decided
    n_waiting, powers = 0, np.zeros(3)
    for rate, block in blocks:
        found = _powers(block)
        if not waiting and not found.max() > _SILENCE_POWER * len(block):
            yield rate, _mono(block, False)
            continue
        waiting.append((rate, block))
        n_waiting += len(block)
        powers += found
        if n_waiting >= min(_PHASE_S * rate, _PHASE_FRAMES):
            break
    out_of_phase = bool(powers[0] < _PHASE_POWER * powers[1:].min())
    for rate, block in chain(waiting, blocks):
        yield rate, _mono(block, out_of_phase)


def _powers(block: np.ndarray) -> np.ndarray:
    """Powers of the mean and of both channels of stereo, otherwise zeros."""
    if block.ndim != 2 or block.shape[1] != 2:
        return np.zeros(3)
    with np.errstate(over="ignore", invalid="ignore"):  # reported by _normalize
        left, right = block.T.astype(np.float64)
        each = left @ left, right @ right
        return np.array([(sum(each) + 2 * left @ right) / 4, *each])


def _mono(block: np.ndarray, out_of_phase: bool) -> np.ndarray:
    """Mean of the channels, or the left one of stereo out of phase."""
    if block.ndim == 2:
        if out_of_phase and block.shape[1] == 2:
            block = block[:, 0]
        else:
            # float64, since the sum of two full-scale channels rounds in float32.
            block = sum(block.T.astype(np.float64)) / block.shape[1]
    elif block.ndim != 1:
        raise ValueError(f"expected [time] or [time, channels], got {block.shape}")
    with np.errstate(over="ignore"):  # to infinity, which is reported
        return np.ascontiguousarray(block, dtype=np.float32)


def _join(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks of equal length, from a decoder's short ones or from all samples."""
    for (rate, shape), group in groupby(blocks, lambda b: (b[0], b[1].shape[1:])):
        length = max(1, min(_BLOCK_FRAMES, _BLOCK_SAMPLES // max(1, *shape, 1)))
        waiting: list[np.ndarray] = []
        n_waiting = 0
        for _, block in group:
            waiting.append(block)
            n_waiting += len(block)
            if n_waiting >= length:
                joined = np.concatenate(waiting)
                n_whole = n_waiting // length * length
                for start in range(0, n_whole, length):
                    yield rate, joined[start : start + length]
                waiting, n_waiting = [joined[n_whole:]], n_waiting - n_whole
        if n_waiting:
            yield rate, np.concatenate(waiting)
