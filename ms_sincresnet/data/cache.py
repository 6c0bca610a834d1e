"""Tracks as mono 16-bit wav files at 16 kHz, from which training reads clips."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor
from tqdm import tqdm

from ms_sincresnet.data.audio import SAMPLE_RATE, read_audio
from ms_sincresnet.data.clips import repeat_to_length
from ms_sincresnet.data.decoding import check_file, not_readable
from ms_sincresnet.errors import AudioFileError
from ms_sincresnet.files import atomic_path


class CachedTrack(NamedTuple):
    """A track in the cache, in a file named by its hash: data sets can share caches."""

    cached: str
    n_samples: int
    sha256: str
    silent: bool


def cache_audio(
    path: Path, cache_folder: Path, *, excerpt: tuple[float, float] | None = None
) -> CachedTrack:
    """Writes the copy of a track or an excerpt, scaled if it exceeds full scale."""
    samples = read_audio(path, excerpt=excerpt)
    samples /= max(1.0, np.abs(samples).max())
    # Times 32768, as libsndfile reads: a 16-bit file at this rate comes back unchanged.
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    sha256 = hashlib.sha256(pcm.tobytes()).hexdigest()
    name = f"{sha256[:16]}.wav"
    with atomic_path(cache_folder / name) as temporary_path:
        soundfile.write(temporary_path, pcm, SAMPLE_RATE, format="WAV")
    return CachedTrack(name, len(pcm), sha256, silent=not pcm.any())


def read_song(path: str | Path) -> Tensor:
    """Samples [time] in [-1, 1] of a cached track: ``read_audio``, 20 times as fast."""
    with _open_cached(path) as file:
        return _pcm_to_float(torch.from_numpy(file.read(dtype="int16")))


def read_clip(path: str | Path, start: int, n_samples: int) -> Tensor:
    """Part [n_samples] of a cached track, repeated if the track ends within it."""
    with _open_cached(path) as file:
        _check_start(start, file.frames, path)
        file.seek(start)
        # Faster than libsndfile's own conversion to float, which gives the same.
        pcm = torch.from_numpy(file.read(n_samples, dtype="int16"))
    return repeat_to_length(_pcm_to_float(pcm), n_samples)


class TracksInMemory:
    """Cached tracks held as 16-bit samples: 115 MB per hour."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._tracks = {}
        # disable=None: no bar where the output is a file
        for path in tqdm(paths, "reading", unit="track", disable=None):
            with _open_cached(path) as file:
                self._tracks[path] = file.read(dtype="int16")

    def read_clip(self, path: str | Path, start: int, n_samples: int) -> Tensor:
        """The result of the function ``read_clip``, from memory."""
        track = self._tracks[path]
        _check_start(start, len(track), path)
        pcm = torch.from_numpy(track[start : start + n_samples])
        return repeat_to_length(_pcm_to_float(pcm), n_samples)


def _open_cached(path: str | Path) -> soundfile.SoundFile:
    """A track of the cache, opened."""
    check_file(path)
    try:
        # bytes, since soundfile would not encode a name that is not UTF-8
        file = soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        raise not_readable(path, error.error_string) from error
    if (file.samplerate, file.channels, file.subtype) != (SAMPLE_RATE, 1, "PCM_16"):
        file.close()
        raise AudioFileError(
            f"{path}: expected a cached track, 16-bit mono at {SAMPLE_RATE} Hz, found "
            f"{file.channels} channel(s) at {file.samplerate} Hz as {file.subtype}. "
            "Run the preparation again."
        )
    return file


def _check_start(start: int, n_samples: int, path: str | Path) -> None:
    """Raises if a clip would start where a track has no samples."""
    if not 0 <= start < n_samples:
        raise AudioFileError(
            f"{path}: expected more than {start} samples, found {n_samples}. "
            "Run the preparation again."
        )


def _pcm_to_float(pcm: Tensor) -> Tensor:
    """16-bit to float32 samples in [-1, 1], as libsndfile reads them."""
    return pcm.float().mul_(1 / 32768)
