"""Tables, the machine, and whether what was asked for is reached, as Markdown."""

import platform
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

PACKAGES = (
    "ms_sincresnet",
    "torch",
    "torchaudio",
    "torchvision",
    "speechbrain",
    "asteroid-filterbanks",
    "julius",
)

METHOD = (
    "All subjects of a table are timed in one process, in turn; times are medians, "
    "speeds the medians of the ratios of each round, with the range of these. Peak "
    "memory is what the first step adds to a fresh process; on a GPU, all that is "
    "allocated. *Plain* is the pipeline as a PyTorch user would write it, in fp32 "
    "where nothing else is said; *ours* the library at its defaults."
)


class Target(NamedTuple):
    """What is asked of one figure.

    Arguments
    ---------
    figure : str
        What is measured.
    asked : float
        The least that is asked for, or the most.
    aim : float or None
        What is aimed at beyond that.
    at_most : bool
        Whether the figure is the better the smaller it is.
    unit : str
        What stands behind the number.
    """

    figure: str
    asked: float
    aim: float | None = None
    at_most: bool = False
    unit: str = "×"

    def verdict(self, figure):
        """Whether a figure is what is asked for.

        Arguments
        ---------
        figure : float
            What was measured.

        Returns
        -------
        str
            "not reached", "reached", or "aim reached".
        """
        sign = -1 if self.at_most else 1
        if sign * figure < sign * self.asked:
            return "**not reached**"
        return "aim reached" if self.aim and figure >= self.aim else "reached"


TARGETS = {
    "frontend_evaluation": Target("front-end, evaluation: speed over plain", 9, 12),
    "frontend_training": Target("front-end, training: speed over plain", 6, 9),
    "step": Target("training step, fp32: speed over plain", 3.5),
    "step_memory": Target("training step, fp32: plain's peak memory over ours", 4),
    "step_bf16": Target("training step, bf16 ResNet: speed over plain fp32", 5),
    "song": Target("song, fp32: speed over plain", 7, 9),
    "song_bf16": Target("song, bf16 ResNet: speed over plain fp32", 9, 12),
    "song_time": Target(
        "songs from 2 min on: time a minute of music, most over least",
        1.2,
        at_most=True,
    ),
    "song_memory": Target(
        "songs from 2 min on: peak memory, most over least", 1.2, at_most=True
    ),
    "loader_disk": Target("loader: clips a second over what training consumes", 5),
    "loader_memory": Target("loader, cache in memory: the same", 5),
    "gpu_step": Target("GPU, training step, bf16: speed over plain bf16", 4),
    "gpu_memory": Target("GPU, training step, bf16: plain's peak memory over ours", 8),
    "gpu_clips": Target("GPU, training: clips on an H100", 2000, unit="a second"),
}


def document(command, figures, sections):
    """All of the report.

    Arguments
    ---------
    command : str
        What it was written by.
    figures : dict
        What was measured, by the keys of ``TARGETS``.
    sections : list of str
        Markdown.

    Returns
    -------
    str
        Markdown.
    """
    head = f"# Benchmarks\n\nWritten by `{command}`. {METHOD}\n\n{machine()}"
    asked = f"## What is asked\n\n{targets(figures)}"
    return "\n\n".join([head, asked, *sections]) + "\n"


def table(header, rows):
    """A Markdown table.

    Arguments
    ---------
    header : list of str
        Names of the columns.
    rows : list of list of str
        The cells.

    Returns
    -------
    str
        The table.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison(measured, n_clips):
    """A table of subjects, measured against the first of them.

    Arguments
    ---------
    measured : dict
        As ``measure.compare`` returns it.
    n_clips : int
        Clips of a step.

    Returns
    -------
    str
        The table.
    """
    yardstick, *_ = measured
    header = ["", "ms a clip", f"speed over {yardstick}", "range", "peak memory"]
    rows = []
    for name, subject in measured.items():
        if subject is None:
            rows.append([name, "not installed", "", "", ""])
            continue
        milliseconds = np.median(subject.seconds) / n_clips * 1e3
        low, high = subject.ratios.min(), subject.ratios.max()
        rows.append(
            [
                name,
                f"{milliseconds:.3g}",
                f"{subject.speed:.2f} ×",
                f"{low:.2f} to {high:.2f}",
                mebibytes(subject.peak_bytes),
            ]
        )
    return table(header, rows)


def mebibytes(n_bytes):
    """Memory as it is written in the tables.

    Arguments
    ---------
    n_bytes : int
        Bytes.

    Returns
    -------
    str
        In MiB.
    """
    return f"{n_bytes / 2**20:,.0f} MiB"


def targets(figures):
    """The table of what was asked for, and whether it is reached.

    Arguments
    ---------
    figures : dict
        What was measured, by the keys of ``TARGETS``.

    Returns
    -------
    str
        The table.
    """
    rows = []
    for key, target in TARGETS.items():
        sign = "≤" if target.at_most else "≥"
        aim = f" (aim {target.aim:g})" if target.aim else ""
        measured, verdict = "not measured", ""
        if key in figures:
            measured = f"{figures[key]:,.4g} {target.unit}"
            verdict = target.verdict(figures[key])
        asked = f"{sign} {target.asked:,g} {target.unit}{aim}"
        rows.append([target.figure, asked, measured, verdict])
    return table(["figure", "asked", "measured", ""], rows)


def machine():
    """The processor, the threads, the GPU and the versions.

    Returns
    -------
    str
        Markdown.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return (
        f"- processor: {_processor()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}\n"
        f"- GPU: {gpu}\n"
        f"- {', '.join(versions)}"
    )


def _processor():
    """Name and number of the processors."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = [[part.strip() for part in line.split(":", 1)] for line in lines if line]
    names = [value for key, value in fields if key == "model name"]
    name = names[0] if names else platform.machine()
    return f"{name}, {sum(key == 'processor' for key, _ in fields)} cores"
