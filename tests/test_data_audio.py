"""Decoding, down-mixing and resampling, on files written here."""

import os
import sys
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
    read_audio,
)
from ms_sincresnet.errors import AudioFileError

from .sounds import noise, sine

FORMATS = [".wav", ".au", ".flac", ".ogg", ".mp3", ".aiff", ".caf", ".w64"]


def normalize(samples, rate, target_rate=SAMPLE_RATE):
    """The samples as mono ones at another rate."""
    return AudioNormalizer(target_rate)(torch.as_tensor(samples), rate).numpy()


@pytest.mark.parametrize(
    ("rate", "target_rate"), [(8000, 16000), (22050, 8000), (44100, 16000)]
)
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(rate, target_rate):
    samples = np.stack([sine(440, rate), np.zeros(rate)], axis=1)
    samples = normalize(samples, rate, target_rate)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(target_rate, abs=1)
    middle = slice(1000, -1000)  # the resampler rings at both ends
    expected = sine(440, target_rate)[middle] / 2  # the mean of tone and silence
    np.testing.assert_allclose(samples[middle], expected, rtol=0, atol=2e-5)


def test_the_normalizer_refuses_three_dimensions():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        normalize(np.zeros((2, 3, 4)), SAMPLE_RATE)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (22050, 2), (48000, 6)])
def test_reading_in_blocks_equals_soxr_on_the_whole_file(tmp_path, rate, channels):
    samples = noise(5 * rate + 7, channels)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")
    read = read_audio(tmp_path / "a.wav")
    assert read.shape == expected.shape
    np.testing.assert_allclose(read, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(read, normalize(samples, rate))


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_are_read_by_str_and_path(tmp_path, suffix):
    folder = tmp_path / 'l\'été "à" $HOME'
    folder.mkdir()
    path = folder / f"kruhový objazd{suffix}"
    soundfile.write(path, sine(440, 44100), 44100)
    assert suffix in AUDIO_SUFFIXES
    samples = read_audio(path)
    np.testing.assert_array_equal(read_audio(str(path)), samples)
    whole, rate = soundfile.read(path, dtype="float32")
    expected = soxr.resample(whole, rate, SAMPLE_RATE, quality="HQ")
    n = min(len(samples), len(expected))
    assert n >= 15900
    np.testing.assert_allclose(samples[:n], expected[:n], rtol=0, atol=2e-6)


def write_value(value, n_samples=3 * SAMPLE_RATE, rate=SAMPLE_RATE):
    """Returns a function that writes noise with an odd value after 2.5 s."""

    def write(path):
        samples = noise(n_samples, 2)
        samples[40000:40001] = value
        soundfile.write(path, samples, rate, subtype="FLOAT")

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "found a folder"),
        (Path.touch, "is empty"),
        (os.mkfifo, "found a pipe, a socket or a device"),
        (write_value(0, n_samples=0), "empty track"),
        (write_value(0, n_samples=1, rate=96000), "empty track"),
        (write_value(np.nan), r"NaN or infinity at 2\.500 s"),
        (write_value(np.inf), r"NaN or infinity at 2\.500 s"),
        # of which the resampler would make NaN
        (write_value(-3e38), r"found -3e\+38 at 2\.500 s"),
        # A minute of samples would become nine days of them.
        (write_value(0, rate=1), "sample rate of 1000 to 6144000 Hz, found 1 Hz"),
        (
            lambda path: path.write_text("This is no audio. " * 100),
            r"not readable as audio \(libsndfile: Format not recognised",
        ),
    ],
)
def test_an_unusable_file_is_named_with_the_reason(tmp_path, write, message):
    path = tmp_path / "track.wav"
    write(path)
    with pytest.raises(AudioFileError, match=message) as error:
        read_audio(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["a.m4a", "an m4a, in truth.mp3"])
def test_without_pyav_the_error_names_its_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x18ftypM4A " + bytes(2000))
    message = rf"{name}: not readable .*libsndfile: .* run `pip install '.\[audio\]'`"
    with pytest.raises(AudioFileError, match=message):
        read_audio(path)


@pytest.mark.parametrize(
    ("excerpt", "cut"),
    [
        ((1.5, 2), slice(24000, 56000)),
        ((3.5, 2), slice(-32000, None)),  # its last two seconds
        ((9, 9), slice(None)),  # all of it
    ],
)
def test_an_excerpt_is_cut_from_the_whole(tmp_path, excerpt, cut):
    path = tmp_path / "track.mp3"
    soundfile.write(path, noise(4 * 44100, 2), 44100)
    expected = read_audio(path)[cut]
    np.testing.assert_array_equal(read_audio(path, excerpt=excerpt), expected)
