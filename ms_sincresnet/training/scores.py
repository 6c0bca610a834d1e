"""Scores of a stage: accuracies, confusion matrix, predictions per track."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process
from torch import Tensor, distributed

from ms_sincresnet.data.dataset import rank_and_processes
from ms_sincresnet.files import atomic_path, write_json
from ms_sincresnet.nnet.voting import vote
from ms_sincresnet.plots.drawing import save_figure
from ms_sincresnet.plots.training import plot_confusion_matrix

POSTERIOR = "posterior_"


@partial(register_checkpoint_hooks, save_on_main_only=False)
class StageScores:
    """Log-posteriors of a stage's clips, track by track.

    Saved with a checkpoint, so that a resumed epoch ends with the figures of the whole
    epoch. Each process collects its own clips; the main one has figures, after
    ``gather``.
    """

    def __init__(self, voting: str = "majority"):
        self.voting = voting
        self.clear()

    def clear(self) -> None:
        """Forgets everything, for the next stage."""
        self.labels: dict[str, int] = {}
        self.clips: dict[str, list[Tensor]] = {}

    def add(self, track_id: str, label: int, log_posteriors: Tensor) -> None:
        """Adds clips [clips, n_genres] of a track, on the CPU and without gradient."""
        self.labels[track_id] = int(label)
        self.clips.setdefault(track_id, []).append(log_posteriors)

    def gather(self) -> None:
        """Moves the scores of all processes to the main one; all of them call this."""
        rank, n_processes = rank_and_processes()
        if n_processes == 1:
            return
        own = [(*track, clips.numpy()) for *track, clips in self._tracks()]
        of_all: list = [None] * n_processes
        distributed.gather_object(own, of_all if rank == 0 else None)
        self.clear()
        for tracks in of_all if rank == 0 else []:
            for track_id, label, clips in tracks:
                self.add(track_id, label, torch.from_numpy(clips))

    def figures(self) -> dict[str, float]:
        """Loss (mean over each track's clips, then over tracks) and both accuracies."""
        tracks = [(label, clips) for _, label, clips in self._tracks()]
        losses = [-clips[:, label].double().mean() for label, clips in tracks]
        clips_right = [clips.argmax(1) == label for label, clips in tracks]
        right = [vote(clips, self.voting)[0] == label for label, clips in tracks]
        return {
            "loss": torch.stack(losses).mean().item(),
            "clip_accuracy": torch.cat(clips_right).double().mean().item(),
            "song_accuracy": float(np.mean(right)),
        }

    def predictions(self, genres: list[str]) -> pd.DataFrame:
        """Prediction, clip counts, shares of the votes and posteriors, per track."""
        rows = []
        for track_id, label, clips in self._tracks():
            index, shares = vote(clips, self.voting)
            row = {
                "ID": track_id,
                "genre": genres[label],
                "predicted": genres[index],
                "clips": len(clips),
                "clips_right": int((clips.argmax(1) == label).sum()),
            }
            row |= dict(zip(genres, shares.tolist(), strict=True))
            posteriors = clips.exp().mean(0).tolist()
            names = [f"{POSTERIOR}{genre}" for genre in genres]
            rows.append(row | dict(zip(names, posteriors, strict=True)))
        return pd.DataFrame(rows).sort_values("ID", ignore_index=True)

    def _tracks(self) -> Iterator[tuple[str, int, Tensor]]:
        """ID, label and log-posteriors [clips, n_genres] of each track."""
        for track_id, label in self.labels.items():
            yield track_id, label, torch.cat(self.clips[track_id])

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Saves the scores of all processes, for an unfinished epoch."""
        self.gather()
        if if_main_process():
            torch.save({"labels": self.labels, "clips": self.clips}, path)

    @mark_as_loader
    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Loads the scores of an unfinished epoch into the main process."""
        if not end_of_epoch and if_main_process():
            saved = torch.load(path, weights_only=True)
            self.labels, self.clips = saved["labels"], saved["clips"]


def write_confusion_matrix(
    folder: Path, predictions: pd.DataFrame, genres: list[str], title: str
) -> None:
    """Writes counts of tracks by genre and predicted genre, in a file and a figure."""
    pairs = predictions["genre"], predictions["predicted"]
    counts = confusion_matrix(*pairs, labels=genres)
    matrix = pd.DataFrame(counts, pd.Index(genres, name="genre"), genres)
    with atomic_path(folder / "confusion_matrix.csv") as path:
        matrix.to_csv(path)
    save_figure(plot_confusion_matrix(matrix, title), folder / "confusion_matrix.png")


def write_report(
    folder: str | Path, scores: StageScores, genres: list[str], **about: Any
) -> dict[str, Any]:
    """Writes the files of a test; returns its summary, ``about`` included."""
    folder = Path(folder)
    table = scores.predictions(genres)
    table.to_csv(folder / "test_predictions.csv", index=False, float_format="%.4f")
    write_confusion_matrix(folder, table, genres, about["dataset"])
    sizes = {"tracks": len(table), "clips": int(table["clips"].sum())}
    summary = {**about, **scores.figures(), **sizes}
    write_json(summary, folder / "test_summary.json")
    return summary
