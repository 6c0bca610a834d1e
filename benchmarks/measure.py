"""Times in turn, ratios round by round, peak memory in a separate process, and tables.

A *step* is a function without arguments. A *builder* makes a step with all that it
needs, and can be sent to another process.
"""

import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

Step = Callable[[], object]
Builder = Callable[[], Step]

PRELOADED = ["torchaudio", "torchvision", "ms_sincresnet.inference.classifier"]
PACKAGES = ["ms_sincresnet", "torch", "torchaudio", "torchvision", "speechbrain"]
PEERS = ["asteroid-filterbanks", "julius"]


class Measured(NamedTuple):
    """Measurements of one row of a table."""

    seconds: np.ndarray  # per step, [n_runs]
    ratios: np.ndarray  # seconds of the table's first row in the same round, over these
    peak_bytes: int


class Alone(NamedTuple):
    """Measurements of one step in a process of its own."""

    seconds: float
    peak_bytes: int  # growth of the process; on a GPU, all that was allocated


def compare(
    builders: dict[str, Builder | None], n_runs: int
) -> dict[str, Measured | None]:
    """Measures every builder's step beside the first one's; skips what is None."""
    available = {name: build for name, build in builders.items() if build}
    peaks = {name: run_alone(build).peak_bytes for name, build in available.items()}
    seconds = time_in_turn({name: build() for name, build in available.items()}, n_runs)
    first = next(iter(seconds.values()))
    return {
        name: Measured(seconds[name], first / seconds[name], peaks[name])
        if name in available
        else None
        for name in builders
    }


def time_in_turn(steps: dict[str, Step], n_runs: int) -> dict[str, np.ndarray]:
    """Seconds per round and step, after one round that is not counted.

    Steps take turns within a round, so that a busy spell of the machine affects all.
    """
    seconds = {name: [] for name in steps}
    for _ in range(n_runs + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def run_alone(build: Builder) -> Alone:
    """Builds a step and runs it once, in a fresh process."""
    # Forked from a server that has imported the packages and computed nothing: memory
    # of this process does not count, and imports are waited for once.
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, context) as executor:
        return executor.submit(_run_here, build).result()


def _run_here(build: Builder) -> Alone:
    """Builds a step and runs it once, in this process."""
    step = build()
    # Resets the peak to the present size. Unlike ru_maxrss of getrusage, this peak is
    # not inherited from the parent process.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_rss()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    if torch.cuda.is_initialized():
        return Alone(seconds, torch.cuda.max_memory_allocated())
    return Alone(seconds, _peak_rss() - before)


def _peak_rss() -> int:
    """Peak memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison(measured: dict[str, Measured | None], n_clips: int) -> str:
    """The table of ``compare``, for steps of so many clips."""
    header = ["", "ms per clip", f"speed over {next(iter(measured))}", "range", "peak"]
    rows = []
    for name, subject in measured.items():
        if subject is None:
            rows.append([name, "not installed", "", "", ""])
            continue
        milliseconds = np.median(subject.seconds) / n_clips * 1e3
        low, high = subject.ratios.min(), subject.ratios.max()
        speed = f"{np.median(subject.ratios):.2f} ×"
        peak = mebibytes(subject.peak_bytes)
        rows.append(
            [name, f"{milliseconds:.3g}", speed, f"{low:.2f} to {high:.2f}", peak]
        )
    return table(header, rows)


def mebibytes(n_bytes: int) -> str:
    """Memory in MiB."""
    return f"{n_bytes / 2**20:,.0f} MiB"


def machine() -> str:
    """The processor, the threads, the GPU and the versions, as Markdown."""
    cpus = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return (
        f"- processor: {cpus[0] if cpus else platform.machine()}, {len(cpus)} cores, "
        f"{torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}\n"
        f"- GPU: {gpu}\n"
        f"- {', '.join(versions)}"
    )
