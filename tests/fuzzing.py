"""Random changes to files, and a process that reads them and may crash."""

import hashlib
import multiprocessing
import os
import resource
import struct
import sys
import traceback

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from speechbrain.utils.importutils import LazyModule

from ms_sincresnet.errors import UserError

LONG_RUN = "FUZZ_EXAMPLES" in os.environ
SECONDS = 20  # more is a hang
MEGABYTES = 200

# Numbers that headers do not expect.
ODD_NUMBERS = [0, 1, 2, 7, 127, 255, 2**15 - 1, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1]
# Hypothesis asks every module for its file; SpeechBrain's lazy modules would then
# import packages that are not installed.
for module in list(sys.modules.values()):
    if isinstance(module, LazyModule):
        vars(module).setdefault("__file__", None)


def fuzz(n_examples):
    """Settings for ``n_examples``, always the same, or for ``FUZZ_EXAMPLES``."""
    return settings(
        max_examples=int(os.environ.get("FUZZ_EXAMPLES", n_examples)),
        derandomize=not LONG_RUN,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def changes():
    """Lists of changes: (kind, place from 0 to 1, size, bytes)."""
    where = st.floats(0, 1, exclude_max=True)
    where |= where.map(lambda place: place**4)  # headers are at the start
    number = st.sampled_from(ODD_NUMBERS).flatmap(
        lambda n: st.sampled_from([struct.pack(">I", n), struct.pack("<I", n)])
    )
    content = st.binary(min_size=1, max_size=8) | number
    kind = st.sampled_from(["write", "write", "flip", "cut", "insert", "repeat", "end"])
    return st.lists(
        st.tuples(kind, where, st.integers(1, 300), content), min_size=1, max_size=6
    )


def change(content, changes):
    """Makes changes to bytes."""
    content = bytearray(content)
    for kind, where, size, new in changes:
        start = int(where * len(content))
        if kind == "write":
            content[start : start + len(new)] = new
        elif kind == "flip" and content:
            content[start] ^= 1 << size % 8
        elif kind == "cut":
            del content[start : start + size]
        elif kind == "insert":
            content[start:start] = new
        elif kind == "repeat":
            content[start:start] = content[start : start + size]
        elif kind == "end":
            del content[start:]
    return bytes(content)


def peak_mb():
    """Peak memory of this process."""
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
