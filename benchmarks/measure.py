"""Times in turn, ratios round by round, and peak memory in a process of one's own.

What is measured is a step, a function without arguments. A builder makes a step, with
all that the step needs, and can be sent to another process.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

PRELOADED = ["torchaudio", "torchvision", "ms_sincresnet.inference.classifier"]


class Measured(NamedTuple):
    """What was measured of one subject.

    Arguments
    ---------
    seconds : numpy.ndarray [n_runs]
        How long a step took, round by round.
    ratios : numpy.ndarray [n_runs]
        How long the yardstick's step took in the same round, over this.
    peak_bytes : int
        Memory that one step needs.
    """

    seconds: np.ndarray
    ratios: np.ndarray
    peak_bytes: int

    @property
    def speed(self):
        """How many times as fast as the yardstick, the median of the rounds."""
        return float(np.median(self.ratios))


class Alone(NamedTuple):
    """What was measured of one step in a process of its own.

    Arguments
    ---------
    seconds : float
        How long it took.
    peak_bytes : int
        How far the process grew beyond what it held before the step; on a GPU, all
        that was allocated.
    """

    seconds: float
    peak_bytes: int


def compare(builders, n_runs):
    """Measures subjects against the first of them.

    Arguments
    ---------
    builders : dict
        Builders by the subjects' names; None for a subject that cannot be had.
    n_runs : int
        Rounds that count.

    Returns
    -------
    dict
        ``Measured`` by name; None where there was None.
    """
    peaks = {
        name: run_alone(build).peak_bytes for name, build in builders.items() if build
    }
    steps = {name: build() for name, build in builders.items() if build}
    seconds = time_in_turn(steps, n_runs)
    yardstick = next(iter(seconds.values()))
    return {
        name: Measured(seconds[name], yardstick / seconds[name], peaks[name])
        if build
        else None
        for name, build in builders.items()
    }


def time_in_turn(steps, n_runs):
    """Times every step once a round, so that a busy spell of the machine meets all.

    Arguments
    ---------
    steps : dict
        Steps by name.
    n_runs : int
        Rounds that count, after one that does not.

    Returns
    -------
    dict
        Seconds by name, an array [n_runs].
    """
    seconds = {name: [] for name in steps}
    for _ in range(n_runs + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def run_alone(build):
    """Builds a step and runs it once, in a fresh process.

    Arguments
    ---------
    build : callable
        The builder.

    Returns
    -------
    Alone
        Time and memory of the step.
    """
    # Forked from a server that has imported and computed nothing else: what this
    # process holds is not in the way, and imports are waited for once.
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, context) as executor:
        return executor.submit(_run_here, build).result()


def _run_here(build):
    """Builds a step and runs it once, in this process."""
    step = build()
    # Sets the peak to what is held now. Unlike getrusage's ru_maxrss, this peak is not
    # inherited from the process that started this one.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_rss()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    if torch.cuda.is_initialized():
        return Alone(seconds, torch.cuda.max_memory_allocated())
    return Alone(seconds, _peak_rss() - before)


def _peak_rss():
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (
        line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")
    )
    return int(kilobytes) * 1024
