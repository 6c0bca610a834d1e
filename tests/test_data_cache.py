"""The cache of 16-bit copies, and clips read from it."""

import pickle
from itertools import product

import numpy as np
import pytest
import soundfile
import torch

from ms_sincresnet.data.audio import SAMPLE_RATE
from ms_sincresnet.data.cache import TracksInMemory, cache_audio, read_clip
from ms_sincresnet.errors import AudioFileError

from .sounds import noise, pcm_noise


@pytest.mark.parametrize("scale", [2**-15, 2**-13])
def test_a_copy_is_exact_and_scaled_only_if_it_must(tmp_path, scale):
    pcm = np.arange(-32768, 32768, dtype=np.int16)
    path = tmp_path / "a.wav"
    soundfile.write(path, pcm * scale, SAMPLE_RATE, subtype="FLOAT")
    track = cache_audio(path, tmp_path)
    copy = soundfile.SoundFile(tmp_path / track.cached)
    assert (copy.samplerate, copy.channels, copy.subtype) == (16000, 1, "PCM_16")
    assert copy.frames == track.n_samples
    np.testing.assert_array_equal(copy.read(dtype="int16"), pcm)


def test_copies_are_named_by_their_audio_whatever_the_format(tmp_path):
    pcm, tracks = pcm_noise(22050, 2), []
    for name in ("a.wav", "b.flac", "c.au", "other.wav"):
        pcm[11025] += 200 * (name == "other.wav")
        soundfile.write(tmp_path / name, pcm, 22050)
        tracks.append(cache_audio(tmp_path / name, tmp_path / "cache"))
    assert tracks[0] == tracks[1] == tracks[2]
    assert tracks[3].sha256 != tracks[0].sha256
    assert len(list((tmp_path / "cache").iterdir())) == 2


def read_clip_from_memory(path, start, n_samples):
    return TracksInMemory([path]).read_clip(path, start, n_samples)


each_reader = pytest.mark.parametrize("read", [read_clip, read_clip_from_memory])


@pytest.fixture
def ramp_path(tmp_path):
    """A cached track whose sample n is n / 32768."""
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.arange(20000, dtype=np.int16), SAMPLE_RATE)
    return path


def test_a_clip_is_read_where_it_starts_and_repeated_where_it_ends(ramp_path):
    clip = read_clip(ramp_path, start=12345, n_samples=100)
    assert clip.dtype == torch.float32
    assert torch.equal(clip * 32768, torch.arange(12345.0, 12445))
    clip = read_clip(ramp_path, start=0, n_samples=48000)
    assert torch.equal(clip * 32768, torch.arange(48000.0) % 20000)


@each_reader
@pytest.mark.parametrize("start", [-1, 20000])
def test_a_clip_that_starts_outside_its_track_is_refused(ramp_path, start, read):
    with pytest.raises(AudioFileError, match=f"more than {start} samples, found 20000"):
        read(ramp_path, start=start, n_samples=100)


@each_reader
def test_a_clip_of_an_uncached_file_is_refused(tmp_path, read):
    path = tmp_path / "a.wav"
    for rate, subtype in [(22050, "PCM_16"), (16000, "FLOAT")]:
        soundfile.write(path, np.zeros(100), rate, subtype=subtype)
        with pytest.raises(AudioFileError, match=f"expected a cached track.*{subtype}"):
            read(path, start=0, n_samples=10)


def test_a_clip_from_memory_is_the_clip_from_disk(tmp_path):
    paths = [tmp_path / f"{n}.wav" for n in range(3)]
    for n, path in enumerate(paths):
        soundfile.write(path, noise(1300 + 10000 * n, seed=n), SAMPLE_RATE)
    tracks = pickle.loads(pickle.dumps(TracksInMemory(paths)))  # to another process
    for clip in product(paths, [0, 1299], [1, 500, 48000]):
        assert torch.equal(tracks.read_clip(*clip), read_clip(*clip))
    assert len(pickle.dumps(tracks)) < 2 * (3 * 1300 + 30000) + 2000
