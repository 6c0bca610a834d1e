"""Targets of a teacher for GTZAN: tags and features of musicnn for clips of 3 s.

musicnn (J. Pons, X. Serra, ISMIR 2019) brings its weights. Its environment:

    python -m venv teacher
    teacher/bin/pip install tensorflow-cpu tf-keras librosa pandas pyarrow tqdm
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

RATE, CLIP, HOP = 16000, 48000, 24000
FRAMES, MELS = 187, 96  # of musicnn's input


def find_tracks(folder: Path) -> dict[str, Path]:
    """Files of the genre folders by ID, such as ``blues.00000``."""
    for layout in ("Data/genres_original", "genres_original", "genres", "."):
        tracks = {}
        for path in folder.glob(f"{layout}/[!._]*/[!.]*.*"):
            genre = path.parent.name
            tracks[f"{genre}.{path.stem.removeprefix(f'{genre}.')}"] = path
        if tracks:
            return dict(sorted(tracks.items()))
    sys.exit(f"{folder}: expected a folder of tracks for each genre, found none.")


def read_clips(path: Path) -> np.ndarray:
    """Clips [clips, time] on a grid of 1.5 s; a shorter track is repeated."""
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wav = soxr.resample(wav.mean(1), rate, RATE, quality="HQ")
    if len(wav) == 0 or not np.isfinite(wav).all():
        raise ValueError("expected finite samples.")
    wav = np.resize(wav, max(len(wav), CLIP))
    return np.lib.stride_tricks.sliding_window_view(wav, CLIP)[::HOP]


def load_teacher() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Function from clips to tags [clips, 50] and features [clips, 200]."""
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    warnings.filterwarnings("ignore", module="musicnn")
    import tensorflow
    from librosa.feature import melspectrogram
    from musicnn import models

    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
    maps = tf.placeholder(tf.float32, [None, FRAMES, MELS])
    logits, *_, features = models.define_model(maps, False, "MTT_musicnn", 50)
    outputs, session = (tf.sigmoid(logits), features), tf.Session()
    tf.train.Saver().restore(session, f"{Path(models.__file__).parent}/MTT_musicnn/")

    def teacher(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mel = melspectrogram(y=clips, sr=RATE, n_fft=512, hop_length=256, n_mels=MELS)
        # float32, since musicnn's float16 overflows with NumPy 2.
        log_mel = np.log10(10000 * mel + 1).swapaxes(1, 2)[:, :FRAMES]
        return session.run(outputs, {maps: log_mel})

    return teacher


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data_folder", type=Path, help="GTZAN in any of its layouts")
    parser.add_argument("table", type=Path, help="the parquet file to write")
    args = parser.parse_args()
    args.table.parent.mkdir(parents=True, exist_ok=True)
    tracks, teacher, rows = find_tracks(args.data_folder), load_teacher(), []
    for track_id, path in tqdm(tracks.items(), unit="track", disable=None):
        try:
            clips = read_clips(path)
        except (soundfile.LibsndfileError, ValueError) as error:
            tqdm.write(f"{path}: left out: {error}", file=sys.stderr)
            continue
        start = np.arange(len(clips)) * HOP / RATE
        rows += zip([track_id] * len(clips), start, *teacher(clips), strict=True)
    if not rows:
        sys.exit(f"{args.data_folder}: expected audio, found no file that decodes.")
    table = pd.DataFrame(rows, columns=["ID", "start", "tags", "features"])
    table.to_parquet(args.table, index=False)


if __name__ == "__main__":
    main()
