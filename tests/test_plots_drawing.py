"""Decibels with a floor, and figures that are written whole or not at all."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from ms_sincresnet.plots.drawing import save_figure, to_decibels


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path):
    figure = Figure()
    figure.suptitle(r"$\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(figure, tmp_path / "figure.pdf")
    assert list(tmp_path.iterdir()) == []


def test_decibels_have_a_floor():
    assert to_decibels(np.array([0, 0.5, 5]), 5).tolist() == [-80, -20, 0]
