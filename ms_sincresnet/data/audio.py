"""Audio files to mono float samples at one rate, and the cache of 16-bit copies.

Preparation, training and inference all come through here, so that there is one
decoder, one down-mix and one resampler: soundfile, the mean of the channels, soxr HQ.
"""

import hashlib
import logging
import os
import re
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from tqdm import tqdm

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
    {".m4a", ".mp4", ".aac", ".webm", ".wma", ".mka", ".ape", ".wv", ".mpc", ".ac3"}
)
"""Lower-case suffixes of audio that soundfile cannot read."""

# 0.7 s at 22050 Hz. Short, as what precedes a damaged spot is lost up to one block.
_BLOCK_FRAMES = 16384
# Headers of mp3 files are off by the encoder's delay, a few frames of 1152 samples.
_MISSING_FRAMES_TOLERATED = 5 * 1152
# What libsndfile logs of wav, au, aiff and ogg files whose end is missing. It mends the
# length that it reports.
_CUT_SHORT = re.compile(
    r"^ *(data|Data Size|SSND) *: \d+ \(should be \d+\)|lacks an end-of-stream", re.M
)
# libsndfile keeps why an open failed in one global, which another thread may reset.
_OPEN_LOCK = threading.Lock()


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
        A file in any format that soundfile reads, at any rate, of any channel count.
    sample_rate : int
        Rate of the result, in Hz.

    Yields
    ------
    samples : numpy.ndarray [time]
        Mono float32 samples at ``sample_rate``.

    Raises
    ------
    AudioFileError
        If the file is missing, a folder, not decodable or empty, or if it holds NaN
        or infinite samples.

    Example
    -------
    >>> path = getfixture("tmp_path") / "two channels.flac"
    >>> soundfile.write(path, np.zeros((44100, 2)), 44100)
    >>> sum(len(block) for block in read_blocks(path))
    16000
    """
    path = Path(path)
    with _open_audio(path) as file:
        blocks = _decode_blocks(file, path)
        yield from _normalize_blocks(blocks, file.samplerate, sample_rate, path)


def read_audio(path, sample_rate=SAMPLE_RATE, *, excerpt=None):
    """Decodes a file, or an excerpt, to mono samples as ``read_blocks`` does.

    Nothing after an excerpt is decoded. What precedes it is, as seeking in an mp3 is
    not exact.

    Arguments
    ---------
    path : str or pathlib.Path
        A file in any format that soundfile reads, at any rate, of any channel count.
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
        If the file is missing, a folder, not decodable or empty, or if it holds NaN
        or infinite samples.

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


def repeat_to_length(wavs, n_samples):
    """Repeats what is shorter than ``n_samples`` until it is as long.

    Arguments
    ---------
    wavs : torch.Tensor [..., time]
        Samples; at least one.
    n_samples : int
        The least length of the result.

    Returns
    -------
    wavs : torch.Tensor [..., max(time, n_samples)]
        ``wavs`` itself where it is long enough.

    Example
    -------
    >>> repeat_to_length(torch.tensor([1, 2, 3]), 7)
    tensor([1, 2, 3, 1, 2, 3, 1])
    """
    length = wavs.shape[-1]
    if length >= n_samples:
        return wavs
    times = -(-n_samples // length)
    return torch.cat([wavs] * times, dim=-1)[..., :n_samples]


@contextmanager
def atomic_path(path):
    """A temporary name beside ``path`` that becomes ``path`` when all went well.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write. Its folder is made.

    Yields
    ------
    temporary_path : pathlib.Path
        What to write to instead. It is removed when the block raises.

    Example
    -------
    >>> path = getfixture("tmp_path") / "figures" / "report.txt"
    >>> with atomic_path(path) as temporary_path:
    ...     _ = temporary_path.write_text("all of it")
    >>> path.read_text()
    'all of it'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each process and thread; short, as path.name may be long.
    name = f".{os.getpid()}-{threading.get_ident()}.tmp"
    temporary_path = path.with_name(name)
    try:
        yield temporary_path
        os.replace(temporary_path, path)
    except BaseException:
        temporary_path.unlink(missing_ok=True)
        raise


def _open_audio(path):
    """Opens a file with soundfile, or says in one error why it is no audio."""
    if not path.exists():
        raise AudioFileError(f"{path}: no such file. Check the path.")
    if not path.is_file():
        raise AudioFileError(f"{path}: expected an audio file, found a folder.")
    if path.stat().st_size == 0:
        raise AudioFileError(f"{path}: the file is empty (0 bytes). Replace it.")
    try:
        with _OPEN_LOCK:
            # bytes, as soundfile would not encode a name that is no UTF-8
            return soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        raise _not_decodable(path, error.error_string) from error
    except TypeError as error:  # what soundfile raises on the suffix .raw
        raise _not_decodable(path, str(error)) from error


def _open_cached(path):
    """Opens a track of the cache, or says that it is none."""
    file = _open_audio(Path(path))
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


def _not_decodable(path, reason):
    """The error for a file that soundfile does not decode."""
    suffix = path.suffix.lower()
    if suffix in FOREIGN_SUFFIXES:
        advice = f"libsndfile cannot read {suffix} files: convert it to wav or flac"
    else:
        advice = "Replace it, or convert it to wav or flac"
    return AudioFileError(
        f"{path}: not readable as audio ({reason.strip(' .')}). {advice}, "
        "for example with `ffmpeg -i IN OUT.wav`."
    )


def _decode_blocks(file, path):
    """Yields the frames [time, channels] of an open file up to where decoding ends."""
    # Between reads soundfile seeks to where it stands, which in an mp3 loses the bits
    # that a frame borrows from those before it: a few damaged frames a block.
    file.seekable = lambda: False
    n_frames, fault = 0, None
    while True:
        try:
            block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            fault = error.error_string
            if n_frames == 0:
                raise _not_decodable(path, fault) from error
            break
        if len(block) == 0:
            break
        n_frames += len(block)
        yield block
    missing = file.frames - n_frames > _MISSING_FRAMES_TOLERATED
    if missing or _CUT_SHORT.search(file.extra_info):
        logger.warning(
            "%s: ends early (%s); going on with the %.2f s that were decoded",
            path,
            (fault or "its header tells of more audio").strip(),
            n_frames / file.samplerate,
        )


def _normalize_blocks(blocks, sample_rate, target_rate, name):
    """The one down-mix and resampler: blocks in a row to mono ones."""
    resampler = soxr.ResampleStream(
        sample_rate, target_rate, num_channels=1, dtype="float32", quality="HQ"
    )
    n_samples = n_resampled = 0
    for block in blocks:
        mono = _downmix(block)
        if not np.isfinite(mono).all():
            first = n_samples + int(np.argmin(np.isfinite(mono)))
            raise AudioFileError(
                f"{name}: expected finite samples, found NaN or infinity at "
                f"{first / sample_rate:.3f} s. Repair the audio, or leave it out."
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
    return np.ascontiguousarray(block, dtype=np.float32)
