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


def write_log(folder, *epochs):
    """Writes a SpeechBrain log of (epoch, train loss) pairs, with a test at the end."""
    folder.mkdir(parents=True)
    logger = FileTrainLogger(str(folder / "train_log.txt"), precision=4)
    for epoch, loss in epochs:
        logger.log_stats(
            {"data": "GTZAN, fold 0", "epoch": epoch, "lr": 1e-5},
            train_stats={"loss": loss, "clip_accuracy": 0.1},
            valid_stats={"loss": 9.0},
        )
    logger.log_stats({"tested epoch": 1}, test_stats={"loss": 7.0})
    return folder


def test_the_last_loss_of_an_epoch_counts(tmp_path):
    folder = write_log(
        tmp_path / "run", (1, 2.25), (2, 2.0), (3, 0.0123), (3, 0.5), (4, float("nan"))
    )
    for path in (folder, str(folder / "train_log.txt")):
        losses = read_losses(path)
        assert losses.index.tolist() == [1, 2, 3, 4]
        assert losses.tolist()[:3] == [2.25, 2.0, 0.5]
        assert np.isnan(losses[4])


def test_each_run_has_its_curve():
    losses = [pd.Series([2.3, 1.5 / n], index=[1, 2]) for n in range(1, 13)]
    runs = {f"run {n}": series for n, series in enumerate(losses)}
    figure = plot_losses(runs)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel().endswith("(nats)")
    assert axes.get_ylim()[0] == 0
    for line, series in zip(axes.lines, losses, strict=True):
        assert line.get_xdata().tolist() == [1, 2]
        assert line.get_ydata().tolist() == series.tolist()
    assert [text.get_text() for text in axes.get_legend().texts] == list(runs)
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 12


def test_the_confusion_matrix_agrees_with_the_file(tmp_path):
    path = tmp_path / "confusion_matrix.csv"
    path.write_text("genre,jazz,rock,pop\njazz,3,1,0\nrock,0,120,0\npop,2,0,4\n")
    figure = plot_confusion_matrix(read_confusion_matrix(path), "130 songs")
    (axes,) = figure.axes
    assert axes.get_title() == "130 songs: 130 tracks, 97.7% correct"
    counts = [text.get_text() for text in axes.texts]
    assert counts == ["3", "1", "0", "0", "120", "0", "2", "0", "4"]
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == ["jazz", "rock", "pop"]
    assert axes.get_xlabel() == "predicted genre"
    assert axes.get_ylabel() == "true genre"


def test_names_are_not_formulas():
    names = [r"a$\b$", "$x$"]
    losses = plot_losses(dict.fromkeys(names, pd.Series([2.0], index=[1])))
    matrix = pd.DataFrame(np.eye(2, dtype=int), names, names)
    confusion = plot_confusion_matrix(matrix, r"run$\1$")
    for figure in (losses, confusion):
        figure.draw_without_rendering()
    assert [text.get_text() for text in losses.axes[0].get_legend().texts] == names
    assert confusion.axes[0].get_title() == r"run$\1$: 2 tracks, 100.0% correct"
