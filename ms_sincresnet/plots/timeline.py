"""The genres of a song over its time, below its waveform."""

import numpy as np
import pandas as pd

from ms_sincresnet.plots.drawing import ORANGE, THIN


def read_envelope(path, sample_rate):
    """The envelope of a song, which is read block by block.

    Arguments
    ---------
    path : str or pathlib.Path
        The audio.
    sample_rate : int
        The rate that it is read at, in Hz.

    Returns
    -------
    pandas.Series
        The largest absolute sample of each hundredth of a second, by its start in s.

    Raises
    ------
    AudioFileError
        If the file cannot be used as audio.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "song.wav"
    >>> soundfile.write(path, np.repeat([0.5, -0.25], 160), 16000)
    >>> read_envelope(path, 16000).to_dict()
    {0.0: 0.5, 0.01: 0.25}
    """
    from ms_sincresnet.data.audio import read_blocks

    step = sample_rate // 100
    peaks, rest = [], np.zeros(0, np.float32)
    for block in read_blocks(path, sample_rate):
        levels = np.abs(np.concatenate([rest, block]))
        whole = len(levels) // step * step
        peaks.append(levels[:whole].reshape(-1, step).max(1))
        rest = levels[whole:]
    if len(rest):
        peaks.append(rest.max(keepdims=True))
    peaks = np.concatenate(peaks)
    return pd.Series(peaks, np.arange(len(peaks)) * step / sample_rate)


def plot_timeline(posteriors, duration_s, title="", envelope=None):
    """A song's genre timeline: the posteriors of its clips, the likeliest ones marked.

    Each moment has the posteriors of the clip whose middle is the nearest. The genre of
    the highest mean posterior is on top.

    Arguments
    ---------
    posteriors : pandas.DataFrame
        A row a clip, by the time of its middle in s; a column a genre. NaN for clips
        of silence.
    duration_s : float
        Length of the song, in s.
    title : str
        What is shown.
    envelope : pandas.Series, optional
        What ``read_envelope`` returns, to be drawn above.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Example
    -------
    >>> clips = {"jazz": [0.9, 0.3], "rock": [0.1, 0.7]}
    >>> figure = plot_timeline(pd.DataFrame(clips, index=[1.5, 2.0]), duration_s=3.5)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['rock', 'jazz']
    """
    from matplotlib.figure import Figure

    genres = posteriors.mean().sort_values().index
    values, middles_s = posteriors[genres].to_numpy(), posteriors.index.to_numpy()
    edges_s = [0, *(middles_s[1:] + middles_s[:-1]) / 2, duration_s]
    height = 1.6 + 0.32 * len(genres)
    figure = Figure(figsize=(11, height), layout="constrained")
    if envelope is None:
        top = axes = figure.subplots()
    else:
        figure.set_figheight(height + 1)
        ratios = {"height_ratios": [1, height]}
        top, axes = figure.subplots(2, sharex=True, gridspec_kw=ratios)
        _draw_envelope(top, envelope)
    image = axes.pcolormesh(
        edges_s,
        np.arange(len(genres) + 1) - 0.5,
        values.T,
        cmap="Blues",
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    heard = ~np.isnan(values[:, 0])
    axes.plot(
        middles_s[heard],
        values[heard].argmax(1),
        ".",
        color=ORANGE,
        label="likeliest genre of the clip",
    )
    axes.set_yticks(range(len(genres)), genres, parse_math=False)
    axes.set(xlabel="time (s)", xlim=(0, duration_s))
    top.set_title(title, parse_math=False)
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.08), frameon=False)
    figure.colorbar(image, label="posterior of the clip", **THIN)
    return figure


def _draw_envelope(axes, envelope):
    """Draws the envelope of a song; of an hour, a thousand lines."""
    step = -(-len(envelope) // 1000)
    peaks = envelope.groupby(np.arange(len(envelope)) // step).max()
    axes.vlines(envelope.index[::step], -peaks, peaks, color="grey", linewidth=0.7)
    axes.set(ylabel="level", yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
