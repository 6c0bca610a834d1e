"""Losses and confusion matrices agree with the files of a run."""

import numpy as np
import pandas as pd
from speechbrain.utils.train_logger import FileTrainLogger

from ms_sincresnet.plots.training import (
    plot_confusion_matrix,
    plot_losses,
    read_confusion_matrix,
    read_losses,
)

NAMES = [r"a$\b$", "$x$", "pop"]  # no formulas


def test_the_last_loss_of_an_epoch_counts(tmp_path):
    logger = FileTrainLogger(str(tmp_path / "train_log.txt"), precision=4)
    epochs = (1, 2.25), (2, 2.0), (3, 0.0123), (3, 0.5), (4, float("nan"))
    for epoch, loss in epochs:
        logger.log_stats(
            {"data": "GTZAN, fold 0", "epoch": epoch, "lr": 1e-5},
            train_stats={"loss": loss, "clip_accuracy": 0.1},
            valid_stats={"loss": 9.0},
        )
    logger.log_stats({"tested epoch": 1}, test_stats={"loss": 7.0})
    for path in (tmp_path, str(tmp_path / "train_log.txt")):
        losses = read_losses(path)
        assert losses.index.tolist() == [1, 2, 3, 4]
        np.testing.assert_array_equal(losses, [2.25, 2.0, 0.5, np.nan])


def test_each_run_has_its_curve():
    losses = [pd.Series([2.3, 1.5 / n], index=[1, 2]) for n in range(1, 4)]
    figure = plot_losses(dict(zip(NAMES, losses, strict=True)))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_ylim()[0] == 0
    for line, series in zip(axes.lines, losses, strict=True):
        assert line.get_xdata().tolist() == [1, 2]
        assert line.get_ydata().tolist() == series.tolist()
    assert [text.get_text() for text in axes.get_legend().texts] == NAMES


def test_the_confusion_matrix_agrees_with_the_file(tmp_path):
    path = tmp_path / "confusion_matrix.csv"
    counts = [[3, 1, 0], [0, 120, 0], [2, 0, 4]]
    pd.DataFrame(counts, NAMES, NAMES).to_csv(path, index_label="genre")
    figure = plot_confusion_matrix(read_confusion_matrix(path), r"run$\1$")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_title() == r"run$\1$: 130 tracks, 97.7% correct"
    assert [int(text.get_text()) for text in axes.texts] == np.ravel(counts).tolist()
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == NAMES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted genre", "true genre")
