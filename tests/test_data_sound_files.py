"""Sound files as they are found in the wild."""

import os
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ms_sincresnet.data.audio import read_audio, read_blocks
from ms_sincresnet.data.sound_files import decode_sound_file

from .sounds import noise

# Options of soundfile where the suffix does not imply them.
OPTIONS = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".rf64": {"format": "RF64"}}


def write_noise(path, duration_s=10, rate=48000, channels=1, **options):
    """Writes noise in the format that the suffix names."""
    options = OPTIONS.get(path.suffix, {}) | options
    soundfile.write(path, noise(duration_s * rate, channels), rate, **options)
    return path


def resident_mb():
    """Memory of this process, native libraries included."""
    n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return n_pages * resource.getpagesize() / 2**20


@pytest.mark.parametrize(
    "suffix", [".wav", ".rf64", ".au", ".aiff", ".flac", ".ogg", ".opus", ".mp3"]
)
def test_a_file_cut_short_gives_what_is_left_and_a_warning(tmp_path, suffix, caplog):
    path = write_noise(tmp_path / f"track{suffix}")
    whole = read_audio(path)
    assert caplog.messages == []
    content = path.read_bytes()
    for share in (0.5, 0.95):
        caplog.clear()
        path.write_bytes(content[: int(share * len(content))])
        part = read_audio(path)
        assert (share - 0.2) * len(whole) < len(part) < (share + 0.1) * len(whole)
        (warning,) = caplog.messages
        assert f"{path}: damaged or cut short" in warning
        assert f"using the {len(part) / 16000:.2f} s" in warning
        np.testing.assert_allclose(part[:30000], whole[:30000], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_that_promises_more_than_it_holds_is_reported(tmp_path, mode, caplog):
    path = write_noise(tmp_path / "track.mp3", bitrate_mode=mode)
    whole = read_audio(path)
    content = bytearray(path.read_bytes())
    tag = max(content.find(b"Xing"), content.find(b"Info"))
    assert tag > 0
    n_frames = struct.unpack_from(">I", content, tag + 8)[0]
    struct.pack_into(">I", content, tag + 8, 2 * n_frames)
    path.write_bytes(content[:-100])  # in the middle of a frame
    part = read_audio(path)
    assert "its header promises more audio" in caplog.text
    assert 0.95 * len(whole) < len(part) < 1.05 * len(whole)
    np.testing.assert_allclose(part[:150000], whole[:150000], rtol=0, atol=1e-6)


def test_a_thousand_channels_are_read_in_short_blocks(tmp_path):
    path = tmp_path / "wide.wav"
    soundfile.write(path, noise(5000, 1024), 16000, subtype="FLOAT")
    _, blocks = decode_sound_file(path)
    assert max(block.nbytes for block in blocks) <= 4 * 2**20
    expected = noise(5000, 1024).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(read_audio(path), expected, rtol=0, atol=1e-7)


def test_half_an_hour_is_read_in_flat_memory(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(1800 * 8000, np.int16), 8000)
    before = resident_mb()
    n_samples = peak = 0
    for block in read_blocks(path):
        n_samples += len(block)
        peak = max(peak, resident_mb())
    assert n_samples == 1800 * 16000
    assert peak < before + 30  # all of it would take 110


def test_many_files_leave_nothing_open_or_in_memory(tmp_path):
    suffixes = [".wav", ".flac", ".mp3", ".ogg"]
    paths = [write_noise(tmp_path / f"a{suffix}", 1) for suffix in suffixes]
    n_open = len(os.listdir("/proc/self/fd"))
    for n in range(30):
        for path in paths:
            next(read_blocks(path)).copy()  # and left there
        if n == 9:
            before = resident_mb()
    assert len(os.listdir("/proc/self/fd")) == n_open
    assert resident_mb() < before + 3  # one file takes 0.2, decoded
