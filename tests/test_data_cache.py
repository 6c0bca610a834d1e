"""The cache of 16-bit copies, and clips read from it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ms_sincresnet.data.audio import SAMPLE_RATE, read_audio
from ms_sincresnet.data.cache import TracksInMemory, cache_audio, read_clip, read_song
from ms_sincresnet.errors import AudioFileError

from .sounds import noise, pcm_noise, sine


def cached_copy(folder, samples, suffix=".wav", **options):
    """The 16-bit samples of the cached copy of a file at 16 kHz."""
    soundfile.write(folder / f"a{suffix}", samples, SAMPLE_RATE, **options)
    track = cache_audio(folder / f"a{suffix}", folder / "cache")
    path = folder / "cache" / track.cached
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert info.frames == track.n_samples
    return soundfile.read(path, dtype="int16")[0]


def test_a_16_bit_file_at_16_khz_is_cached_bit_by_bit(tmp_path):
    pcm = np.arange(-32768, 32768, dtype=np.int16)
    np.testing.assert_array_equal(cached_copy(tmp_path, pcm), pcm)


def test_what_exceeds_full_scale_is_scaled_and_not_clipped(tmp_path):
    loud = 4 * sine(100)
    copy = cached_copy(tmp_path, loud, subtype="FLOAT")
    np.testing.assert_allclose(copy / 32768, loud / 2, rtol=0, atol=1.01 / 32768)


def test_the_level_is_kept_where_it_fits(tmp_path):
    copy = cached_copy(tmp_path, sine(100), ".flac")
    assert np.abs(copy).max() / 32768 == pytest.approx(0.5, abs=1e-3)


def test_copies_are_named_by_their_audio_whatever_the_format(tmp_path):
    pcm = pcm_noise(22050, 2)
    for name in ["a.wav", "b.flac", "c.au"]:
        soundfile.write(tmp_path / name, pcm, 22050)
    pcm[11025] += 200
    soundfile.write(tmp_path / "other.wav", pcm, 22050)
    names = ["a.wav", "b.flac", "c.au", "other.wav"]
    tracks = [cache_audio(tmp_path / name, tmp_path / "cache") for name in names]
    assert tracks[0] == tracks[1] == tracks[2]
    assert tracks[3].sha256 != tracks[0].sha256
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_nothing_half_written_remains(tmp_path, monkeypatch):
    def break_off(path, *args, **kwargs):
        Path(path).write_bytes(b"RIFF")
        raise OSError("no space left on device")

    soundfile.write(tmp_path / "a.wav", noise(100), SAMPLE_RATE)
    monkeypatch.setattr(soundfile, "write", break_off)
    with pytest.raises(OSError, match="no space"):
        cache_audio(tmp_path / "a.wav", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_excerpt_is_cached_like_a_track_of_its_own(tmp_path):
    pcm = pcm_noise(SAMPLE_RATE)
    pcm[12000:] = 0
    soundfile.write(tmp_path / "a.wav", pcm, SAMPLE_RATE)
    soundfile.write(tmp_path / "b.wav", pcm[4000:8000], SAMPLE_RATE)
    part = cache_audio(tmp_path / "a.wav", tmp_path, excerpt=(0.25, 0.25))
    assert part == cache_audio(tmp_path / "b.wav", tmp_path)
    assert not part.silent
    silence = cache_audio(tmp_path / "a.wav", tmp_path, excerpt=(0.75, 0.25))
    assert (silence.n_samples, silence.silent) == (4000, True)


def read_clip_from_memory(path, start, n_samples):
    """A clip of a track in memory."""
    return TracksInMemory([path]).read_clip(path, start, n_samples)


each_reader = pytest.mark.parametrize("read", [read_clip, read_clip_from_memory])


@pytest.fixture
def ramp_path(tmp_path):
    """A cached track whose sample n is n / 32768."""
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.arange(20000, dtype=np.int16), SAMPLE_RATE)
    return path


@each_reader
def test_a_clip_is_read_where_it_starts_and_repeated_where_it_ends(ramp_path, read):
    clip = read(ramp_path, start=12345, n_samples=100)
    assert clip.dtype == torch.float32
    assert torch.equal(clip * 32768, torch.arange(12345.0, 12445))
    clip = read(ramp_path, start=0, n_samples=48000)
    assert torch.equal(clip * 32768, torch.arange(48000.0) % 20000)


@each_reader
@pytest.mark.parametrize("start", [-1, 20000, 99999])
def test_a_clip_that_starts_outside_its_track_is_refused(ramp_path, start, read):
    with pytest.raises(AudioFileError, match=f"more than {start} samples, found 20000"):
        read(ramp_path, start=start, n_samples=100)


@each_reader
@pytest.mark.parametrize(
    ("rate", "shape", "subtype"),
    [
        (22050, (100,), "PCM_16"),
        (SAMPLE_RATE, (100, 2), "PCM_16"),
        (SAMPLE_RATE, (100,), "FLOAT"),
    ],
)
def test_a_clip_of_an_uncached_file_is_refused(tmp_path, rate, shape, subtype, read):
    soundfile.write(tmp_path / "a.wav", np.zeros(shape), rate, subtype=subtype)
    with pytest.raises(AudioFileError, match=f"expected a cached track.*{subtype}"):
        read(tmp_path / "a.wav", start=0, n_samples=10)


def test_a_clip_of_a_lost_file_names_it(tmp_path):
    with pytest.raises(AudioFileError, match="lost.wav: no such file"):
        read_clip(tmp_path / "lost.wav", start=0, n_samples=10)


def test_16_bit_values_become_the_floats_that_libsndfile_reads(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.arange(-32768, 32768, dtype=np.int16), SAMPLE_RATE)
    expected, _ = soundfile.read(path, dtype="float32")
    for samples in (read_song(path), read_clip(path, 0, 65536), read_audio(path)):
        np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("n_samples", [1, 500, 20000, 48000])
@pytest.mark.parametrize("start", [0, 777, 1299])
def test_a_clip_from_memory_is_the_clip_from_disk(tmp_path, start, n_samples):
    paths = [tmp_path / name for name in ("a.wav", "b.wav", "c.wav")]
    for n, path in enumerate(paths):
        soundfile.write(path, noise(1300 + 10000 * n, seed=n), SAMPLE_RATE)
    tracks = TracksInMemory(paths)
    for path in paths:
        expected = read_clip(path, start, n_samples)
        assert torch.equal(tracks.read_clip(path, start, n_samples), expected)


def test_in_memory_a_sample_takes_two_bytes_also_in_other_processes(ramp_path):
    tracks = TracksInMemory([ramp_path])
    expected = tracks.read_clip(ramp_path, 0, 20000)
    pickled = pickle.dumps(tracks)
    assert len(pickled) < 2 * 20000 + 2000
    assert torch.equal(pickle.loads(pickled).read_clip(ramp_path, 0, 20000), expected)
