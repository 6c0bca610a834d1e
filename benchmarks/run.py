#!/usr/bin/env python3
"""Measures the library against the plain pipeline and against peers.

    python benchmarks/run.py

All subjects of a table are timed in one process, in turn, and compared round by round.
Machines are noisy: trust the ratios, and those as far as their range. Peak memory is
what the first step adds, in a process of its own. All of it takes a quarter of an hour.
"""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import report
import steps
import torch
from measure import compare, run_alone, time_in_turn
from peers import CONVOLUTIONS, is_installed

from ms_sincresnet.data.dataset import CACHES
from ms_sincresnet.training.hparams import plain_hparams

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes/GTZAN/hparams/ms_sincresnet.yaml"
PROFILED_ROWS = 30

QUICK = steps.Sizes(
    n_filters=8,
    kernel_sizes=(11, 21, 31),
    n_frames=64,
    clip_samples=4800,
    hop_samples=2400,
    few_clips=2,
    batch_size=4,
    gpu_batch_size=4,
    gpu_larger_batch_sizes=(8,),
    song_s=(1, 2, 4),
    n_songs=2,
    n_tracks=10,
    epoch_clips=40,
)


class Suite:
    """The benchmarks; a section is measured by a method, which returns it as Markdown.

    Arguments
    ---------
    sizes : steps.Sizes
        The sizes.
    n_runs : int
        Rounds that count.

    Attributes
    ----------
    figures : dict
        What was measured so far of ``report.TARGETS``, by its keys.
    clips_per_s : float or None
        How fast training is, in clips a second, once that is measured.
    """

    def __init__(self, sizes, n_runs):
        self.sizes = sizes
        self.n_runs = n_runs
        self.figures = {}
        self.clips_per_s = None

    def frontend(self):
        """The front-end alone: plain, the peers, ours."""
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
            measured = compare(builders, self.n_runs)
            self.figures[f"frontend_{mode}"] = measured["ours"].speed
            text.append(f"## Front-end, {mode}: {passes}, batch of {n_clips} clips")
            text.append(report.comparison(measured, n_clips))
        return "\n\n".join(text)

    def training(self):
        """A training step: plain, ours, ours with a ResNet in bf16."""
        n_clips = self.sizes.batch_size
        measured = compare(
            {
                "plain": self._training_step("plain", "fp32", n_clips),
                "ours": self._training_step("MSSincResNet", "fp32", n_clips),
                "ours, bf16": self._training_step("MSSincResNet", "bf16", n_clips),
            },
            self.n_runs,
        )
        plain, ours, ours_bf16 = measured.values()
        self.figures["step"] = ours.speed
        self.figures["step_memory"] = plain.peak_bytes / ours.peak_bytes
        self.figures["step_bf16"] = ours_bf16.speed
        fastest = min(np.median(ours.seconds), np.median(ours_bf16.seconds))
        self.clips_per_s = n_clips / fastest
        return (
            f"## Training step, batch of {n_clips} clips\n\n"
            f"{report.comparison(measured, n_clips)}"
        )

    def song(self):
        """A song, file to voted genre: plain, ours, ours with a ResNet in bf16."""
        seconds = self.sizes.song_s[0]
        n_clips = self.sizes.n_clips(seconds)
        with TemporaryDirectory() as folder:
            model, song = f"{folder}/model", f"{folder}/song.wav"
            steps.write_model_folder(model, self.sizes)
            steps.write_song(song, seconds)
            measured = compare(
                {
                    "plain": partial(steps.plain_song_step, song, self.sizes),
                    "ours": partial(steps.song_step, song, model, "fp32"),
                    "ours, bf16": partial(steps.song_step, song, model, "bf16"),
                },
                self.n_runs,
            )
        self.figures["song"] = measured["ours"].speed
        self.figures["song_bf16"] = measured["ours, bf16"].speed
        return (
            f"## Song of {seconds} s, {n_clips} clips: file to voted genre\n\n"
            f"{report.comparison(measured, n_clips)}"
        )

    def songs(self):
        """A folder of songs: plain, one by one; ours, and with a ResNet in bf16."""
        seconds, n_songs = self.sizes.song_s[0], self.sizes.n_songs
        with TemporaryDirectory() as folder:
            model = f"{folder}/model"
            steps.write_model_folder(model, self.sizes)
            paths = [f"{folder}/{number}.wav" for number in range(n_songs)]
            for path in paths:
                steps.write_song(path, seconds)
            measured = compare(
                {
                    "plain": partial(steps.plain_songs_step, paths, self.sizes),
                    "ours": partial(steps.songs_step, paths, model, "fp32"),
                    "ours, bf16": partial(steps.songs_step, paths, model, "bf16"),
                },
                self.n_runs,
            )
        rates = ", ".join(
            f"{name}: {60 * n_songs / np.median(subject.seconds):.3g}"
            for name, subject in measured.items()
        )
        return (
            f"## Folder of {n_songs} songs of {seconds} s: files to voted genres\n\n"
            f"{report.comparison(measured, n_songs * self.sizes.n_clips(seconds))}\n\n"
            f"Songs a minute: {rates}."
        )

    def systems(self):
        """A training step and a song of the systems of Table 1, bf16."""
        n_clips, seconds = self.sizes.batch_size, self.sizes.song_s[0]
        names = ("MSSincResNet", "SincResNet", "SincNet", "MelResNet")
        training = {name: self._training_step(name, "bf16", n_clips) for name in names}
        text = [f"## Systems: training step, bf16, batch of {n_clips} clips"]
        text.append(report.comparison(compare(training, self.n_runs), n_clips))
        with TemporaryDirectory() as folder:
            song = f"{folder}/song.wav"
            steps.write_song(song, seconds)
            for name in names:
                steps.write_model_folder(f"{folder}/{name}", self.sizes, name)
            songs = {
                name: partial(steps.song_step, song, f"{folder}/{name}", "bf16")
                for name in names
            }
            measured = compare(songs, self.n_runs)
        text.append(f"## Systems: song of {seconds} s, bf16, file to voted genre")
        text.append(report.comparison(measured, self.sizes.n_clips(seconds)))
        return "\n\n".join(text)

    def lengths(self):
        """Songs of several lengths, ours: each once, in a process of its own."""
        measured = {}
        with TemporaryDirectory() as folder:
            model, song = f"{folder}/model", f"{folder}/song.wav"
            steps.write_model_folder(model, self.sizes)
            for seconds in self.sizes.song_s:
                steps.write_song(song, seconds)
                build = partial(steps.song_step, song, model, "fp32")
                measured[seconds] = run_alone(build)
        rows = [
            [
                f"{seconds} s",
                f"{self.sizes.n_clips(seconds)}",
                f"{alone.seconds:.2f} s",
                f"{alone.seconds / seconds * 60:.2f} s",
                report.mebibytes(alone.peak_bytes),
            ]
            for seconds, alone in measured.items()
        ]
        times = [measured[s].seconds / s for s in self.sizes.song_s[1:]]
        peaks = [measured[s].peak_bytes for s in self.sizes.song_s[1:]]
        self.figures["song_time"] = max(times) / min(times)
        self.figures["song_memory"] = max(peaks) / min(peaks)
        header = ["song", "clips", "time", "time a minute of music", "peak memory"]
        return f"## Songs by length, ours\n\n{report.table(header, rows)}"

    def loader(self):
        """The loader of the training part alone, over what training consumes."""
        recipe = plain_hparams(RECIPE)
        with TemporaryDirectory() as folder:
            steps.write_cached_tracks(folder, self.sizes)
            epochs = {
                cache: steps.loader_epoch(folder, cache, recipe, self.sizes)
                for cache in CACHES
            }
            seconds = time_in_turn(epochs, self.n_runs)
        rows = []
        for cache, values in seconds.items():
            rates = self.sizes.epoch_clips / values
            over = "not measured"
            if self.clips_per_s:
                times = np.median(rates) / self.clips_per_s
                self.figures[f"loader_{cache}"] = times
                over = f"{times:.1f} ×"
            spread = f"{rates.min():,.0f} to {rates.max():,.0f}"
            rows.append([cache, f"{np.median(rates):,.0f}", spread, over])
        header = ["cache", "clips a second", "range", "over what training consumes"]
        return f"## Loader alone\n\n{report.table(header, rows)}"

    def gpu(self):
        """A training step on a GPU, bf16: plain, ours, ours in large batches."""
        n_clips = self.sizes.gpu_batch_size
        text = [f"## Training step on a GPU, bf16, batch of {n_clips} clips"]
        if not torch.cuda.is_available():
            return "\n\n".join([*text, "Not measured: no CUDA GPU."])
        measured = compare(
            {
                "plain": self._training_step("plain", "bf16", n_clips, "cuda"),
                "ours": self._training_step("MSSincResNet", "bf16", n_clips, "cuda"),
            },
            self.n_runs,
        )
        plain, ours = measured.values()
        self.figures["gpu_step"] = ours.speed
        self.figures["gpu_memory"] = plain.peak_bytes / ours.peak_bytes
        text.append(report.comparison(measured, n_clips))
        for n_clips in self.sizes.gpu_larger_batch_sizes:
            build = self._training_step("MSSincResNet", "bf16", n_clips, "cuda")
            try:
                (ours,) = compare({"ours": build}, self.n_runs).values()
            except torch.OutOfMemoryError:
                text.append(f"A batch of {n_clips} clips does not fit.")
                continue
            clips_per_s = n_clips / np.median(ours.seconds)
            self.figures["gpu_clips"] = clips_per_s
            text.append(
                f"Ours, batch of {n_clips} clips: {clips_per_s:,.0f} clips a second, "
                f"{report.mebibytes(ours.peak_bytes)}."
            )
            break
        return "\n\n".join(text)

    def profile(self):
        """What a training step of ours spends its time on, on a GPU if there is one."""
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
        return (
            f"## Profile of our training step, {device}, bf16, batch of {n_clips} "
            f"clips\n\n```\n{operators}\n```"
        )

    def _training_step(self, name, precision, batch_size, device="cpu"):
        """The builder of a training step."""
        return partial(
            steps.training_step, name, precision, batch_size, self.sizes, device
        )


