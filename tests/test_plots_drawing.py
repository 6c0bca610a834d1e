"""Figures are written whole or not at all."""

import pytest
from matplotlib.figure import Figure

from ms_sincresnet.plots.drawing import save_figure


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path):
    figure = Figure()
    figure.suptitle(r"$\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(figure, tmp_path / "figure.pdf")
    assert list(tmp_path.iterdir()) == []
