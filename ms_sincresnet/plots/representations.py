"""A clip as it is seen by hand-crafted and by learned filters."""

import numpy as np

from ms_sincresnet.errors import UserError
from ms_sincresnet.plots.drawing import (
    FLOOR_DB,
    THIN,
    draw_image,
    edges,
    name_filters,
    name_rows,
    to_decibels,
)

# The short-term Fourier transform of the paper's section 4.1.
WINDOW_SAMPLES = 512
HOP_SAMPLES = 128


def plot_representations(frontend, clip, start_s=0.0, title=""):
    """The paper's Fig. 4: a clip as it is seen by hand-crafted and by learned filters.

    On the left, in dB below their highest value: spectrogram, its harmonic and its
    percussive part, and mel-spectrogram, as in section 4.1. The parts are those of
    median filtering (D. Fitzgerald, "Harmonic/percussive separation using median
    filtering", DAFx 2010) over 31 frames and 31 bins, with soft masks. On the right the
    maps that the ResNet gets, a row a filter.

    Arguments
    ---------
    frontend : MSSincNet
        A front-end in evaluation mode.
    clip : torch.Tensor [time]
        A clip at its sample rate.
    start_s : float
        Where in the song the clip starts, in s.
    title : str
        What is shown.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    UserError
        If the front-end learns no maps, or librosa is not installed.

    Example
    -------
    >>> import torch
    >>> plot_representations(torch.nn.Identity(), torch.zeros(48000))
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.UserError: the model learns no maps: expected one with the \
front-end MSSincNet, such as MSSincResNet; its front-end is Identity
    """
    from matplotlib.figure import Figure

    _check_learns_maps(frontend)
    rate = frontend.banks[0].sample_rate
    end_s = start_s + len(clip) / rate
    spectrograms, frames_s = _spectrograms(clip.cpu(), rate)

    figure = Figure(figsize=(13, 10), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subfigures(1, 2)
    panels = left.subplots(len(spectrograms), sharex=True)
    for axes, (name, (decibels, rows_hz)) in zip(
        panels, spectrograms.items(), strict=True
    ):
        times_s = edges(start_s + frames_s)
        if name == "mel-spectrogram":
            image = draw_image(axes, decibels, times_s, vmin=FLOOR_DB, vmax=0)
            name_rows(axes, rows_hz, "mel band")
        else:
            draw_image(axes, decibels, times_s, edges(rows_hz), vmin=FLOOR_DB, vmax=0)
            axes.set(ylabel="frequency (Hz)", ylim=(0, rate / 2))
        axes.set(title=name, xlim=(start_s, end_s))
    axes.set_xlabel("time (s)")
    left.colorbar(image, ax=panels, label="relative to the highest value (dB)", **THIN)
    _draw_maps(right, frontend, clip, start_s)
    return figure


def plot_maps(frontend, clip, start_s=0.0):
    """The maps of a clip that the ResNet gets, a row a filter.

    The learned half of ``plot_representations``, which needs no librosa.

    Arguments
    ---------
    frontend : MSSincNet
        A front-end in evaluation mode.
    clip : torch.Tensor [time]
        A clip at its sample rate.
    start_s : float
        Where in the song the clip starts, in s.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    UserError
        If the front-end learns no maps.

    Example
    -------
    >>> import torch
    >>> from ms_sincresnet import MSSincNet
    >>> figure = plot_maps(MSSincNet(n_filters=8).eval(), torch.randn(48000))
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['learned by filters of 251 taps', 'learned by filters of 501 taps']
    """
    from matplotlib.figure import Figure

    _check_learns_maps(frontend)
    height = 0.8 + 2.2 * len(frontend.banks)
    figure = Figure(figsize=(11, height), layout="constrained")
    _draw_maps(figure, frontend, clip, start_s)
    return figure


def _check_learns_maps(frontend):
    """Raises if a front-end is none whose maps can be drawn."""
    from ms_sincresnet.nnet.frontend import MSSincNet

    if not isinstance(frontend, MSSincNet):
        raise UserError(
            "the model learns no maps: expected one with the front-end MSSincNet, "
            f"such as MSSincResNet; its front-end is {type(frontend).__name__}"
        )


def _draw_maps(figure, frontend, clip, start_s):
    """Draws the maps of a clip, one below the other."""
    import torch
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator

    with torch.no_grad():
        maps = frontend(clip[None])[0].cpu().numpy()
    end_s = start_s + len(clip) / frontend.banks[0].sample_rate
    # Few values are high. By square roots the others are seen as well.
    scale = PowerNorm(0.5, 0, np.quantile(maps, 0.999), clip=True)
    panels = figure.subplots(len(maps), squeeze=False, sharex=True)[:, 0]
    for axes, bank, values in zip(panels, frontend.banks, maps, strict=True):
        image = draw_image(axes, values, (start_s, end_s), norm=scale)
        name_filters(axes, bank)
        axes.set_title(f"learned by filters of {bank.kernel_size} taps")
    axes.set_xlabel("time (s)")
    options = {"ticks": MaxNLocator(5), "extend": "max", **THIN}
    figure.colorbar(image, ax=panels, label="value in the map", **options)


def _spectrograms(clip, rate):
    """By name: images of a clip in dB, frequencies of their rows; times of columns."""
    from ms_sincresnet.nnet.mel import LogMelSpectrogram

    try:
        import librosa
    except ImportError as error:
        raise UserError(
            "the harmonic and percussive spectrograms need librosa, which is not "
            "installed: pip install 'ms_sincresnet[plots]'"
        ) from error
    spectrum = np.abs(
        librosa.stft(clip.numpy(), n_fft=WINDOW_SAMPLES, hop_length=HOP_SAMPLES)
    )
    harmonic, percussive = librosa.decompose.hpss(spectrum)
    highest = spectrum.max()
    bins_hz = np.linspace(0, rate / 2, len(spectrum))
    mel = LogMelSpectrogram(
        window_samples=WINDOW_SAMPLES, hop_samples=HOP_SAMPLES, sample_rate=rate
    )
    bands = mel(clip[None])[0, 0].exp().sqrt().numpy()
    bands_hz = np.linspace(0, rate / 2, mel.bands.shape[1])[mel.bands.argmax(1)]
    spectrograms = {
        "spectrogram": (to_decibels(spectrum, highest), bins_hz),
        "harmonic spectrogram": (to_decibels(harmonic, highest), bins_hz),
        "percussive spectrogram": (to_decibels(percussive, highest), bins_hz),
        "mel-spectrogram": (to_decibels(bands, bands.max()), bands_hz),
    }
    return spectrograms, np.arange(spectrum.shape[1]) * HOP_SAMPLES / rate
