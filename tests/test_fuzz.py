"""Damaged audio and weights end in an error that a user can act on, or are read.

Inputs are small real files whose bytes were changed at random, a few for each kind of
file and always the same. To look for more::

    FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz.py
"""

import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import struct
import traceback

import numpy as np
import pytest
import torch

from ms_sincresnet.data.audio import SAMPLE_RATE, read_blocks
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.models import MODELS
from ms_sincresnet.models.weights import read_model

from .sounds import CONTAINERS, SOUND_FILES, write_sound

N_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 12))
SECONDS = 20  # more is a hang
MEGABYTES = 200

# Numbers that headers do not expect.
ODD_NUMBERS = [0, 1, 2, 7, 127, 255, 2**15 - 1, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1]


def damaged(content):
    """Yields the content with one to six random changes, seed after seed."""
    for seed in range(N_EXAMPLES):
        rng, changed = random.Random(seed), bytearray(content)
        for _ in range(rng.randint(1, 6)):
            # Headers are at the start.
            start = int(rng.random() ** rng.choice([1, 4]) * len(changed))
            end = start + rng.randint(1, 300)
            number = struct.pack(rng.choice("<>") + "I", rng.choice(ODD_NUMBERS))
            new = rng.choice([number, rng.randbytes(rng.randint(1, 8))])
            splices = [
                (start + len(new), new),
                (start + len(new), new),  # twice as often
                (end, b""),
                (start, new),
                (start, changed[start:end]),
                (None, b""),
            ]
            stop, new = rng.choice(splices)
            changed[start:stop] = new
        yield bytes(changed)


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def trial(read, path):
    """Fault of reading a file, or None."""
    before = peak_mb()
    try:
        fault = read(path)
    except UserError:
        fault = None
    except Exception:
        fault = traceback.format_exc()
    if peak_mb() > before + MEGABYTES:
        fault = f"{peak_mb() - before:.0f} MB of memory"
    return fault


class Reader:
    """A process that reads files with a function that may return a fault, or crash."""

    def __init__(self, folder, read):
        self.folder, self.read = folder, read
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def serve(self, connection):
        """Reads files until the process is killed."""
        self.connection.close()
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        for stream in (1, 2):  # decoders written in C print every fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        while True:
            connection.send(trial(self.read, connection.recv()))

    def check(self, content, name):
        """Fails, and keeps the input, if reading it goes wrong."""
        if self.process is None:
            fork = multiprocessing.get_context("fork")
            self.connection, other = fork.Pipe()
            self.process = fork.Process(target=self.serve, args=(other,), daemon=True)
            self.process.start()
            other.close()
        path = self.folder / name
        path.write_bytes(content)
        self.connection.send(path)
        try:
            fault = self.connection.recv() if self.connection.poll(SECONDS) else "hang"
        except EOFError:
            self.process.join()
            fault = f"crash with exit code {self.process.exitcode}"
        if fault:
            self.__exit__()
            digest = hashlib.sha256(content).hexdigest()[:8]
            kept = self.folder / f"{digest} {name}"
            kept.write_bytes(content)
            pytest.fail(f"reading {kept} leads to: {fault}")


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
    with Reader(tmp_path_factory.mktemp("damaged"), read_sound) as reader:
        yield reader


def sound(path):
    """The bytes of a small valid file, in the format that its name stands for."""
    pcm = np.random.default_rng(0).integers(-3000, 3000, (6000, 1), np.int16)
    write_sound(path, pcm)
    return path.read_bytes()


@pytest.mark.parametrize("name", [*SOUND_FILES, *CONTAINERS])
def test_damaged_audio_is_read_or_refused(tmp_path, reader, name):
    valid = sound(tmp_path / name)
    for content in (valid, *damaged(valid)):
        reader.check(content, name)


def test_damaged_weights_are_loaded_or_refused(model_folder, tmp_path):
    shutil.copy(model_folder / "config.json", tmp_path)
    weights = (model_folder / "model.safetensors").read_bytes()
    head, body = weights[:20_000], weights[20_000:]
    with Reader(tmp_path, lambda path: read_model(tmp_path, MODELS) and None) as reader:
        for content in (head, *damaged(head)):
            reader.check(content + body, "model.safetensors")
