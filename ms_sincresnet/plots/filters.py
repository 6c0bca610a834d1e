"""What the filters became, and where they started."""

import numpy as np
import pandas as pd

from ms_sincresnet.errors import UserError
from ms_sincresnet.plots.drawing import (
    BLUE,
    ORANGE,
    SKY,
    THIN,
    draw_image,
    edges,
    name_filters,
    to_decibels,
)

RESPONSE_SAMPLES = 4096  # bins of 4 Hz at 16 kHz; filters of 1001 taps resolve 16 Hz


def cutoff_table(model):
    """The cut-off frequencies of a model's filters, at first and as they are now.

    Arguments
    ---------
    model : torch.nn.Module
        A system with ``config``, such as ``MSSincResNet``.

    Returns
    -------
    pandas.DataFrame
        A row a filter: scale and filter, counted from 0, kernel_size, init_low_hz,
        init_high_hz, low_hz and high_hz.

    Raises
    ------
    UserError
        If the model learns no filters.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> table = cutoff_table(MSSincResNet(n_filters=8))
    >>> len(table), (table.low_hz == table.init_low_hz).all().item()
    (24, True)
    """
    from ms_sincresnet.nnet.filterbank import SincFilterbank

    tables = []
    for scale, bank in enumerate(_filterbanks(model)):
        first = SincFilterbank(
            bank.n_filters,
            bank.kernel_size,
            bank.sample_rate,
            model.config["init"],
            bank.min_low_hz,
            bank.min_band_hz,
        )
        names = ("init_low_hz", "init_high_hz", "low_hz", "high_hz")
        cutoffs = zip(names, (*first.cutoffs(), *bank.cutoffs()), strict=True)
        columns = {name: hz.detach().cpu().numpy() for name, hz in cutoffs}
        sizes = {"scale": scale, "kernel_size": bank.kernel_size}
        tables.append(pd.DataFrame(sizes | {"filter": range(bank.n_filters)} | columns))
    return pd.concat(tables, ignore_index=True)


def _filterbanks(model):
    """The filterbanks of a model."""
    from ms_sincresnet.nnet.filterbank import SincFilterbank

    banks = [part for part in model.modules() if isinstance(part, SincFilterbank)]
    if not banks:
        raise UserError(
            "the model learns no filters: expected one with a SincFilterbank, such as "
            f"MSSincResNet or SincNet; got a {type(model).__name__}"
        )
    return banks


def plot_filters(model, title=""):
    """The learned filters: frequency responses, and how far the cut-offs moved.

    A row of panels a scale. On the left the responses, each in dB below its own highest
    value, with the initial cut-offs as lines. On the right the change of each cut-off
    over where it started.

    Arguments
    ---------
    model : torch.nn.Module
        A system with ``config``, such as ``MSSincResNet``.
    title : str
        What is shown.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    UserError
        If the model learns no filters.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> figure = plot_filters(MSSincResNet(n_filters=8))
    >>> figure.axes[1].get_title()
    'cut-offs moved by 0.0 Hz in the median, 0.0 Hz at most'
    """
    from matplotlib.figure import Figure

    banks, table = _filterbanks(model), cutoff_table(model)
    figure = Figure(figsize=(13, 1.5 + 3.3 * len(banks)), layout="constrained")
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(len(banks), 2, squeeze=False, sharex=True)
    for (left, right), bank, (_, cutoffs) in zip(
        panels, banks, table.groupby("scale"), strict=True
    ):
        image = _draw_responses(left, bank, cutoffs)
        _draw_shifts(right, cutoffs)
    left.set_xlabel("frequency (Hz)")
    right.set_xlabel("initial cut-off (Hz)")
    label = "relative to the filter's highest value (dB)"
    figure.colorbar(image, ax=panels[:, 0], label=label, **THIN)
    return figure


def _draw_responses(axes, bank, cutoffs):
    """Draws the frequency responses of a filterbank, and its initial cut-offs."""
    taps = bank.filters().detach().cpu().double().numpy()
    responses = np.abs(np.fft.rfft(taps, RESPONSE_SAMPLES))
    bins_hz = np.linspace(0, bank.sample_rate / 2, responses.shape[1])
    decibels = np.stack(
        [to_decibels(response, response.max()) for response in responses]
    )
    image = draw_image(axes, decibels, edges(bins_hz), vmin=-60, vmax=0)
    for name in ("init_low_hz", "init_high_hz"):
        axes.plot(cutoffs[name], cutoffs["filter"], color=SKY, linewidth=0.8)
    name_filters(axes, bank)
    title = f"filters of {bank.kernel_size} taps (lines: initial cut-offs)"
    axes.set(title=title, xlim=(0, bins_hz[-1]))
    return image


def _draw_shifts(axes, cutoffs):
    """Draws how far the cut-offs of a filterbank moved."""
    shifts = []
    for name, label, colour, marker in [
        ("low_hz", "lower cut-off", BLUE, "o"),
        ("high_hz", "upper cut-off", ORANGE, "x"),
    ]:
        first = cutoffs[f"init_{name}"]
        shifts.append(cutoffs[name] - first)
        axes.plot(first, shifts[-1], marker, color=colour, markersize=4, label=label)
    moved = pd.concat(shifts).abs()
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(
        title=f"cut-offs moved by {moved.median():.1f} Hz in the median, "
        f"{moved.max():.1f} Hz at most",
        ylabel="learned less initial cut-off (Hz)",
    )
    axes.grid(alpha=0.3)
    axes.legend()
