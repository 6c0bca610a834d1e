"""Hand-crafted spectrograms of a clip next to the maps of the learned filters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from ms_sincresnet.errors import UserError
from ms_sincresnet.plots import drawing

# The short-term Fourier transform of the paper's section 4.1, and its mel bands.
WINDOW_SAMPLES, HOP_SAMPLES, N_MELS = 512, 128, 160


def plot_representations(
    clip: np.ndarray,
    sample_rate: int,
    maps: np.ndarray,
    centres_hz: Sequence[np.ndarray],
    kernel_sizes: Sequence[int],
    start_s: float = 0.0,
    title: str = "",
) -> Figure:
    """The paper's Fig. 4: spectrograms of a clip [time], and its maps (``plot_maps``).

    On the left, in dB below the maximum: the spectrogram, its harmonic and percussive
    parts, and the mel-spectrogram of section 4.1. The parts come from median filtering
    (D. Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010)
    over 31 frames and 31 bins, with soft masks.
    """
    clip_s = len(clip) / sample_rate
    spectrograms = _spectrograms(clip, sample_rate)
    figure = Figure(figsize=(13, 10), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subfigures(1, 2, squeeze=False)[0]
    panels = left.subplots(len(spectrograms), sharex=True)
    scale: dict[str, Any] = {"vmin": drawing.FLOOR_DB, "vmax": 0}
    for axes, (name, values) in zip(panels, spectrograms.items(), strict=True):
        decibels, rows_hz = drawing.to_decibels(*values[:2]), values[2]
        frames_s = start_s + np.arange(decibels.shape[1]) * HOP_SAMPLES / sample_rate
        span_s = drawing.outer_edges(frames_s)
        if name == "mel-spectrogram":
            image = drawing.draw_image(axes, decibels, span_s, **scale)
            drawing.label_rows(axes, rows_hz, "mel band")
        else:
            span_hz = drawing.outer_edges(rows_hz)
            drawing.draw_image(axes, decibels, span_s, span_hz, **scale)
            axes.set(ylabel="frequency (Hz)", ylim=(0, sample_rate / 2))
        axes.set(title=name, xlim=(start_s, start_s + clip_s))
    axes.set_xlabel("time (s)")
    label = "relative to the maximum (dB)"
    left.colorbar(image, ax=panels, label=label, **drawing.THIN)
    _draw_maps(right, maps, centres_hz, kernel_sizes, start_s, clip_s)
    return figure


def plot_maps(
    maps: np.ndarray,
    centres_hz: Sequence[np.ndarray],
    kernel_sizes: Sequence[int],
    start_s: float,
    clip_s: float,
) -> Figure:
    """The maps of a clip that the ResNet sees, one row per filter.

    ``maps`` [n_scales, n_filters, n_frames], the filters' centre frequencies
    [n_filters] and taps per scale; start of the clip in its song, and its length.
    """
    figure = Figure(figsize=(11, 0.8 + 2.2 * len(maps)), layout="constrained")
    _draw_maps(figure, maps, centres_hz, kernel_sizes, start_s, clip_s)
    return figure


def _draw_maps(
    figure: FigureBase,
    maps: np.ndarray,
    centres_hz: Sequence[np.ndarray],
    kernel_sizes: Sequence[int],
    start_s: float,
    clip_s: float,
) -> None:
    """Draws the maps of a clip, one below the other."""
    # Few values are high; on a square-root scale the others are visible too.
    scale = PowerNorm(0.5, 0, np.quantile(maps, 0.999), clip=True)
    panels = figure.subplots(len(maps), squeeze=False, sharex=True)[:, 0]
    scales = zip(panels, maps, centres_hz, kernel_sizes, strict=True)
    for axes, values, rows_hz, kernel_size in scales:
        span_s = start_s, start_s + clip_s
        image = drawing.draw_image(axes, values, span_s, norm=scale)
        drawing.label_rows(axes, rows_hz, "filter")
        axes.set_title(f"learned by filters of {kernel_size} taps")
    axes.set_xlabel("time (s)")
    options = {"ticks": MaxNLocator(5), "extend": "max", **drawing.THIN}
    figure.colorbar(image, ax=panels, label="value in the map", **options)


def _spectrograms(
    clip: np.ndarray, sample_rate: int
) -> dict[str, tuple[np.ndarray, float, np.ndarray]]:
    """Amplitudes [rows, frames] by name, their 0 dB, and frequencies of the rows."""
    try:
        import librosa
    except ImportError as error:
        raise UserError(
            "the spectrograms need librosa, which is not installed; "
            "run `pip install '.[plots]'` in a clone of the repository"
        ) from error
    spectrum = np.abs(librosa.stft(clip, n_fft=WINDOW_SAMPLES, hop_length=HOP_SAMPLES))
    harmonic, percussive = librosa.decompose.hpss(spectrum)
    bins_hz = librosa.fft_frequencies(sr=sample_rate, n_fft=WINDOW_SAMPLES)
    power = librosa.feature.melspectrogram(
        y=clip,
        sr=sample_rate,
        n_fft=4 * WINDOW_SAMPLES,  # padded: the lowest mel bands are narrower than bins
        win_length=WINDOW_SAMPLES,
        hop_length=HOP_SAMPLES,
        n_mels=N_MELS,
        htk=True,
    )
    bands, top_hz = np.sqrt(power), sample_rate / 2
    bands_hz = librosa.mel_frequencies(N_MELS + 2, fmax=top_hz, htk=True)[1:-1]
    return {
        "spectrogram": (spectrum, spectrum.max(), bins_hz),
        "harmonic spectrogram": (harmonic, spectrum.max(), bins_hz),
        "percussive spectrogram": (percussive, spectrum.max(), bins_hz),
        "mel-spectrogram": (bands, bands.max(), bands_hz),
    }
