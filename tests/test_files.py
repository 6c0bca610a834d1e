"""Processors that are free, and weights that cannot be loaded."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.files import load_weights, n_processors


def test_processors_are_those_that_affinity_and_quota_leave(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)))
    texts = {
        "/proc/self/cgroup": "1:name=systemd:/x\n0::/a/b\n",
        "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
        "/sys/fs/cgroup/a/cpu.max": "650000 100000\n",
    }

    def read_text(path):
        if str(path) not in texts:
            raise FileNotFoundError
        return texts[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert n_processors() == 6
    texts["/sys/fs/cgroup/a/b/cpu.max"] = "50000 100000\n"
    assert n_processors() == 1
    texts.clear()
    assert n_processors() == 48
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert n_processors() == 3


def test_a_numpy_scalar_in_a_checkpoint_is_named_as_the_cause(tmp_path):
    path = tmp_path / "a.tar"
    torch.save({"weight": torch.zeros(1), "accuracy": np.float64(0.5)}, path)
    with pytest.raises(WeightsError, match=f"{path}: it holds a NumPy scalar"):
        load_weights(path)
    path.write_bytes(b"numpy.core.multiarray.scalar")
    with pytest.raises(WeightsError, match=f"{path}: not a file of weights"):
        load_weights(path)
