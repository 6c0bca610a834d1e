"""Hand-crafted spectrograms of a clip next to the maps of the learned filters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ms_sincresnet.errors import needs_extra
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
    """The paper's Fig. 4: spectrograms of a clip [time], and its maps."""
    with needs_extra("a spectrogram", "plots"):
        import librosa
    options: dict[str, Any] = {"hop_length": HOP_SAMPLES, "n_fft": WINDOW_SAMPLES}
    spectrum = np.abs(librosa.stft(clip, **options))
    parts = spectrum, *librosa.decompose.hpss(spectrum)
    bins_hz = librosa.fft_frequencies(sr=sample_rate, n_fft=WINDOW_SAMPLES)
    # Padded, as the lowest mel bands are narrower than the bins of a window.
    options |= {"n_fft": 4 * WINDOW_SAMPLES, "win_length": WINDOW_SAMPLES}
    options |= {"sr": sample_rate, "n_mels": N_MELS, "htk": True}
    bands = np.sqrt(librosa.feature.melspectrogram(y=clip, **options))
    bands_hz = librosa.mel_frequencies(N_MELS + 2, fmax=sample_rate / 2, htk=True)[1:-1]

    figure = Figure(figsize=(13, 10), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subfigures(1, 2, squeeze=False)[0]
    *panels, bottom = left.subplots(4, sharex=True)
    frames_s = start_s + np.arange(bands.shape[1]) * HOP_SAMPLES / sample_rate
    span_s, span_hz = drawing.outer_edges(frames_s), drawing.outer_edges(bins_hz)
    scale: dict[str, Any] = {"vmin": drawing.FLOOR_DB, "vmax": 0}
    kinds = "", "harmonic ", "percussive "
    for axes, kind, part in zip(panels, kinds, parts, strict=True):
        decibels = drawing.to_decibels(part, spectrum.max())
        drawing.draw_image(axes, decibels, span_s, span_hz, **scale)
        axes.set(title=f"{kind}spectrogram", ylabel="frequency (Hz)")
        axes.set_ylim(0, sample_rate / 2)
    decibels = drawing.to_decibels(bands, bands.max())
    image = drawing.draw_image(bottom, decibels, span_s, **scale)
    drawing.label_rows(bottom, bands_hz, "mel band")
    clip_s = len(clip) / sample_rate
    bottom.set(title="mel-spectrogram", xlabel="time (s)")
    bottom.set_xlim(start_s, start_s + clip_s)
    label = "relative to the maximum (dB)"
    left.colorbar(image, ax=[*panels, bottom], label=label, **drawing.THIN)
    plot_maps(maps, centres_hz, kernel_sizes, start_s, clip_s, right)
    return figure


def plot_maps(
    maps: np.ndarray,
    centres_hz: Sequence[np.ndarray],
    kernel_sizes: Sequence[int],
    start_s: float,
    clip_s: float,
    figure: Any = None,
) -> Figure:
    """Draws a clip's maps [scales, filters, frames], by default in a new figure."""
    figure = figure or Figure((11, 0.8 + 2.2 * len(maps)), layout="constrained")
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
    return figure
