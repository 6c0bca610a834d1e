"""Damaged files end in an error that a user can act on, or in something usable.

Inputs are small real files whose bytes were changed at random, a few for each kind of
file and always the same. To look for more::

    FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz.py
"""

import contextlib
import importlib.util
import shutil
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ms_sincresnet.data.audio import SAMPLE_RATE, read_blocks
from ms_sincresnet.data.dataset import genre_datasets
from ms_sincresnet.data.prepare import find_tracks, prepare_manifests
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.inference.results import open_results
from ms_sincresnet.models import MODELS
from ms_sincresnet.models.config import read_config
from ms_sincresnet.models.weights import read_model
from ms_sincresnet.plots.training import read_confusion_matrix
from ms_sincresnet.training.comparison import read_predictions

from .fuzzing import (
    ODD_NUMBERS,
    ODD_VALUES,
    Reader,
    change,
    change_json,
    changes,
    fuzz,
)
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


def prepare(folder):
    """Prepares three tracks of a genre in a folder."""
    genre = folder / "data" / "jazz"
    if not genre.exists():
        genre.mkdir(parents=True)
        for name in ("1.wav", "2.wav", "3.wav"):
            soundfile.write(genre / name, np.ones(100) / 2, 16000)
    tracks = find_tracks(genre.parent)
    split = {"assign_parts": lambda _: ["train", "valid", "test"], "options": {}}
    prepare_manifests(tracks, folder / "manifests", folder / "cache", **split)


def read_manifest(path):
    """Builds the data sets of a training run."""
    manifests = path.parent / "manifests"
    path.rename(manifests / "train.csv")
    genre_datasets(manifests, path.parent, n_genres=1, clip_samples=8, seed=0)


def read_index(path):
    """Prepares with this index of the cache."""
    path.rename(path.parent / "cache" / "index.json")
    prepare(path.parent)


def read_table(path):
    """Reads a table of predictions or a confusion matrix."""
    for read in (read_predictions, read_confusion_matrix):
        with contextlib.suppress(UserError):
            read(path)


RESULTS = {"model": "12ab-majority", "top": 1, "timeline": True}


def song(name, error=None):
    """A row of results."""
    best = [{"genre": "jazz", "share": 1.0, "posterior": 0.9}]
    clip = {"start_s": 0.0, "end_s": 3.0, "genre": "jazz", "posterior": 0.9}
    row = {"file": name, "error": error, "duration": 3.0, "clips": 1, "top": best}
    row |= {"genre": "jazz", "timeline": [clip]}
    return row if error is None else row | {"genre": None, "top": [], "timeline": []}


def read_results(path):
    """Resumes from a file of results."""
    output_format = path.suffix.removeprefix(".")
    files = ["a.wav", "b.wav", "c.wav"]
    with open_results(output_format, path, **RESULTS, files=files) as results:
        for name in set(files) - results.done:
            results.write(song(name))
    with open_results(output_format, path, **RESULTS, files=files) as results:
        if results.done != set(files):
            return f"{results.done} done"


def read_model_config(path):
    """Reads the configuration of a model."""
    path.rename(path.with_name("config.json"))
    read_config(path.parent, MODELS)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, model_folder):
    """The bytes of small valid tables and JSON files, by name."""
    folder = tmp_path_factory.mktemp("tables")
    prepare(folder)
    for output_format in ("csv", "jsonl", "parquet"):
        if output_format == "parquet" and not importlib.util.find_spec("pyarrow"):
            continue
        path = folder / f"results.{output_format}"
        with open_results(output_format, path, **RESULTS) as results:
            results.write(song("a.wav"))
            results.write(song('of "B", live.wav'))
            results.write(song("b.wav", error="no such file"))
    predictions = "ID,genre,predicted,posterior_jazz\n1,jazz,rock,0.25\n2,rock,rock,0\n"
    (folder / "predictions.csv").write_text(predictions)
    (folder / "matrix.csv").write_text("genre,jazz,rock\njazz,3,1\nrock,0,4\n")
    shutil.copy(model_folder / "config.json", folder)
    return {path.name: path.read_bytes() for path in folder.rglob("*.*[a-z]")}


READERS = {"train.csv": read_manifest, "index.json": read_index}
READERS |= {"predictions.csv": read_table, "matrix.csv": read_table}
READERS |= {f"results.{suffix}": read_results for suffix in ("csv", "jsonl", "parquet")}
READERS |= {"config.json": read_model_config}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_table_or_json_is_read_or_refused(tables, tmp_path, name):
    if name not in tables:
        pytest.skip("needs pyarrow")
    prepare(tmp_path)
    is_json = name.endswith(("json", "jsonl"))
    where = st.floats(0, 1, exclude_max=True)
    with Reader(tmp_path, READERS[name]) as reader:

        @fuzz(15 if name == "index.json" else 40)
        @given(changes(), where, st.sampled_from(ODD_VALUES))
        def check(changes, where, value):
            reader.check(change(tables[name], changes), f"damaged {name}")
            if is_json:
                content = change_json(tables[name], where, value)
                reader.check(content, f"damaged {name}")

        for content in (tables[name], b"", b"\r", b"\0", b"[", b"{}", b"[" * 10**5):
            reader.check(content, f"damaged {name}")
        check()


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
