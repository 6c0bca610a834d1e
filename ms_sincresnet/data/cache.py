"""Tracks as mono 16-bit wav files at 16 kHz, of which training reads clips."""

import hashlib
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from ms_sincresnet.data.audio import SAMPLE_RATE, read_audio
from ms_sincresnet.data.clips import repeat_to_length
from ms_sincresnet.data.sound_files import open_sound_file
from ms_sincresnet.errors import AudioFileError
from ms_sincresnet.files import atomic_path


class CachedTrack(NamedTuple):
    """What is known of a track once it lies in the cache.

    Arguments
    ---------
    n_samples : int
        Decoded length at the cache's rate, in samples.
    sha256 : str
        Hash of the cached 16-bit samples: equal for identical audio, whatever the
        lossless format it came in.
    silent : bool
        Whether every cached sample is zero.
    """

    n_samples: int
    sha256: str
    silent: bool


def cache_audio(path, cached_path, sample_rate=SAMPLE_RATE, *, excerpt=None):
    """Writes the mono 16-bit wav copy of a file that training reads clips from.

    The level is kept, unless resampling or a float file went beyond full scale: then
    the whole track is scaled to fit, because clipping would distort it, while its
    scale is taken out by the network's layer norm.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to copy.
    cached_path : str or pathlib.Path
        Where the copy goes. Its folder is made; the file appears whole or not at all.
    sample_rate : int
        Rate of the copy, in Hz.
    excerpt : (float, float), optional
        Start and duration of what is copied, in s, see ``read_audio``.

    Returns
    -------
    track : CachedTrack
        Decoded length and hash.

    Raises
    ------
    AudioFileError
        As ``read_audio``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "track.au", np.ones(22050) / 2, 22050)
    >>> cache_audio(folder / "track.au", folder / "cache" / "track.wav").n_samples
    16000
    """
    samples = read_audio(path, sample_rate, excerpt=excerpt)
    samples /= max(1.0, np.abs(samples).max())
    # Times 32768, as libsndfile reads: a 16-bit file at this rate comes back as it was.
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    with atomic_path(cached_path) as temporary_path:
        soundfile.write(
            temporary_path, pcm, sample_rate, subtype="PCM_16", format="WAV"
        )
    return CachedTrack(
        n_samples=len(pcm),
        sha256=hashlib.sha256(pcm.tobytes()).hexdigest(),
        silent=not pcm.any(),
    )


def read_song(path):
    """Reads the whole of a cached track.

    As ``read_audio``, which also reads what is no cached track, but 20 times as fast.

    Arguments
    ---------
    path : str or pathlib.Path
        A wav file written by ``cache_audio``.

    Returns
    -------
    song : torch.Tensor [time]
        Float32 samples in [-1, 1].

    Raises
    ------
    AudioFileError
        If the file cannot be read, or is not 16-bit mono at 16 kHz.

    Example
    -------
    >>> path = getfixture("tmp_path") / "track.wav"
    >>> soundfile.write(path, np.arange(4) / 8, SAMPLE_RATE)
    >>> read_song(path)
    tensor([0.0000, 0.1250, 0.2500, 0.3750])
    """
    with _open_cached(path) as file:
        return _pcm_to_float(torch.from_numpy(file.read(dtype="int16")))


def read_clip(path, start, n_samples):
    """Reads a part of a cached track, and nothing else of it.

    Arguments
    ---------
    path : str or pathlib.Path
        A wav file written by ``cache_audio``.
    start : int
        First sample of the part.
    n_samples : int
        Length of the part. A track that ends sooner is repeated up to it.

    Returns
    -------
    clip : torch.Tensor [n_samples]
        Float32 samples in [-1, 1].

    Raises
    ------
    AudioFileError
        If the file cannot be read, is not 16-bit mono at 16 kHz, or ends before
        ``start``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "track.wav"
    >>> soundfile.write(path, np.arange(8) / 8, SAMPLE_RATE)
    >>> read_clip(path, start=4, n_samples=3)
    tensor([0.5000, 0.6250, 0.7500])
    """
    with _open_cached(path) as file:
        _check_start(start, file.frames, path)
        file.seek(start)
        # Faster than to let libsndfile make the floats, which are the same.
        pcm = torch.from_numpy(file.read(n_samples, dtype="int16"))
    return repeat_to_length(_pcm_to_float(pcm), n_samples)


class TracksInMemory:
    """Cached tracks, read once and held as 16-bit samples: 115 MB an hour.

    Processes that are forked later share them, those that are spawned get them through
    shared memory. Processes of ``torchrun`` hold a copy each.

    Arguments
    ---------
    paths : list of str
        Wav files written by ``cache_audio``.

    Raises
    ------
    AudioFileError
        If a file cannot be read, or is not 16-bit mono at 16 kHz.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "track.wav")
    >>> soundfile.write(path, np.arange(8) / 8, SAMPLE_RATE)
    >>> TracksInMemory([path]).read_clip(path, start=4, n_samples=3)
    tensor([0.5000, 0.6250, 0.7500])
    """

    def __init__(self, paths):
        lengths = []
        for path in paths:
            with _open_cached(path) as file:
                lengths.append(file.frames)
        # One tensor for all, as each that a spawned process gets is an open file.
        self._pcm = torch.zeros(sum(lengths), dtype=torch.int16)
        tracks = self._pcm.split(lengths)
        # disable=None: no bar where the output is a file
        bar = tqdm(paths, "reading", unit="track", disable=None)
        for path, track in zip(bar, tracks, strict=True):
            with _open_cached(path) as file:
                file.read(out=track.numpy())
        starts = [track.storage_offset() for track in tracks]
        self._spans = dict(zip(paths, zip(starts, lengths, strict=True), strict=True))

    def read_clip(self, path, start, n_samples):
        """As the function ``read_clip``, bit by bit.

        Arguments
        ---------
        path : str
            One of the paths that were given.
        start : int
            First sample of the part.
        n_samples : int
            Length of the part. A track that ends sooner is repeated up to it.

        Returns
        -------
        clip : torch.Tensor [n_samples]
            Float32 samples in [-1, 1].

        Raises
        ------
        AudioFileError
            If the track ends before ``start``.
        """
        first, length = self._spans[path]
        _check_start(start, length, path)
        pcm = self._pcm[first + start : first + min(start + n_samples, length)]
        return repeat_to_length(_pcm_to_float(pcm), n_samples)


def _open_cached(path):
    """Opens a track of the cache, or says that it is none."""
    file = open_sound_file(path)
    if (file.samplerate, file.channels, file.subtype) != (SAMPLE_RATE, 1, "PCM_16"):
        file.close()
        raise AudioFileError(
            f"{path}: expected a cached track, 16-bit mono at {SAMPLE_RATE} Hz, found "
            f"{file.channels} channel(s) at {file.samplerate} Hz as {file.subtype}. "
            "Run the preparation again."
        )
    return file


def _check_start(start, n_samples, path):
    """Raises if a clip would start where a track has no samples."""
    if not 0 <= start < n_samples:
        raise AudioFileError(
            f"{path}: expected more than {start} samples, found {n_samples}. "
            "Run the preparation again."
        )


def _pcm_to_float(pcm):
    """16-bit to float32 samples in [-1, 1], as libsndfile reads them."""
    return pcm.float().mul_(1 / 32768)
