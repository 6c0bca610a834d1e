"""Images, decibels, colours and files, for all figures."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import atomic_path

# Figure, not pyplot, which keeps every figure in memory and may look for a screen.
# File and genre names are drawn with parse_math=False: their $ is no formula.

FLOOR_DB = -80
TICKS_HZ = (100, 250, 500, 1000, 2000, 4000, 8000)
# From matplotlib's style tableau-colorblind10.
BLUE, ORANGE, SKY = "#006BA4", "#FF800E", "#5F9ED1"
THIN: dict[str, Any] = {"aspect": 50, "pad": 0.02}  # a colour bar


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure, whole or not at all, in the format of the path's suffix."""
    try:
        with atomic_path(path) as temporary_path:
            figure.savefig(temporary_path, format=Path(path).suffix[1:], dpi=120)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def to_decibels(amplitudes: np.ndarray, reference: float) -> np.ndarray:
    """Levels in dB relative to a reference amplitude, not below ``FLOOR_DB``."""
    floor = 10 ** (FLOOR_DB / 20)
    return 20 * np.log10(np.maximum(amplitudes / (reference or 1), floor))


def outer_edges(centres: np.ndarray) -> tuple[float, float]:
    """First and last edge of evenly spaced rows or columns, given their centres."""
    half = (centres[1] - centres[0]) / 2
    return centres[0] - half, centres[-1] + half


def draw_image(
    axes: Axes, values: np.ndarray, x: tuple, y: tuple | None = None, **scale: Any
) -> AxesImage:
    """Draws an image, lowest row first, between its edges; by default row n is at n."""
    extent = (*x, *(y or (-0.5, len(values) - 0.5)))
    options: Any = {"origin": "lower", "aspect": "auto", "cmap": "magma"} | scale
    return axes.imshow(values, extent=extent, **options)


def label_rows(axes: Axes, centres_hz: np.ndarray, name: str) -> None:
    """Labels the rows of an image nearest to round frequencies with their centres."""
    rows = np.unique([np.abs(centres_hz - hz).argmin() for hz in TICKS_HZ])
    axes.set_yticks(rows, [f"{hz:.0f}" for hz in centres_hz[rows]])
    axes.set_ylabel(f"{name}, by its centre (Hz)")
