"""The cache of 16-bit copies: what it holds, and clips read of it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ms_sincresnet.data.audio import SAMPLE_RATE, read_audio
from ms_sincresnet.data.cache import TracksInMemory, cache_audio, read_clip, read_song
from ms_sincresnet.errors import AudioFileError


def noise(*shape, seed=0):
    """Noise well below full scale, in float32."""
    return (np.random.default_rng(seed).standard_normal(shape) / 20).astype(np.float32)


def sine(hz):
    """A second's sine of amplitude 0.5 in float64."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(SAMPLE_RATE) / SAMPLE_RATE)


def test_a_16_bit_file_at_16_khz_is_cached_bit_by_bit(tmp_path):
    pcm = np.arange(-32768, 32768, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, SAMPLE_RATE)
    track = cache_audio(tmp_path / "a.wav", tmp_path / "cache" / "a.wav")
    cached, rate = soundfile.read(tmp_path / "cache" / "a.wav", dtype="int16")
    info = soundfile.info(tmp_path / "cache" / "a.wav")
    np.testing.assert_array_equal(cached, pcm)
    assert (rate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
    assert (track.n_samples, track.silent) == (65536, False)


def test_what_exceeds_full_scale_is_scaled_and_not_clipped(tmp_path):
    loud = 4 * sine(100)
    soundfile.write(tmp_path / "a.wav", loud, SAMPLE_RATE, subtype="FLOAT")
    cache_audio(tmp_path / "a.wav", tmp_path / "cached.wav")
    cached, _ = soundfile.read(tmp_path / "cached.wav")
    np.testing.assert_allclose(cached, loud / 2, rtol=0, atol=1.01 / 32768)


def test_the_level_is_kept_where_it_fits(tmp_path):
    soundfile.write(tmp_path / "a.flac", sine(100), SAMPLE_RATE)
    cache_audio(tmp_path / "a.flac", tmp_path / "cached.wav")
    cached, _ = soundfile.read(tmp_path / "cached.wav")
    assert np.abs(cached).max() == pytest.approx(0.5, abs=1e-3)


def test_the_hash_tells_audio_and_not_files(tmp_path):
    pcm = (noise(22050, 2) * 32767).astype(np.int16)
    for name in ["a.wav", "b.flac", "c.au"]:
        soundfile.write(tmp_path / name, pcm, 22050)
    pcm[11025] += 200
    soundfile.write(tmp_path / "other.wav", pcm, 22050)
    same = {
        cache_audio(tmp_path / name, tmp_path / "cached.wav").sha256
        for name in ["a.wav", "b.flac", "c.au"]
    }
    assert len(same) == 1
    assert cache_audio(tmp_path / "other.wav", tmp_path / "x.wav").sha256 not in same


def test_silence_is_told_when_it_is_cached(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), SAMPLE_RATE)
    assert cache_audio(tmp_path / "a.wav", tmp_path / "cached.wav").silent


def test_nothing_half_written_stays_behind(tmp_path, monkeypatch):
    def break_off(path, *args, **kwargs):
        Path(path).write_bytes(b"RIFF")
        raise OSError("no space left on device")

    soundfile.write(tmp_path / "a.wav", noise(100), SAMPLE_RATE)
    monkeypatch.setattr(soundfile, "write", break_off)
    with pytest.raises(OSError, match="no space"):
        cache_audio(tmp_path / "a.wav", tmp_path / "cache" / "a.wav")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_excerpt_is_cached_and_hashed_as_what_it_is(tmp_path):
    pcm = (noise(SAMPLE_RATE) * 32767).astype(np.int16)
    pcm[12000:] = 0
    soundfile.write(tmp_path / "a.wav", pcm, SAMPLE_RATE)
    soundfile.write(tmp_path / "b.wav", pcm[4000:8000], SAMPLE_RATE)
    part = cache_audio(tmp_path / "a.wav", tmp_path / "c.wav", excerpt=(0.25, 0.25))
    assert part == cache_audio(tmp_path / "b.wav", tmp_path / "d.wav")
    assert (tmp_path / "c.wav").read_bytes() == (tmp_path / "d.wav").read_bytes()
    still = cache_audio(tmp_path / "a.wav", tmp_path / "e.wav", excerpt=(0.75, 0.25))
    assert (still.n_samples, still.silent) == (4000, True)


@pytest.fixture
def ramp_path(tmp_path):
    """A cached track whose sample n is n / 32768."""
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.arange(20000, dtype=np.int16), SAMPLE_RATE)
    return path


def test_a_clip_is_the_part_asked_for(ramp_path):
    clip = read_clip(ramp_path, start=12345, n_samples=100)
    assert clip.dtype == torch.float32
    assert (clip * 32768).tolist() == list(range(12345, 12445))


def test_a_short_track_is_repeated(ramp_path):
    clip = read_clip(ramp_path, start=0, n_samples=48000)
    assert (clip * 32768).tolist() == [n % 20000 for n in range(48000)]


def read_clip_from_memory(path, start, n_samples):
    """As ``read_clip``."""
    return TracksInMemory([path]).read_clip(path, start, n_samples)


@pytest.mark.parametrize("read", [read_clip, read_clip_from_memory])
def test_a_clip_beyond_the_end_is_refused(ramp_path, read):
    told = "ramp.wav: expected more than 20000 samples, found 20000"
    with pytest.raises(AudioFileError, match=told):
        read(ramp_path, start=20000, n_samples=10)


@pytest.mark.parametrize("read", [read_clip, read_clip_from_memory])
@pytest.mark.parametrize(
    ("rate", "shape", "subtype"),
    [
        (8000, (100,), "PCM_16"),
        (16000, (100, 2), "PCM_16"),
        (16000, (100,), "FLOAT"),
    ],
)
def test_a_clip_of_an_uncached_file_is_refused(tmp_path, rate, shape, subtype, read):
    soundfile.write(tmp_path / "a.wav", np.zeros(shape), rate, subtype=subtype)
    with pytest.raises(AudioFileError, match=f"expected a cached track.*{subtype}"):
        read(tmp_path / "a.wav", start=0, n_samples=10)


def test_a_clip_of_a_lost_file_names_it(tmp_path):
    with pytest.raises(AudioFileError, match="lost.wav: no such file"):
        read_clip(tmp_path / "lost.wav", start=0, n_samples=10)


def test_each_16_bit_value_becomes_the_float_that_libsndfile_reads(tmp_path):
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
        samples = noise(1300 + 10000 * n, seed=n)
        soundfile.write(path, samples, SAMPLE_RATE)
    tracks = TracksInMemory(paths)
    for path in paths:
        expected = read_clip(path, start, n_samples)
        clip = tracks.read_clip(path, start, n_samples)
        assert clip.dtype == torch.float32
        assert torch.equal(clip, expected)


def test_in_memory_a_sample_takes_two_bytes_and_tracks_go_to_other_processes(ramp_path):
    tracks = TracksInMemory([ramp_path])
    expected = tracks.read_clip(ramp_path, 0, 20000)
    pickled = pickle.dumps(tracks)
    assert len(pickled) < 2 * 20000 + 2000
    assert torch.equal(pickle.loads(pickled).read_clip(ramp_path, 0, 20000), expected)
