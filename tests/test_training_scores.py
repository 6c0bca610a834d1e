import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score

from ms_sincresnet.files import read_json
from ms_sincresnet.training.scores import StageScores, write_report

GENRES = ["blues", "jazz", "rock"]


def clips_for(*genres):
    """Log-posteriors of clips that are predicted as these genres."""
    return (torch.eye(3)[list(genres)] * 0.7 + 0.1).log()


@pytest.fixture
def scores():
    scores = StageScores()
    for clip in clips_for(0, 0, 1):  # right, by two of three; clips may come singly
        scores.add("blues.00000", 0, clip[None])
    scores.add("jazz.00000", 1, clips_for(2, 2, 1))  # wrong, with one clip right
    scores.add("rock.00000", 2, clips_for(2))
    return scores


def test_figures_are_those_counted_by_hand(scores):
    right, wrong = -np.log(0.8), -np.log(0.1)
    # The mean of the songs, however many clips they have.
    songs = [(2 * right + wrong) / 3, (right + 2 * wrong) / 3, right]
    assert scores.figures() == {
        "loss": pytest.approx(np.mean(songs)),
        "clip_accuracy": pytest.approx(4 / 7),
        "song_accuracy": pytest.approx(2 / 3),
    }


def test_report_files_agree_with_scikit_learn(scores, tmp_path):
    summary = write_report(tmp_path, scores, GENRES, dataset="three songs", epoch=7)
    predictions = pd.read_csv(tmp_path / "test_predictions.csv")
    assert list(predictions.predicted) == ["blues", "rock", "rock"]
    assert summary["song_accuracy"] == pytest.approx(
        accuracy_score(predictions.genre, predictions.predicted)
    )
    sums = predictions[GENRES].sum(axis=1).tolist()
    assert sums == pytest.approx([1, 1, 1], abs=1e-3)
    assert predictions.blues[0] == pytest.approx(2 / 3, abs=1e-4)
    assert list(predictions.clips_right) == [2, 1, 1]
    matrix = pd.read_csv(tmp_path / "confusion_matrix.csv", index_col="genre")
    assert matrix.loc["jazz", "rock"] == 1 and matrix.to_numpy().sum() == 3
    figures = scores.figures()
    expected = {"dataset": "three songs", "tracks": 3, "clips": 7, "epoch": 7}
    assert read_json(tmp_path / "test_summary.json") == figures | expected
    png = (tmp_path / "confusion_matrix.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 5000
