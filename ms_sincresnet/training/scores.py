"""What a stage got right: accuracies, confusion matrix, predictions a track."""

import json
from functools import partial
from pathlib import Path

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
from torch import distributed

from ms_sincresnet.nnet.voting import vote
from ms_sincresnet.plots.drawing import save_figure
from ms_sincresnet.plots.training import plot_confusion_matrix
from ms_sincresnet.training.distributed import rank_and_processes


@partial(register_checkpoint_hooks, save_on_main_only=False)
class StageScores:
    """The log-posteriors of a stage's clips, track by track.

    Saved with a checkpoint, so that an epoch which is interrupted ends with the
    figures of the whole epoch. Of several processes each takes note of its own clips;
    figures are for the main process, once it has gathered those of all.

    Arguments
    ---------
    voting : str
        "majority" or "mean", as in ``vote``.

    Example
    -------
    >>> scores = StageScores()
    >>> clips = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]).log()
    >>> scores.add("jazz.00000", 1, clips)
    >>> scores.song_accuracy(), round(scores.clip_accuracy(), 3)
    (1.0, 0.667)
    """

    def __init__(self, voting="majority"):
        self.voting = voting
        self.clear()

    def clear(self):
        """Forgets everything, for the next stage."""
        self.labels = {}
        self.clips = {}

    def add(self, track_id, label, log_posteriors):
        """Takes note of some clips of a track.

        Arguments
        ---------
        track_id : str
            The track.
        label : int
            Number of its genre.
        log_posteriors : torch.Tensor [clips, n_genres]
            Log-posteriors of the clips, on the CPU and without gradient.
        """
        self.labels[track_id] = int(label)
        self.clips.setdefault(track_id, []).append(log_posteriors)

    def gather(self):
        """Moves what the processes have noted to the main one; they all call this."""
        rank, n_processes = rank_and_processes()
        if n_processes == 1:
            return
        noted = [(*track, clips.numpy()) for *track, clips in self._tracks()]
        of_all = [None] * n_processes if rank == 0 else None
        distributed.gather_object(noted, of_all)
        self.clear()
        for noted in of_all or []:
            for track_id, label, clips in noted:
                self.add(track_id, label, torch.from_numpy(clips))

    def figures(self):
        """What an epoch's log says of the stage.

        Returns
        -------
        dict
            "loss", "clip_accuracy" and "song_accuracy".
        """
        return {
            "loss": self.loss(),
            "clip_accuracy": self.clip_accuracy(),
            "song_accuracy": self.song_accuracy(),
        }

    def loss(self):
        """Negative log-likelihood of the clips, averaged over each track's, then all.

        Returns
        -------
        float
            Not negative.
        """
        chosen = [clips[:, label].double() for _, label, clips in self._tracks()]
        return -torch.stack([clips.mean() for clips in chosen]).mean().item()

    def clip_accuracy(self):
        """Share of the clips whose most likely genre is right.

        Returns
        -------
        float
            From 0 to 1.
        """
        right = [clips.argmax(1) == label for _, label, clips in self._tracks()]
        return torch.cat(right).double().mean().item()

    def song_accuracy(self):
        """Share of the tracks whose clips vote for the right genre.

        Returns
        -------
        float
            From 0 to 1.
        """
        right = [
            vote(clips, self.voting)[0] == label for _, label, clips in self._tracks()
        ]
        return float(np.mean(right))

    def predictions(self, genres):
        """What each track was taken for.

        Arguments
        ---------
        genres : list of str
            Names of the genres.

        Returns
        -------
        pandas.DataFrame
            A row a track: ID, genre, predicted, clips (their number), clips_right, each
            genre's share of the votes under its name, and its mean posterior over the
            clips as ``posterior_<genre>``.
        """
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
            names = [f"posterior_{genre}" for genre in genres]
            rows.append(row | dict(zip(names, posteriors, strict=True)))
        return pd.DataFrame(rows).sort_values("ID", ignore_index=True)

    def _tracks(self):
        """ID, label and log-posteriors [clips, n_genres] of each track."""
        for track_id, label in self.labels.items():
            yield track_id, label, torch.cat(self.clips[track_id])

    @mark_as_saver
    def save(self, path):
        """Saves the scores of an unfinished stage, those of all processes.

        Arguments
        ---------
        path : str or pathlib.Path
            The file.
        """
        self.gather()
        if if_main_process():
            torch.save({"labels": self.labels, "clips": self.clips}, path)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Recalls the scores of an unfinished stage, in the main process.

        Arguments
        ---------
        path : str or pathlib.Path
            The file.
        end_of_epoch : bool
            Whether the checkpoint was taken between epochs: then there is nothing to
            recall.
        """
        if not end_of_epoch and if_main_process():
            saved = torch.load(path, weights_only=True)
            self.labels, self.clips = saved["labels"], saved["clips"]


def write_report(folder, scores, genres, *, dataset, **more):
    """Writes the figures of a test.

    ``test_summary.json`` (accuracies and counts), ``test_predictions.csv`` (a row a
    track), ``confusion_matrix.csv`` and ``confusion_matrix.png``.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to write.
    scores : StageScores
        The scores of the test.
    genres : list of str
        Names of the genres.
    dataset : str
        What was tested on.
    **more : dict
        What else the summary says, such as the epoch that was tested.

    Returns
    -------
    dict
        The summary.

    Example
    -------
    >>> import tempfile
    >>> scores = StageScores()
    >>> scores.add("rock.00000", 0, torch.tensor([[0.9, 0.1]]).log())
    >>> folder = tempfile.mkdtemp()
    >>> summary = write_report(folder, scores, ["rock", "jazz"], dataset="one song")
    >>> summary["song_accuracy"], summary["tracks"]
    (1.0, 1)
    """
    folder = Path(folder)
    predictions = scores.predictions(genres)
    predictions.to_csv(
        folder / "test_predictions.csv", index=False, float_format="%.4f"
    )
    counts = confusion_matrix(
        predictions["genre"], predictions["predicted"], labels=genres
    )
    matrix = pd.DataFrame(counts, pd.Index(genres, name="genre"), genres)
    matrix.to_csv(folder / "confusion_matrix.csv")
    save_figure(plot_confusion_matrix(matrix, dataset), folder / "confusion_matrix.png")
    summary = {
        "dataset": dataset,
        "song_accuracy": scores.song_accuracy(),
        "clip_accuracy": scores.clip_accuracy(),
        "tracks": len(predictions),
        "clips": int(predictions["clips"].sum()),
        **more,
    }
    text = json.dumps(summary, indent=2) + "\n"
    (folder / "test_summary.json").write_text(text, encoding="utf-8")
    return summary
