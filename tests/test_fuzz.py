"""Damaged audio and weights end in an error that a user can act on, or are read.

Inputs are small real files whose bytes were changed at random, a few for each kind of
file and always the same. To look for more::

    FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz.py
"""

import importlib.util
import shutil
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given

from ms_sincresnet.data.audio import SAMPLE_RATE, read_blocks
from ms_sincresnet.errors import AudioFileError
from ms_sincresnet.models import MODELS
from ms_sincresnet.models.weights import read_model

from .fuzzing import ODD_NUMBERS, Reader, change, changes, fuzz
from .sounds import LOSSLESS, LOSSY, write_container

# Formats and subtypes of soundfile.
PLAIN = ["wav", "flac", "mp3", "ogg", "aiff", "au", "caf", "w64", "rf64", "voc"]
PLAIN += ["nist", "svx", "sds", "paf"]
SOUND_FILES = {f"a.{suffix}": (suffix, None) for suffix in PLAIN} | {
    "float.wav": ("wav", "FLOAT"),
    "adpcm.wav": ("wav", "IMA_ADPCM"),
    "a.opus": ("ogg", "OPUS"),
    "alac.caf": ("caf", "ALAC_16"),
    "a.mat": ("mat5", None),
    "a.xi": ("xi", "DPCM_16"),
}
CONTAINERS = LOSSY | LOSSLESS


def read_sound(path):
    """Fault of the audio in a file, or None."""
    n_samples = 0
    try:
        for block in read_blocks(path):
            if block.dtype != np.float32 or not np.isfinite(block).all():
                return "samples that are not finite float32"
            n_samples += len(block)
            if n_samples > 3600 * SAMPLE_RATE:
                return "hours of audio"
    except AudioFileError as error:
        if not str(error).startswith(str(path)):
            return f"an error that does not name the file: {error}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A process that reads audio."""
    with Reader(tmp_path_factory.mktemp("damaged"), read_sound) as reader:
        yield reader


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """The bytes of a small valid file of each kind, by name."""
    folder = tmp_path_factory.mktemp("valid")
    pcm = np.random.default_rng(0).integers(-3000, 3000, 6000, np.int16)
    for name, (file_format, subtype) in SOUND_FILES.items():
        soundfile.write(folder / name, pcm, 16000, subtype, format=file_format)
    if importlib.util.find_spec("av"):
        for name, kind in CONTAINERS.items():
            write_container(folder / name, *kind, pcm[:, None])
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", [*SOUND_FILES, *CONTAINERS])
def test_damaged_audio_is_read_or_refused(sounds, reader, name):
    if name not in sounds:
        pytest.skip("needs PyAV")

    @fuzz(12)
    @given(changes())
    def check(changes):
        reader.check(change(sounds[name], changes), name)

    reader.check(sounds[name], name)
    check()


def wav(rate=16000, channels=1, bits=16, tag=1, data_size=None, align=None):
    """A wav file of 8000 bytes with any header."""
    data = np.random.default_rng(0).integers(-3000, 3000, 4000, np.int16).tobytes()
    align = channels * bits // 8 if align is None else align
    layout = tag, channels, rate, rate * align & 2**32 - 1, align & 0xFFFF, bits
    data_size = len(data) if data_size is None else data_size
    head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, *layout)
    return head + b"data" + struct.pack("<I", data_size) + data


@pytest.mark.parametrize(
    ("field", "numbers"),
    [
        ("rate", ODD_NUMBERS),
        ("channels", (0, 2, 1000, 1024, 1025, 65535)),
        ("data_size", ODD_NUMBERS),
        ("bits", (0, 1, 7, 8, 24, 33, 64, 65535)),
        ("tag", (0, 2, 3, 6, 7, 0x11, 0x31, 0x55, 0xFFFE, 0xFFFF)),
        ("align", (0, 1, 3, 65535)),
    ],
)
def test_odd_headers_cost_neither_time_nor_memory(reader, field, numbers):
    for number in numbers:
        reader.check(wav(**{field: number}), "a.wav")
    reader.check(wav(rate=2**31 - 1, channels=1024, data_size=2**32 - 1), "a.wav")


def test_damaged_weights_are_loaded_or_refused(model_folder, tmp_path):
    shutil.copy(model_folder / "config.json", tmp_path)
    weights = (model_folder / "model.safetensors").read_bytes()
    head, body = weights[:20_000], weights[20_000:]
    with Reader(tmp_path, lambda path: read_model(tmp_path, MODELS) and None) as reader:

        @fuzz(10)
        @given(changes())
        def check(changes):
            reader.check(change(head, changes) + body, "model.safetensors")

        reader.check(weights, "model.safetensors")
        check()
