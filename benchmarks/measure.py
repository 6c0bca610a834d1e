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

import numpy as np
import torch

from ms_sincresnet.files import as_markdown
from ms_sincresnet.nnet.devices import keep_freed_memory

Step = Callable[[], object]
Builder = Callable[[], Step]

PRELOADED = ["torchaudio", "torchvision", "ms_sincresnet.inference.classifier"]
PACKAGES = [
    *("ms_sincresnet", "torch", "torchaudio", "torchvision", "speechbrain"),
    *("asteroid-filterbanks", "julius"),
]


def compare(builds: dict[str, Builder], n_runs: int, n_clips: int) -> tuple[str, dict]:
    """A table of the builders' steps, of so many clips each, and seconds per round."""
    peaks = [run_alone(build)[1] for build in builds.values()]
    seconds = time_in_turn({name: build() for name, build in builds.items()}, n_runs)
    first, rows = next(iter(seconds)), []
    for (name, values), peak in zip(seconds.items(), peaks, strict=True):
        ratios = seconds[first] / values  # round by round
        time = f"{np.median(values) / n_clips * 1e3:.3g}"
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        speed = f"{np.median(ratios):.2f} ×"
        rows.append([name, time, speed, spread, f"{peak / 2**20:,.0f} MiB"])
    header = ["", "ms per clip", f"speed over {first}", "range", "peak"]
    return as_markdown(header, rows), seconds


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
    keep_freed_memory()  # as `ms-sincresnet classify` does
    step = build()
    # Resets the peak to the present size. Unlike ru_maxrss of getrusage, this peak is
    # not inherited from the parent process.
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmHWM"), time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    if torch.cuda.is_initialized():
        return seconds, torch.cuda.max_memory_allocated()
    return seconds, memory("VmHWM") - before


def memory(name: str) -> int:
    """Memory of this process in bytes: VmHWM, its peak, or another name in status."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s*(\d+) kB", status)[1]) * 1024


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
