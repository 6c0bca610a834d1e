#!/usr/bin/env python3
"""Targets of a teacher for GTZAN: tags and features of musicnn for clips of 3 s.

J. Pons, X. Serra, "musicnn: pre-trained convolutional neural networks for music audio
tagging", Late-breaking demo, ISMIR 2019. Its weights, trained on MagnaTagATune, come
with the package. It needs an environment of its own:

    python -m venv teacher
    teacher/bin/pip install tensorflow-cpu tf-keras librosa soundfile pandas pyarrow tqdm
    teacher/bin/pip install --no-deps musicnn
    teacher/bin/python teacher.py GTZAN teacher.parquet

The table has a row per clip: ID as in the manifests, start in s, the probabilities of
50 tags, and the 200 numbers of the penultimate layer.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr
from tqdm import tqdm

LAYOUTS = ("Data/genres_original", "genres_original", "genres", ".")
SAMPLE_RATE = 16000
CLIP, HOP = 3 * SAMPLE_RATE, 3 * SAMPLE_RATE // 2
FRAMES, MELS = 187, 96  # musicnn's input
Teacher = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def find_tracks(folder: Path) -> dict[str, Path]:
    """Files of the genre folders by ID, such as ``blues.00000``."""
    for root in (folder / layout for layout in LAYOUTS):
        paths = sorted(path for path in root.glob("[!._]*/[!.]*") if path.is_file())
        if paths:
            genres = [path.parent.name for path in paths]
            stems = [path.stem for path in paths]
            return {
                f"{genre}.{stem.removeprefix(f'{genre}.')}": path
                for genre, stem, path in zip(genres, stems, paths, strict=True)
            }
    sys.exit(f"{folder}: expected a folder of tracks for each genre, found none.")


def read_clips(path: Path) -> np.ndarray:
    """Clips [clips, time] on a grid of 1.5 s; a shorter track is repeated."""
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wav = soxr.resample(wav.mean(1), rate, SAMPLE_RATE, quality="HQ")
    if len(wav) == 0 or not np.isfinite(wav).all():
        raise ValueError(f"{path}: expected finite samples.")
    wav = np.resize(wav, max(len(wav), CLIP))
    return np.lib.stride_tricks.sliding_window_view(wav, CLIP)[::HOP]


def log_mel(clips: np.ndarray) -> np.ndarray:
    """Log mel spectrograms [clips, FRAMES, MELS] as musicnn expects them."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=clips, sr=SAMPLE_RATE, n_fft=512, hop_length=256, n_mels=MELS
    )
    # musicnn's own float16 overflows to infinity in loud tracks.
    return np.log10(10000 * mel + 1).swapaxes(1, 2)[:, :FRAMES]


def load_teacher() -> Teacher:
    """Function from spectrograms to tags [clips, 50] and features [clips, 200]."""
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow
    from musicnn import models

    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
    maps = tf.placeholder(tf.float32, [None, FRAMES, MELS])
    logits, *_, features = models.define_model(maps, False, "MTT_musicnn", 50)
    outputs = [tf.sigmoid(logits), features]
    session = tf.Session()
    weights = Path(models.__file__).parent / "MTT_musicnn"
    tf.train.Saver().restore(session, f"{weights}/")
    return lambda batch: tuple(session.run(outputs, {maps: batch}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data_folder", type=Path, help="GTZAN in any of its layouts")
    parser.add_argument("table", type=Path, help="the parquet file to write")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="musicnn")
    tracks, teacher, parts = find_tracks(args.data_folder), load_teacher(), []
    for track_id, path in tqdm(tracks.items(), "teaching", unit="track", disable=None):
        try:
            clips = read_clips(path)
        except (soundfile.LibsndfileError, ValueError) as error:
            tqdm.write(f"left out {track_id}: {error}", file=sys.stderr)
            continue
        tags, features = teacher(log_mel(clips))
        columns = {"start": np.arange(len(clips)) * HOP / SAMPLE_RATE}
        columns |= {"tags": list(tags), "features": list(features)}
        parts.append(pd.DataFrame({"ID": track_id, **columns}))
    if not parts:
        sys.exit(f"{args.data_folder}: expected audio, found no file that decodes.")
    table = pd.concat(parts, ignore_index=True)
    table.to_parquet(args.table, index=False)
    print(f"{len(table)} clips of {len(parts)} tracks in {args.table}")


if __name__ == "__main__":
    main()
