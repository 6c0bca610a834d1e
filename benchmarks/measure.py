"""Times in turn, ratios round by round, peak memory in a separate process, and tables.

A *step* is a function without arguments. A *builder* makes a step with all that it
needs, and can be sent to another process.
"""

import platform
import re
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
PACKAGES = [
    *("ms_sincresnet", "torch", "torchaudio", "torchvision", "speechbrain"),
    *("asteroid-filterbanks", "julius"),
]


class Measured(NamedTuple):
    """Measurements of one row of a table."""

    seconds: np.ndarray  # per step, [n_runs]
    ratios: np.ndarray  # seconds of the table's first row in the same round, over these
    peak_bytes: int


def compare(builders: dict[str, Builder], n_runs: int) -> dict[str, Measured]:
    """Measures every builder's step beside the first one's."""
    peaks = [run_alone(build)[1] for build in builders.values()]
    seconds = time_in_turn({name: build() for name, build in builders.items()}, n_runs)
    first = next(iter(seconds.values()))
    return {
        name: Measured(values, first / values, peak)
        for (name, values), peak in zip(seconds.items(), peaks, strict=True)
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


def run_alone(build: Builder) -> tuple[float, int]:
    """Seconds and peak memory of a step in a fresh process, in which it runs once.

    The peak is the growth of the process; on a GPU, all that was allocated.
    """
    # Forked from a server that has imported the packages and computed nothing: memory
    # of this process does not count, and imports are waited for once. CUDA, which an
    # import may start, would not survive the fork.
    context = get_context("spawn" if torch.cuda.is_available() else "forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, context) as executor:
        return executor.submit(_run_here, build).result()


def _run_here(build: Builder) -> tuple[float, int]:
    """Seconds and peak memory of a step in this process."""
    step = build()
    # Resets the peak to the present size. Unlike ru_maxrss of getrusage, this peak is
    # not inherited from the parent process.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_rss()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    if torch.cuda.is_initialized():
        return seconds, torch.cuda.max_memory_allocated()
    return seconds, _peak_rss() - before


def _peak_rss() -> int:
    """Peak memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison(measured: dict[str, Measured], n_clips: int) -> str:
    """The table of ``compare``, for steps of so many clips."""
    header = ["", "ms per clip", f"speed over {next(iter(measured))}", "range", "peak"]
    rows = []
    for name, subject in measured.items():
        seconds, ratios, peak_bytes = subject
        time = f"{np.median(seconds) / n_clips * 1e3:.3g}"
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        speed = f"{np.median(ratios):.2f} ×"
        rows.append([name, time, speed, spread, mebibytes(peak_bytes)])
    return table(header, rows)


def mebibytes(n_bytes: int) -> str:
    """Memory in MiB."""
    return f"{n_bytes / 2**20:,.0f} MiB"


def machine() -> str:
    """The processor, the threads, the GPU and the versions, as Markdown."""
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    installed = {each.name: each.version for each in metadata.distributions()}
    versions = [f"{name} {installed.get(name, 'is missing')}" for name in PACKAGES]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return (
        f"- processor: {cpus[0] if cpus else platform.machine()}, {len(cpus)} cores, "
        f"{torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}\n"
        f"- GPU: {gpu}\n"
        f"- Python {platform.python_version()}, {', '.join(versions)}"
    )
