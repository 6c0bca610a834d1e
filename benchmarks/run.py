#!/usr/bin/env python3
"""Measures the library beside the plain pipeline and peers, and writes RESULTS.md.

    python benchmarks/run.py

All rows of a table are timed in one process, in turn, and compared round by round.
Machines are noisy: trust the ratios, and those as far as their range. Peak memory is
what the first step adds to a fresh process. Everything together takes a quarter of an
hour.
"""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import steps
import torch
from measure import (
    Builder,
    compare,
    comparison,
    machine,
    mebibytes,
    run_alone,
    table,
    time_in_turn,
)
from peers import CONVOLUTIONS, is_installed

from ms_sincresnet.data.dataset import CACHES

METHOD = (
    "All rows of a table are timed in one process, in turn. Times are medians; speeds "
    "are medians of the ratios of each round, with the range of these. Peak memory is "
    "what the first step adds to a fresh process; on a GPU, all that is allocated. "
    "*Plain* is the pipeline as a PyTorch user would write it, in fp32 unless stated "
    "otherwise; *ours* is the library with its defaults."
)
RESULTS = Path(__file__).with_name("RESULTS.md")
PROFILED_ROWS = 30


class Suite:
    """The benchmarks; each section is a method, which returns it as Markdown."""

    def __init__(self, sizes: steps.Sizes, n_runs: int):
        self.sizes = sizes
        self.n_runs = n_runs

    def frontend(self) -> str:
        """The front-end alone: plain, peers, ours."""
        n_clips = self.sizes.few_clips
        text = []
        for mode, passes in [
            ("evaluation", "forward"),
            ("training", "forward and backward"),
        ]:
            builders = {
                name: partial(steps.frontend_step, name, mode == "training", self.sizes)
                if name == "ours" or is_installed(name)
                else None
                for name in [*CONVOLUTIONS, "ours"]
            }
            text.append(f"## Front-end, {mode}: {passes}, batch of {n_clips} clips")
            text.append(comparison(compare(builders, self.n_runs), n_clips))
        return "\n\n".join(text)

    def training(self) -> str:
        """A training step: plain, ours, ours with the ResNet in bf16."""
        n_clips = self.sizes.batch_size
        builders = {
            "plain": self._training_step("plain", "fp32", n_clips),
            "ours": self._training_step("MSSincResNet", "fp32", n_clips),
            "ours, bf16": self._training_step("MSSincResNet", "bf16", n_clips),
        }
        measured = compare(builders, self.n_runs)
        title = f"## Training step, batch of {n_clips} clips"
        return f"{title}\n\n{comparison(measured, n_clips)}"

    def song(self) -> str:
        """A song, file to voted genre: plain, ours, ours with the ResNet in bf16."""
        return self._songs(1, "Song of {} s, file to voted genre")

    def songs(self) -> str:
        """A folder of songs: plain, one by one; ours, ours with the ResNet in bf16."""
        n_songs = self.sizes.n_songs
        return self._songs(n_songs, f"Folder of {n_songs} songs of {{}} s")

    def systems(self) -> str:
        """A training step and a song by the systems of Table 1, bf16."""
        n_clips, seconds = self.sizes.batch_size, self.sizes.song_s[0]
        names = ("MSSincResNet", "SincResNet", "SincNet", "MelResNet")
        training = {name: self._training_step(name, "bf16", n_clips) for name in names}
        text = [f"## Systems: training step, bf16, batch of {n_clips} clips"]
        text.append(comparison(compare(training, self.n_runs), n_clips))
        with TemporaryDirectory() as folder:
            song = f"{folder}/song.wav"
            steps.write_song(song, seconds)
            songs = {
                name: self._songs_step([song], self._model_folder(folder, name), "bf16")
                for name in names
            }
            measured = compare(songs, self.n_runs)
        text.append(f"## Systems: song of {seconds} s, bf16, file to voted genre")
        text.append(comparison(measured, self.sizes.n_clips(seconds)))
        return "\n\n".join(text)

    def lengths(self) -> str:
        """Songs of several lengths, ours: each once, in a process of its own."""
        rows = []
        with TemporaryDirectory() as folder:
            model, song = self._model_folder(folder), f"{folder}/song.wav"
            for seconds in self.sizes.song_s:
                steps.write_song(song, seconds)
                alone = run_alone(self._songs_step([song], model, "fp32"))
                time, per_minute = alone.seconds, alone.seconds / seconds * 60
                row = f"{seconds} s", f"{time:.2f} s", f"{per_minute:.2f} s"
                rows.append([*row, mebibytes(alone.peak_bytes)])
        header = ["song", "time", "time per minute of music", "peak"]
        return f"## Songs by length, ours\n\n{table(header, rows)}"

    def loader(self) -> str:
        """The loader of training clips alone."""
        with TemporaryDirectory() as folder:
            steps.write_cached_tracks(folder, self.sizes)
            epochs = {
                cache: steps.loader_epoch(folder, cache, self.sizes) for cache in CACHES
            }
            seconds = time_in_turn(epochs, self.n_runs)
        rows = []
        for cache, values in seconds.items():
            rates = self.sizes.epoch_clips / values
            spread = f"{rates.min():,.0f} to {rates.max():,.0f}"
            rows.append([cache, f"{np.median(rates):,.0f}", spread])
        rows = table(["cache", "clips per second", "range"], rows)
        return f"## Loader alone\n\n{rows}"

    def gpu(self) -> str:
        """A training step on a GPU, bf16: plain, ours."""
        n_clips = self.sizes.gpu_batch_size
        title = f"## Training step on a GPU, bf16, batch of {n_clips} clips"
        if not torch.cuda.is_available():
            return f"{title}\n\nNot measured: no CUDA GPU."
        builders = {
            "plain": self._training_step("plain", "bf16", n_clips, "cuda"),
            "ours": self._training_step("MSSincResNet", "bf16", n_clips, "cuda"),
        }
        return f"{title}\n\n{comparison(compare(builders, self.n_runs), n_clips)}"

    def profile(self) -> str:
        """A profile of our training step, on a GPU if there is one."""
        on_gpu = torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        n_clips = self.sizes.gpu_batch_size if on_gpu else self.sizes.batch_size
        step = self._training_step("MSSincResNet", "bf16", n_clips, device)()
        step()
        with torch.profiler.profile() as profiler:
            step()
        operators = profiler.key_averages().table(
            sort_by=f"self_{device}_time_total", row_limit=PROFILED_ROWS
        )
        title = f"## Profile of our training step, {device}, bf16"
        return f"{title}, batch of {n_clips} clips\n\n```\n{operators}\n```"

    def _songs(self, n_songs: int, title: str) -> str:
        """Songs of the first length, files to voted genres."""
        seconds = self.sizes.song_s[0]
        n_clips = n_songs * self.sizes.n_clips(seconds)
        with TemporaryDirectory() as folder:
            model = self._model_folder(folder)
            paths = [f"{folder}/{number}.wav" for number in range(n_songs)]
            for path in paths:
                steps.write_song(path, seconds)
            builders = {
                "plain": partial(steps.plain_songs_step, paths, self.sizes),
                "ours": self._songs_step(paths, model, "fp32"),
                "ours, bf16": self._songs_step(paths, model, "bf16"),
            }
            measured = compare(builders, self.n_runs)
        rates = ", ".join(
            f"{name}: {60 * n_songs / np.median(each.seconds):.3g}"
            for name, each in measured.items()
        )
        return (
            f"## {title.format(seconds)}, {n_clips} clips\n\n"
            f"{comparison(measured, n_clips)}\n\nSongs per minute: {rates}."
        )

    def _songs_step(self, paths: list[str], model: str, precision: str) -> Builder:
        """The builder of ours for songs."""
        return partial(steps.songs_step, paths, model, precision)

    def _training_step(
        self, name: str, precision: str, n_clips: int, device: str = "cpu"
    ) -> Builder:
        """The builder of a training step."""
        return partial(
            steps.training_step, name, precision, n_clips, self.sizes, device
        )

    def _model_folder(self, folder: str, name: str = "MSSincResNet") -> str:
        """The model folder of a system, written for the occasion."""
        steps.write_model_folder(f"{folder}/{name}", self.sizes, name)
        return f"{folder}/{name}"


SECTIONS = (
    *("frontend", "training", "song", "songs"),
    *("systems", "lengths", "loader", "gpu"),
)


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="all"
    )
    parser.add_argument("--n_runs", type=int, default=5, help="rounds that count")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--profile", action="store_true", help="end with a profile")
    parser.add_argument("--quick", action="store_true", help="sizes for a test")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Measures section by section; the output always holds all finished ones."""
    arguments = get_parser().parse_args(argv)
    suite = Suite(steps.QUICK if arguments.quick else steps.Sizes(), arguments.n_runs)
    names = [name for name in SECTIONS if name in arguments.sections]
    if arguments.profile:
        names.append("profile")
    text = (
        f"# Benchmarks\n\nWritten by `python benchmarks/run.py`, {arguments.n_runs} "
        f"rounds. {METHOD}\n\n{machine()}\n"
    )
    for name in names:
        section = getattr(suite, name)
        print(f"{section.__doc__}..", flush=True)
        written = section()
        print(f"\n{written}\n", flush=True)
        text += f"\n{written}\n"
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
