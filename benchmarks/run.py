#!/usr/bin/env python3
"""Measures the library beside the plain pipeline and peers, and writes RESULTS.md.

    python benchmarks/run.py

Machines are noisy: trust the ratios, and those as far as their range. Everything
together takes a quarter of an hour.
"""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import measure
import numpy as np
import peers
import steps
import torch
from steps import Sizes

from ms_sincresnet.data.dataset import CACHES
from ms_sincresnet.files import as_markdown

METHOD = (
    "All rows of a table are timed in one process, in turn. Times are medians; speeds "
    "are medians of the ratios of each round, with the range of these. Peak memory is "
    "what the first step adds to a fresh process; on a GPU, all that is allocated. "
    "*Plain* is the pipeline as a PyTorch user would write it, in fp32 unless stated "
    "otherwise; *ours* is the library with its defaults."
)
RESULTS = Path(__file__).with_name("RESULTS.md")


def frontend(sizes: Sizes, n_runs: int) -> str:
    """The front-end alone: plain, peers, ours."""
    n_clips, text = sizes.few_clips, []
    for mode in ("evaluation: forward", "training: forward and backward"):
        step = partial(steps.frontend_step, sizes, mode.startswith("training"))
        builders = {name: partial(step, name) for name in [*peers.CONVOLUTIONS, "ours"]}
        table, _ = measure.compare(builders, n_runs, n_clips)
        text.append(f"## Front-end, {mode}, batch of {n_clips} clips\n\n{table}")
    return "\n".join(text)


def training(sizes: Sizes, n_runs: int) -> str:
    """A training step: plain, ours, ours with the ResNet in bf16."""
    systems = ("plain", "fp32"), ("ours", "fp32"), ("ours, bf16", "bf16")
    return _training(sizes, n_runs, "cpu", sizes.batch_size, systems)


def _training(sizes: Sizes, n_runs: int, device: str, n_clips: int, systems) -> str:
    """The section of a training step of these systems, each in its precision."""
    title = "Training step on a GPU, bf16" if device == "cuda" else "Training step"
    title = f"## {title}, batch of {n_clips} clips"
    if device == "cuda" and not torch.cuda.is_available():
        return f"{title}\n\nNot measured: no CUDA GPU.\n"
    step = partial(steps.training_step, sizes, device, n_clips)
    builders = {k: partial(step, k.partition(",")[0], v) for k, v in systems}
    return f"{title}\n\n{measure.compare(builders, n_runs, n_clips)[0]}"


def song(sizes: Sizes, n_runs: int) -> str:
    """A song, file to voted genre: plain, ours in each precision."""
    return _songs(sizes, n_runs, 1, "Song of {} s, file to voted genre")


def songs(sizes: Sizes, n_runs: int) -> str:
    """A folder of songs: plain, one by one; ours in each precision."""
    title = f"Folder of {sizes.n_songs} songs of {{}} s"
    return _songs(sizes, n_runs, sizes.n_songs, title)


def _songs(sizes: Sizes, n_runs: int, n_songs: int, title: str) -> str:
    """Songs of the first length, files to voted genres."""
    seconds = sizes.song_s[0]
    n_clips = n_songs * sizes.n_clips(seconds)
    with TemporaryDirectory() as folder:
        model = steps.write_model_folder(folder, sizes)
        paths = [f"{folder}/{number}.wav" for number in range(n_songs)]
        for path in paths:
            steps.write_song(path, seconds)
        ours = partial(steps.songs_step, paths, model)
        builders = {"plain": partial(steps.plain_songs_step, paths, sizes)}
        builders |= {"ours": partial(ours, "fp32"), "ours, bf16": partial(ours, "bf16")}
        builders["ours, Winograd's convolutions"] = partial(ours, "winograd")
        table, times = measure.compare(builders, n_runs, n_clips)
    rates = [f"{k}: {60 * n_songs / np.median(v):.3g}" for k, v in times.items()]
    title = f"## {title.format(seconds)}, {n_clips} clips"
    return f"{title}\n\n{table}\nSongs per minute: {', '.join(rates)}.\n"


def lengths(sizes: Sizes, n_runs: int) -> str:
    """Songs of several lengths, ours: each once, in a process of its own."""
    rows = []
    with TemporaryDirectory() as folder:
        model, path = steps.write_model_folder(folder, sizes), f"{folder}/song.wav"
        build = partial(steps.songs_step, [path], model, "fp32")
        for seconds in sizes.song_s:
            steps.write_song(path, seconds)
            time, peak = measure.run_alone(build)
            times = [f"{seconds} s", f"{time:.2f} s", f"{time / seconds * 60:.2f} s"]
            rows.append([*times, f"{peak / 2**20:,.0f} MiB"])
    header = ["song", "time", "time per minute of music", "peak"]
    return f"## Songs by length, ours\n\n{as_markdown(header, rows)}"


def loader(sizes: Sizes, n_runs: int) -> str:
    """The loader of training clips alone."""
    with TemporaryDirectory() as folder:
        steps.write_cached_tracks(folder, sizes)
        epochs = {cache: steps.loader_epoch(folder, cache, sizes) for cache in CACHES}
        seconds = measure.time_in_turn(epochs, n_runs)
    rows = []
    for cache, values in seconds.items():
        rates = sizes.epoch_clips / values
        spread = f"{rates.min():,.0f} to {rates.max():,.0f}"
        rows.append([cache, f"{np.median(rates):,.0f}", spread])
    header = ["cache", "clips per second", "range"]
    return f"## Loader alone\n\n{as_markdown(header, rows)}"


def gpu(sizes: Sizes, n_runs: int) -> str:
    """A training step on a GPU, bf16: plain, ours."""
    systems = ("plain", "bf16"), ("ours", "bf16")
    return _training(sizes, n_runs, "cuda", sizes.gpu_batch_size, systems)


def profile(sizes: Sizes, n_runs: int) -> str:
    """A profile of our training step, on a GPU if there is one."""
    device, n_clips = "cpu", sizes.batch_size
    if torch.cuda.is_available():
        device, n_clips = "cuda", sizes.gpu_batch_size
    step = steps.training_step(sizes, device, n_clips, "ours", "bf16")
    step()
    with torch.profiler.profile() as profiler:
        step()
    averages = profiler.key_averages()
    rows = averages.table(sort_by=f"self_{device}_time_total", row_limit=30)
    title = f"## Profile of our training step, {device}, bf16, batch of {n_clips} clips"
    return f"{title}\n\n```\n{rows}\n```\n"


_ALL = (frontend, training, song, songs, lengths, loader, gpu, profile)
SECTIONS = {section.__name__: section for section in _ALL}


def main(argv: list[str] | None = None) -> None:
    """Measures section by section; the output always holds all finished ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    of_sections = {"nargs": "+", "choices": SECTIONS, "default": [*SECTIONS]}
    parser.add_argument("--sections", **of_sections, help="all")
    parser.add_argument("--n_runs", type=int, default=5, help="rounds that count")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--quick", action="store_true", help="sizes for a test")
    arguments = parser.parse_args(argv)
    sizes = steps.QUICK if arguments.quick else Sizes()
    text = (
        f"# Benchmarks\n\nWritten by `python benchmarks/run.py`, {arguments.n_runs} "
        f"rounds. {METHOD}\n\n{measure.machine()}\n"
    )
    for name in arguments.sections:
        section = SECTIONS[name]
        print(f"{section.__doc__}..", flush=True)
        written = section(sizes, arguments.n_runs)
        print(f"\n{written}", flush=True)
        text += f"\n{written}"
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
