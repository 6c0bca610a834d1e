"""The log of a run: text always, TensorBoard's events by the epoch on request."""

import os
import sys

import pytest

from ms_sincresnet.errors import HparamError
from ms_sincresnet.training.logs import RunLogger


def log_epoch(logger, epoch, loss):
    logger.log_stats(
        {"data": "three songs", "epoch": epoch, "lr": 0.005},
        train_stats={"loss": loss, "clip_accuracy": 0.5},
        valid_stats={"loss": 2 * loss},
    )


def test_events_are_counted_by_the_epoch_also_after_a_resume(tmp_path):
    name = "tensorboard.backend.event_processing.event_accumulator"
    event_accumulator = pytest.importorskip(name)
    logger = RunLogger(tmp_path, tensorboard=True)
    assert not os.listdir(tmp_path), "nothing before there is something to log"
    log_epoch(logger, 1, 2.0)
    log_epoch(logger, 2, 1.0)
    resumed = RunLogger(tmp_path, tensorboard=True)
    log_epoch(resumed, 3, 0.5)
    resumed.log_stats({"tested epoch": 2}, test_stats={"loss": 1.25})
    assert len((tmp_path / "train_log.txt").read_text().splitlines()) == 4
    # Nothing was closed: a kill loses no event.
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    found = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags}
    assert found.pop("lr") == pytest.approx({1: 0.005, 2: 0.005, 3: 0.005})
    assert found == {
        "loss/train": {1: 2.0, 2: 1.0, 3: 0.5},
        "loss/valid": {1: 4.0, 2: 2.0, 3: 1.0},
        "loss/test": {2: 1.25},
        "clip_accuracy/train": {1: 0.5, 2: 0.5, 3: 0.5},
    }


def test_a_missing_tensorboard_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if not installed
    RunLogger(tmp_path)
    message = r"tensorboard: True .*pip install '\.\[tensorboard\]'"
    with pytest.raises(HparamError, match=message):
        RunLogger(tmp_path, tensorboard=True)