SECTIONS = {
    "frontend": Suite.frontend,
    "training": Suite.training,
    "song": Suite.song,
    "songs": Suite.songs,
    "systems": Suite.systems,
    "lengths": Suite.lengths,
    "loader": Suite.loader,  # after training, over which it is measured
    "gpu": Suite.gpu,
}


def get_parser():
    """The command line.

    Returns
    -------
    argparse.ArgumentParser
        Its parser.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=[*SECTIONS], help="all"
    )
    parser.add_argument("--n_runs", type=int, default=5, help="rounds that count")
    parser.add_argument(
        "--output", type=Path, default=HERE / "RESULTS.md", help="what is written"
    )
    parser.add_argument(
        "--profile", action="store_true", help="profile a training step as well"
    )
    parser.add_argument(
        "--quick", action="store_true", help="sizes that try the script, not the speed"
    )
    return parser


def command_line(arguments):
    """What to type for the same figures again.

    Arguments
    ---------
    arguments : argparse.Namespace
        What was typed.

    Returns
    -------
    str
        The command, without what is at its default and without ``--output``.
    """
    words = ["python benchmarks/run.py"]
    for name, value in vars(arguments).items():
        if name == "output" or value == get_parser().get_default(name):
            continue
        words.append(f"--{name}")
        if value is not True:
            words += value if isinstance(value, list) else [str(value)]
    return " ".join(words)


def main(argv=None):
    """Measures section by section; what is there so far is always in the output.

    Arguments
    ---------
    argv : list of str, optional
        The command line.
    """
    arguments = get_parser().parse_args(argv)
    suite = Suite(QUICK if arguments.quick else steps.Sizes(), arguments.n_runs)
    sections = [SECTIONS[name] for name in SECTIONS if name in arguments.sections]
    if arguments.profile:
        sections.append(Suite.profile)
    done = []
    for section in sections:
        print(f"{section.__doc__}..", flush=True)
        done.append(section(suite))
        print(f"\n{done[-1]}\n", flush=True)
        arguments.output.write_text(
            report.document(command_line(arguments), suite.figures, done),
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
