"""Decoding, down-mixing and resampling, on files written here."""

import contextlib
import os
import socket
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
import torch

from ms_sincresnet.data.audio import (
    AUDIO_SUFFIXES,
    SAMPLE_RATE,
    AudioNormalizer,
    normalize_audio,
    read_audio,
    repeat_to_length,
)
from ms_sincresnet.errors import AudioFileError
from ms_sincresnet.files import atomic_path

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


@pytest.mark.filterwarnings("error")
def test_float64_samples_that_float32_cannot_hold_are_refused():
    with pytest.raises(AudioFileError, match="infinity at 0.001 s"):
        normalize_audio(np.r_[np.zeros(16), 1e300], SAMPLE_RATE)


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
    elif kind == "huge":  # the resampler would make NaN of it
        samples = noise(SAMPLE_RATE)
        samples[4000:4002] = -3e38
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    elif kind == "1 Hz":  # a minute of samples would become nine days of them
        soundfile.write(path, noise(1000), 1)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # The folder is changed as the path of a socket must be short.
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("missing", "no such file"),
        ("folder", "found a folder"),
        ("no bytes", "is empty"),
        ("no samples", "empty track"),
        ("one sample", "empty track"),
        ("text", r"not readable as audio \(libsndfile: Format not recognised"),
        ("nan", r"NaN or infinity at 2\.500 s"),
        ("infinite", r"NaN or infinity at 0\.250 s"),
        ("huge", r"found -3e\+38 at 0\.250 s"),
        ("1 Hz", "sample rate of 1000 to 6144000 Hz, found 1 Hz"),
        ("pipe", "found a pipe, a socket or a device"),
        ("socket", "found a pipe, a socket or a device"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, kind, told):
    path = tmp_path / "track.wav"
    write_bad(path, kind)
    with pytest.raises(AudioFileError, match=told) as error:
        read_audio(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/dev/zero", "/dev/zero: expected an audio file, found a pipe, a socket"),
        ("null\0.wav", "embedded null byte"),
        ("long" * 100, "File name too long"),
    ],
)
def test_a_path_that_leads_to_no_file_is_refused_at_once(path, told):
    with pytest.raises(AudioFileError, match=told):
        read_audio(path)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.MP4", "an m4a, in truth.mp3"])
def test_without_pyav_the_error_names_its_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x18ftypM4A " + bytes(2000))
    with pytest.raises(AudioFileError) as error:
        read_audio(path)
    told = str(error.value)
    assert told.startswith(f"{path}: not readable as audio (libsndfile: ")
    assert "does not exist" not in told
    suffix = path.suffix.lower()
    assert (f"To read {suffix} files, run" in told) == (suffix != ".mp3")
    assert "run `pip install 'ms_sincresnet[audio]'`; or convert it to wav" in told


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


def test_headerless_samples_are_refused(tmp_path):
    (tmp_path / "track.raw").write_bytes(bytes(2000))
    with pytest.raises(AudioFileError, match="not readable as audio"):
        read_audio(tmp_path / "track.raw")


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


def test_an_atomic_write_that_fails_keeps_what_was_there(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temporary_path:
        temporary_path.write_text("half of the n")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["report.txt"]
    assert path.read_text() == "old"


def test_repeating_works_on_the_last_dimension_and_copies_nothing_without_need():
    wavs = torch.arange(6).reshape(2, 3)
    assert repeat_to_length(wavs, 5).tolist() == [[0, 1, 2, 0, 1], [3, 4, 5, 3, 4]]
    assert repeat_to_length(wavs, 3) is wavs
