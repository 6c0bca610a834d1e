"""Decoding, down-mixing, resampling and the cache, on files written here."""

import logging
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from ms_sincresnet.data.audio import (
    AUDIO_SUFFIXES,
    SAMPLE_RATE,
    AudioNormalizer,
    TracksInMemory,
    atomic_path,
    cache_audio,
    normalize_audio,
    read_audio,
    read_clip,
    read_song,
    repeat_to_length,
)
from ms_sincresnet.errors import AudioFileError

FORMATS = [".wav", ".au", ".flac", ".ogg", ".mp3", ".aiff", ".caf", ".w64"]


def sine(hz, rate, duration_s=1.0):
    """A sine of amplitude 0.5 in float64."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * duration_s)) / rate)


def noise(*shape, seed=0):
    """Noise well below full scale, in float32."""
    return (np.random.default_rng(seed).standard_normal(shape) / 20).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(rate):
    stereo = np.stack([sine(440, rate), np.zeros(rate)], axis=1)
    samples = normalize_audio(stereo, rate)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=1)
    middle = slice(1000, 15000)  # the resampler rings at both ends
    expected = sine(440, SAMPLE_RATE)[middle] / 2  # the mean of tone and silence
    np.testing.assert_allclose(samples[middle], expected, rtol=0, atol=2e-5)


def test_what_16_khz_cannot_hold_is_filtered_out():
    aliased = normalize_audio(sine(9000, 44100), 44100)[1000:15000]
    assert np.abs(aliased).max() < 1e-5


def test_samples_at_the_target_rate_are_left_alone():
    samples = noise(1000)
    np.testing.assert_array_equal(normalize_audio(samples, SAMPLE_RATE), samples)


def test_samples_of_three_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        normalize_audio(np.zeros((2, 3, 4)), SAMPLE_RATE)


@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (22050, 2), (48000, 6), (96000, 2)]
)
def test_reading_in_blocks_equals_soxr_on_the_whole_file(tmp_path, rate, channels):
    samples = noise(5 * rate + 7, channels)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")
    read = read_audio(tmp_path / "a.wav")
    assert read.shape == expected.shape
    np.testing.assert_allclose(read, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(read, normalize_audio(samples, rate))


def test_an_hour_is_never_held_at_its_own_rate(tmp_path):
    seconds, rate, channels = 40, 48000, 8
    silence = np.zeros((seconds * rate, channels), dtype=np.int16)
    soundfile.write(tmp_path / "long.wav", silence, rate)
    tracemalloc.start()
    samples = read_audio(tmp_path / "long.wav")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * samples.nbytes  # the whole file would be 24 times as much


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_are_read_by_str_and_path(tmp_path, suffix):
    path = tmp_path / f"track{suffix}"
    soundfile.write(path, sine(440, 22050), 22050)
    samples = read_audio(path)
    assert suffix in AUDIO_SUFFIXES
    spectrum = np.abs(np.fft.rfft(samples[:SAMPLE_RATE]))
    assert spectrum.argmax() * SAMPLE_RATE / len(samples) == pytest.approx(440, abs=2)
    np.testing.assert_array_equal(read_audio(str(path)), samples)


def test_a_path_with_spaces_quotes_and_accents(tmp_path):
    path = tmp_path / 'l\'été "à" $HOME' / "kruhový objazd.wav"
    path.parent.mkdir()
    soundfile.write(path, sine(440, SAMPLE_RATE), SAMPLE_RATE)
    assert len(read_audio(path)) == SAMPLE_RATE


def test_three_tenths_of_a_second(tmp_path):
    soundfile.write(tmp_path / "short.wav", sine(440, 44100, 0.3), 44100)
    assert len(read_audio(tmp_path / "short.wav")) == 4800


def test_silence_stays_silence(tmp_path):
    soundfile.write(tmp_path / "silent.flac", np.zeros((44100, 2)), 44100)
    np.testing.assert_array_equal(
        read_audio(tmp_path / "silent.flac"), np.zeros(SAMPLE_RATE)
    )


def write_bad(path, kind):
    """Writes, or leaves out, a file that cannot be used."""
    if kind == "text":
        path.write_text("This is no audio. " * 100)
    elif kind == "no bytes":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "no samples":
        soundfile.write(path, np.zeros((0, 2)), SAMPLE_RATE)
    elif kind == "one sample":
        soundfile.write(path, np.ones(1), 96000)
    elif kind == "nan":
        samples = noise(3 * SAMPLE_RATE)
        samples[40000] = np.nan
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    elif kind == "infinite":
        samples = noise(SAMPLE_RATE, 2)
        samples[4000, 1] = np.inf
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("missing", "no such file"),
        ("folder", "found a folder"),
        ("no bytes", "is empty"),
        ("no samples", "empty track"),
        ("one sample", "empty track"),
        ("text", r"not readable as audio \(Format not recognised\).*to wav or flac"),
        ("nan", r"NaN or infinity at 2\.500 s"),
        ("infinite", r"NaN or infinity at 0\.250 s"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, kind, told):
    path = tmp_path / "track.wav"
    write_bad(path, kind)
    with pytest.raises(AudioFileError, match=told) as error:
        read_audio(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".m4a", ".aac", ".webm", ".MP4"])
def test_formats_that_libsndfile_lacks_are_named_as_such(tmp_path, suffix):
    path = tmp_path / f"track{suffix}"
    path.write_bytes(bytes(2000))
    told = f"cannot read {suffix.lower()} files: convert it to wav or flac"
    with pytest.raises(AudioFileError, match=told):
        read_audio(path)


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".flac"])
def test_blocks_decode_to_what_the_whole_file_decodes_to(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, sine(440, 44100, duration_s=4.0), 44100)
    whole, rate = soundfile.read(path, dtype="float32")
    expected = soxr.resample(whole, rate, SAMPLE_RATE, quality="HQ")
    samples = read_audio(path)
    n = min(len(samples), len(expected))
    assert n > 3.9 * SAMPLE_RATE
    np.testing.assert_allclose(samples[:n], expected[:n], rtol=0, atol=2e-6)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize(
    ("excerpt", "start_s", "end_s"),
    [
        ((0, 1), 0, 1),
        ((1.5, 2), 1.5, 3.5),
        ((3, 2), 2, 4),  # its last two seconds
        ((9, 0.5), 3.5, 4),
        ((0, 9), 0, 4),  # all there is
        ((9, 9), 0, 4),
    ],
)
def test_an_excerpt_is_cut_from_the_whole(tmp_path, rate, excerpt, start_s, end_s):
    path = tmp_path / "track.flac"
    soundfile.write(path, noise(4 * rate, 2), rate)
    expected = read_audio(path)[round(16000 * start_s) : round(16000 * end_s)]
    np.testing.assert_array_equal(read_audio(path, excerpt=excerpt), expected)


def test_an_excerpt_of_an_mp3_is_cut_to_the_sample(tmp_path):
    path = tmp_path / "track.mp3"
    soundfile.write(path, noise(4 * 44100, 2), 44100)
    whole = read_audio(path)
    excerpt = read_audio(path, excerpt=(1.5, 1))
    np.testing.assert_array_equal(excerpt, whole[24000:40000])
    end = read_audio(path, excerpt=(60, 1))
    np.testing.assert_array_equal(end, whole[-16000:])


def test_nothing_after_an_excerpt_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(40 * SAMPLE_RATE), SAMPLE_RATE)
    n_read, read = [], soundfile.SoundFile.read

    def note(file, *args, **options):
        block = read(file, *args, **options)
        n_read.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", note)
    assert len(read_audio(path, excerpt=(2, 3))) == 3 * SAMPLE_RATE
    assert sum(n_read) < 8 * SAMPLE_RATE


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


def test_headerless_samples_are_refused(tmp_path):
    (tmp_path / "track.raw").write_bytes(bytes(2000))
    with pytest.raises(AudioFileError, match="not readable as audio"):
        read_audio(tmp_path / "track.raw")


@pytest.mark.parametrize("suffix", [".wav", ".au", ".aiff", ".flac", ".ogg", ".mp3"])
def test_a_file_cut_short_gives_what_is_left_and_a_warning(tmp_path, suffix, caplog):
    path = tmp_path / f"track{suffix}"
    soundfile.write(path, noise(10 * 22050), 22050)
    whole = read_audio(path)
    assert caplog.messages == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        part = read_audio(path)
    assert 0.3 * len(whole) < len(part) < 0.6 * len(whole)
    assert len(caplog.messages) == 1
    assert f"{path}: ends early" in caplog.messages[0]
    np.testing.assert_allclose(part[:30000], whole[:30000], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(44100,), (44100, 1), (44100, 6)])
def test_the_normalizer_is_the_same_resampler_for_tensors(shape):
    samples = noise(*shape)
    normalized = AudioNormalizer()(torch.from_numpy(samples), 44100)
    assert normalized.dtype == torch.float32
    np.testing.assert_array_equal(normalized.numpy(), normalize_audio(samples, 44100))


def test_the_normalizer_goes_to_the_rate_asked_for():
    assert len(AudioNormalizer(sample_rate=8000)(torch.zeros(44100), 44100)) == 8000


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.tensor([0.0, torch.nan])])
def test_the_normalizer_refuses_no_audio(bad):
    with pytest.raises(AudioFileError):
        AudioNormalizer()(bad, SAMPLE_RATE)


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
    loud = 4 * sine(100, SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", loud, SAMPLE_RATE, subtype="FLOAT")
    cache_audio(tmp_path / "a.wav", tmp_path / "cached.wav")
    cached, _ = soundfile.read(tmp_path / "cached.wav")
    np.testing.assert_allclose(cached, loud / 2, rtol=0, atol=1.01 / 32768)


def test_the_level_is_kept_where_it_fits(tmp_path):
    soundfile.write(tmp_path / "a.flac", sine(100, SAMPLE_RATE), SAMPLE_RATE)
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


def test_an_atomic_write_that_fails_keeps_what_was_there(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temporary_path:
        temporary_path.write_text("half of the n")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["report.txt"]
    assert path.read_text() == "old"


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


def test_repeating_works_on_the_last_dimension_and_copies_nothing_without_need():
    wavs = torch.arange(6).reshape(2, 3)
    assert repeat_to_length(wavs, 5).tolist() == [[0, 1, 2, 0, 1], [3, 4, 5, 3, 4]]
    assert repeat_to_length(wavs, 3) is wavs
