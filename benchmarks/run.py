"""Times the front-end's fast path against its definition and SpeechBrain's SincConv.

    python benchmarks/run.py

All run in one process, in turn, on the same clips; what is printed are the medians of
the times and, run by run, the ratios to the definition. Machines are noisy: trust the
ratios, and those only as far as their spread.
"""

import argparse
import platform
import time

import numpy as np
import speechbrain
import torch
from speechbrain.nnet.CNN import SincConv

from ms_sincresnet import MSSincNet, MSSincResNet


class SpeechBrainFrontend(torch.nn.Module):
    """The front-end as a SpeechBrain user would build it, with ``SincConv``.

    Arguments
    ---------
    like : MSSincNet
        The front-end whose sizes it has.
    """

    def __init__(self, like):
        super().__init__()
        self.n_frames = like.n_frames
        self.scales = torch.nn.ModuleList(
            torch.nn.Sequential(
                SincConv(
                    bank.n_filters, bank.kernel_size, in_channels=1, padding="same"
                ),
                _Transposed(torch.nn.BatchNorm1d(bank.n_filters)),
                torch.nn.ReLU(),
            )
            for bank in like.banks
        )

    def forward(self, wavs):
        """Maps [batch, scales, n_filters, n_frames] of clips [batch, time]."""
        maps = [
            torch.nn.functional.adaptive_avg_pool1d(scale(wavs).mT, self.n_frames)
            for scale in self.scales
        ]
        return torch.stack(maps, 1)


class _Transposed(torch.nn.Module):
    """Applies a channels-first module to SpeechBrain's channels-last tensors."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.mT).mT


def evaluation(module, wavs):
    """One forward pass without gradients."""
    with torch.no_grad():
        module.eval()(wavs)


def training(module, wavs):
    """One forward and backward pass."""
    module.train()(wavs).square().mean().backward()
    module.zero_grad()


def time_in_turn(subjects, task, wavs, n_runs):
    """Times a task on each subject in turn, several times over.

    Arguments
    ---------
    subjects : dict
        Modules by name.
    task : callable
        What is timed: (module, wavs).
    wavs : torch.Tensor [batch, time]
        Clips.
    n_runs : int
        Rounds that count, after one that does not.

    Returns
    -------
    dict
        Milliseconds a clip by name, an array [n_runs].
    """
    times = {name: [] for name in subjects}
    for _ in range(n_runs + 1):
        for name, module in subjects.items():
            start = time.perf_counter()
            task(module, wavs)
            times[name].append((time.perf_counter() - start) / len(wavs) * 1e3)
    return {name: np.array(values[1:]) for name, values in times.items()}


def table(title, times):
    """Prints medians, and ratios to the first subject with their range.

    Arguments
    ---------
    title : str
        What was timed.
    times : dict
        As ``time_in_turn`` returns them.
    """
    print(f"\n{title}")
    reference = next(iter(times.values()))
    for name, values in times.items():
        ratios = reference / values
        print(
            f"  {name:24s} {np.median(values):8.1f} ms a clip   "
            f"{np.median(ratios):5.2f}× ({ratios.min():.2f} to {ratios.max():.2f})"
        )


def main(argv=None):
    """Runs the benchmarks.

    Arguments
    ---------
    argv : list of str, optional
        The command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=8, help="clips at a time")
    parser.add_argument("--n_runs", type=int, default=5, help="rounds that count")
    arguments = parser.parse_args(argv)

    torch.manual_seed(0)
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} "
        f"threads, {torch.backends.cpu.get_cpu_capability()}; torch "
        f"{torch.__version__}, SpeechBrain {speechbrain.__version__}; batches of "
        f"{arguments.batch_size} clips of 3 s, {arguments.n_runs} rounds"
    )
    wavs = torch.randn(arguments.batch_size, 48000)
    frontends = {
        "definition": MSSincNet(backend="reference"),
        "ours": MSSincNet(backend="fft"),
        "SpeechBrain's SincConv": SpeechBrainFrontend(MSSincNet()),
    }
    systems = {
        "definition": MSSincResNet(backend="reference"),
        "ours": MSSincResNet(backend="fft"),
    }
    for title, subjects, task in [
        ("Front-end, evaluation", frontends, evaluation),
        ("Front-end, forward and backward", frontends, training),
        ("Whole system, evaluation", systems, evaluation),
        ("Whole system, forward and backward", systems, training),
    ]:
        table(title, time_in_turn(subjects, task, wavs, arguments.n_runs))


if __name__ == "__main__":
    main()
