"""Re-encoded twins: one recording in two tracks, at any offset and quality.

Fingerprints propose pairs: signs of energy differences between neighbouring bands and
times, after J. Haitsma, T. Kalker, "A Highly Robust Audio Fingerprinting System",
ISMIR 2002. Music from the same loops or score agrees in these, so the samples decide.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import fft

from ms_sincresnet.data.audio import SAMPLE_RATE
from ms_sincresnet.data.cache import CachedTrack, read_clip
from ms_sincresnet.files import atomic_path

_LONGEST = 30 * SAMPLE_RATE  # the middle of a longer track is compared
_WINDOW, _HOP, _LAG = 4096, 1024, 2  # samples, samples, frames
_EDGES = (np.geomspace(150, 4000, 18) * _WINDOW / SAMPLE_RATE).astype(int)
_BITS = len(_EDGES) - 2
_ROWS = 16  # tracks that are compared with all others at a time

# Bits of other songs agree up to 7.2 standard deviations, of twins from 12.7; samples
# of songs with the same notes correlate up to 0.28, of twins from 0.57.
_LEAST_DEVIATIONS, _LEAST_CORRELATION = 8.5, 0.4


class Twins(NamedTuple):
    """Positions of two tracks, start of the second in the first, correlation."""

    first: int
    second: int
    offset_s: float
    correlation: float


def find_twins(tracks: Sequence[CachedTrack], cache_folder: Path) -> list[Twins]:
    """Pairs of tracks that share 4 s of a recording, or 1.5 s if one is that short."""
    prints = [_fingerprint(track, cache_folder) for track in tracks]
    twins = []
    for first, second, shift in _propose(prints):
        pair = tracks[first], tracks[second]
        starts, (a, b) = zip(*(_middle(t, cache_folder) for t in pair), strict=True)
        shift, correlation = _align(a, b, shift * _HOP)
        if abs(correlation) >= _LEAST_CORRELATION:
            offset_s = round((starts[0] - starts[1] - shift) / SAMPLE_RATE, 3)
            twins.append(Twins(first, second, offset_s, round(correlation, 3)))
    return twins


def _middle(track: CachedTrack, cache_folder: Path) -> tuple[int, np.ndarray]:
    """First sample and samples of the part of a track that is compared."""
    length = min(track.n_samples, _LONGEST)
    start = (track.n_samples - length) // 2
    return start, read_clip(cache_folder / track.cached, start, length).numpy()


def _fingerprint(track: CachedTrack, cache_folder: Path) -> np.ndarray:
    """Signs [frame, bit] of a track, kept in a file next to its samples."""
    if track.n_samples < _WINDOW + _LAG * _HOP:
        return np.zeros((0, _BITS), np.int8)
    path = (cache_folder / track.cached).with_suffix(".npy")
    with contextlib.suppress(OSError, ValueError, EOFError):  # new or damaged
        return np.load(path)
    _, samples = _middle(track, cache_folder)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    power = np.abs(fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32))) ** 2
    energy = np.add.reduceat(power, _EDGES, axis=1)[:, :-1]
    contrast = np.diff(np.log(energy + 1e-7 * energy.max() + 1e-20), axis=1)
    signs = np.sign(contrast[_LAG:] - contrast[:-_LAG]).astype(np.int8)
    with atomic_path(path) as temporary_path, open(temporary_path, "wb") as file:
        np.save(file, signs)
    return signs


def _propose(prints: list[np.ndarray]) -> Iterator[tuple[int, int, int]]:
    """Pairs whose signs agree at some shift of the second, in frames."""
    lengths = np.array([len(signs) for signs in prints])
    n_fft = fft.next_fast_len(2 * max(lengths, default=0) + 1, real=True)
    padded = [np.pad(signs, ((0, n_fft - len(signs)), (0, 0))) for signs in prints]
    spectra = fft.rfft(np.array(padded, np.float32), axis=1).transpose(1, 0, 2).copy()
    for start in range(0, len(prints), _ROWS):
        rows = spectra[:, start : start + _ROWS].conj()
        products = rows @ spectra[:, start:].transpose(0, 2, 1)
        agreement = fft.irfft(products.transpose(1, 2, 0), n_fft)
        shifts = agreement.argmax(2)
        shifts[shifts > n_fft // 2] -= n_fft
        own = lengths[start : start + _ROWS, None]
        overlap = np.minimum(own, lengths[start:] - shifts) + np.minimum(0, shifts)
        n_bits = np.maximum(overlap, 1) * _BITS
        alike = agreement.max(2) > _LEAST_DEVIATIONS * np.sqrt(n_bits)
        for row, column in np.argwhere(np.triu(alike, 1)):
            yield int(start + row), int(start + column), int(shifts[row, column])


def _align(a: np.ndarray, b: np.ndarray, shift: int) -> tuple[int, float]:
    """Shift of ``b`` in samples near the given one, and the correlation there."""
    a, b = a[max(0, -shift) :], b[max(0, shift) :]
    n_samples = min(len(a), len(b))
    n_fft = fft.next_fast_len(n_samples + 2 * _HOP, real=True)
    a, b = (_whitened(samples[:n_samples], n_fft) for samples in (a, b))
    correlations = np.roll(fft.irfft(a.conj() * b, n_fft), _HOP)
    lag = int(np.abs(correlations[: 2 * _HOP]).argmax())
    return shift + lag - _HOP, float(correlations[lag])


def _whitened(samples: np.ndarray, n_fft: int) -> np.ndarray:
    """Spectrum of equal power in each 50 Hz, so that no single note decides."""
    spectrum = fft.rfft(samples, n_fft)
    hz = np.arange(len(spectrum)) * SAMPLE_RATE / n_fft
    spectrum *= (hz > 150) & (hz < 2000)  # low bit rates keep these
    band = (hz // 50).astype(int)
    power = np.bincount(band, np.abs(spectrum) ** 2)
    spectrum /= np.sqrt(power + 1e-9 * power.max() + 1e-20)[band]
    return spectrum * np.sqrt(n_fft / 2) / (np.linalg.norm(spectrum) + 1e-20)
