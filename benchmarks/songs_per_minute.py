#!/usr/bin/env python3
"""Songs per minute of ours and of musicnn, which take turns on the same files.

    python benchmarks/songs_per_minute.py teacher/bin/python music/*.mp3

The first argument is the Python of an environment with musicnn, made as for
recipes/GTZAN/teacher.py. Models are loaded before, and the first song does not count.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np


def ours(hop: str) -> Callable[[list[str]], object]:
    """The bundled model, in its fastest precision here."""
    from ms_sincresnet import GenreClassifier
    from ms_sincresnet.inference.batch import classify_songs
    from ms_sincresnet.nnet.devices import fastest_precision, keep_freed_memory

    keep_freed_memory()  # as `ms-sincresnet classify` does
    run_opts = {"device": "cpu", "precision": fastest_precision("cpu")}
    classifier = GenreClassifier.from_pretrained(run_opts=run_opts)
    classifier.hop_s = float(hop)
    return lambda files: [*classify_songs(classifier, files)]


def musicnn(hop: str) -> Callable[[list[str]], object]:
    """musicnn's tags, as its extractor finds them, but with the network kept."""
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow
    from musicnn import extractor, models

    tf, frames = tensorflow.compat.v1, 187
    tf.disable_eager_execution()
    maps = tf.placeholder(tf.float32, [None, frames, 96])
    logits, *_ = models.define_model(maps, False, "MTT_musicnn", 50)
    tags, session = tf.sigmoid(logits), tf.Session()
    folder = os.path.dirname(models.__file__)
    tf.train.Saver().restore(session, f"{folder}/MTT_musicnn/")
    step = round(frames * float(hop) / 3)

    def classify(file: str) -> None:
        patches, _ = extractor.batch_data(file, frames, step)
        session.run(tags, {maps: patches})

    return lambda files: [*map(classify, files)]


def work(name: str, hop: str) -> None:
    """Answers lists of files, line by line, with the seconds that they took."""
    classify = {"ours": ours, "musicnn": musicnn}[name](hop)
    for line in sys.stdin:
        start = time.perf_counter()
        classify(json.loads(line))
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    """Measures every hop of ours beside musicnn's default."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("python", help="of an environment with musicnn")
    parser.add_argument("songs", nargs="+")
    parser.add_argument("--n_runs", type=int, default=3, help="rounds that count")
    parser.add_argument("--hops", nargs="+", default=["0.5", "1", "1.5", "2", "3"])
    args = parser.parse_args()
    systems = [(args.python, "musicnn", "3")]
    systems += [(sys.executable, "ours", hop) for hop in args.hops]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([s[0], __file__, *s[1:]], **pipes) for s in systems]

    def seconds(worker: subprocess.Popen, files: list[str]) -> float:
        print(json.dumps(files), file=worker.stdin, flush=True)
        return float(worker.stdout.readline())

    for worker in workers:
        seconds(worker, args.songs[:1])
    rounds = [[seconds(w, args.songs) for w in workers] for _ in range(args.n_runs)]
    rows = []
    for (_, name, hop), times in zip(systems, np.array(rounds).T, strict=True):
        ratios = np.array(rounds)[:, 0] / times
        rate, speed = 60 * len(args.songs) / np.median(times), np.median(ratios)
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        rows.append(f"| {name} | {hop} s | {rate:.0f} | {speed:.2f} × | {spread} |")
    print("| | hop | songs per minute | over musicnn | range |")
    print("| --- " * 5 + "|", *rows, sep="\n")


if __name__ == "__main__":
    work(*sys.argv[1:]) if sys.argv[1] in ("ours", "musicnn") else main()
