"""What the figures share: images in units, their colours, and the files they go to."""

from pathlib import Path

import numpy as np

from ms_sincresnet.errors import UserError

# Torch and matplotlib are imported where they are used, so that a command line is read
# without them. Not pyplot, which keeps every figure and may ask for a screen.
# Names of files and genres are drawn with parse_math=False: a $ is no formula there.

FLOOR_DB = -80  # what is less is drawn as this

TICKS_HZ = (100, 250, 500, 1000, 2000, 4000, 8000)
# Of matplotlib's style tableau-colorblind10.
BLUE, ORANGE, SKY = "#006BA4", "#FF800E", "#5F9ED1"

THIN = {"aspect": 50, "pad": 0.02}  # colour bars


def save_figure(figure, path):
    """Writes a figure, whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or pathlib.Path
        The image to write, in the format of its suffix. Its folder is made.

    Raises
    ------
    UserError
        If it cannot be written there.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> path = getfixture("tmp_path") / "figures" / "empty.svg"
    >>> save_figure(Figure(), path)
    >>> path.read_text()[:5]
    '<?xml'
    """
    from ms_sincresnet.files import atomic_path

    path = Path(path)
    try:
        with atomic_path(path) as temporary_path:
            figure.savefig(temporary_path, format=path.suffix[1:], dpi=120)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def to_decibels(amplitudes, highest):
    """Amplitudes in dB below the highest; silence is at the floor.

    Arguments
    ---------
    amplitudes : numpy.ndarray
        Amplitudes ≥ 0.
    highest : float
        What is 0 dB.

    Returns
    -------
    numpy.ndarray
        Levels in dB, none below ``FLOOR_DB``.

    Example
    -------
    >>> to_decibels(np.array([0, 0.5, 5]), highest=5).tolist()
    [-80.0, -20.0, 0.0]
    """
    least = 10 ** (FLOOR_DB / 20)
    return 20 * np.log10(np.maximum(amplitudes / (highest or 1), least))


def edges(middles):
    """Where the first of evenly spaced rows or columns begins, and the last ends.

    Arguments
    ---------
    middles : numpy.ndarray
        Middles of the rows or columns, two or more.

    Returns
    -------
    tuple of float
        The two edges.

    Example
    -------
    >>> edges([1, 2, 3])
    (0.5, 3.5)
    """
    half = (middles[1] - middles[0]) / 2
    return middles[0] - half, middles[-1] + half


def draw_image(axes, values, x, y=None, **scale):
    """Draws an image.

    Arguments
    ---------
    axes : matplotlib.axes.Axes
        Where to.
    values : numpy.ndarray [rows, columns]
        The image, its lowest row first.
    x : tuple of float
        Its left and its right edge.
    y : tuple of float, optional
        Its lower and its upper edge; by default, row n is at n.
    **scale : dict
        What the colours mean, as for matplotlib's ``imshow``: ``vmin``, ``norm`` …

    Returns
    -------
    matplotlib.image.AxesImage
        The image, for a colour bar.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> draw_image(Figure().subplots(), np.eye(2), x=(0, 3)).get_extent()
    [0, 3, -0.5, 1.5]
    """
    y = y or (-0.5, len(values) - 0.5)
    options = {"origin": "lower", "aspect": "auto", "cmap": "magma"}
    return axes.imshow(values, extent=(*x, *y), **options, **scale)


def name_rows(axes, rows_hz, what):
    """Names some rows of an image, those next to round frequencies, by their own.

    Arguments
    ---------
    axes : matplotlib.axes.Axes
        Where the image is.
    rows_hz : numpy.ndarray [rows]
        Frequencies of the rows, in Hz.
    what : str
        What a row is.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> name_rows(axes, np.array([98.0, 110.0, 247.0]), "string")
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['98', '247']
    """
    rows = np.unique([np.abs(rows_hz - hz).argmin() for hz in TICKS_HZ])
    axes.set_yticks(rows, [f"{hz:.0f}" for hz in rows_hz[rows]])
    axes.set_ylabel(f"{what}, by its centre (Hz)")


def name_filters(axes, bank):
    """Names some filters of a filterbank, whose image has a row for each.

    Arguments
    ---------
    axes : matplotlib.axes.Axes
        Where the image is.
    bank : SincFilterbank
        The filterbank.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> from ms_sincresnet import SincFilterbank
    >>> axes = Figure().subplots()
    >>> name_filters(axes, SincFilterbank(n_filters=160))
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['111', '247', '508', '990', '2020', '3981', '7909']
    """
    centres_hz = (sum(bank.cutoffs()) / 2).detach().cpu().numpy()
    name_rows(axes, centres_hz, "filter")
