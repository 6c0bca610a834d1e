"""A tone, a click and silence are seen where they are, in every panel."""

import sys

import numpy as np
import pytest
import torch

from ms_sincresnet import MSSincNet
from ms_sincresnet.plots.representations import plot_maps, plot_representations

HAND_CRAFTED = [
    "spectrogram",
    "harmonic spectrogram",
    "percussive spectrogram",
    "mel-spectrogram",
]


def axes_by_title(figure):
    """The axes of a figure that have a title."""
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def highest_pixel(axes):
    """Where an image is the brightest: x and y in the units of its axes."""
    (image,) = axes.get_images()
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    row, column = np.unravel_index(values.argmax(), values.shape)
    x = left + (right - left) * (column + 0.5) / values.shape[1]
    return x, bottom + (top - bottom) * (row + 0.5) / values.shape[0]


@pytest.fixture
def tone_and_click():
    """3 s of 1 kHz, slowly in and out, with a click at 2 s."""
    clip = 0.1 * torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(48000))
    clip *= torch.hann_window(48000)
    clip[32000] = 1.0
    return clip


def test_a_tone_and_a_click_are_where_they_are_in_every_panel(tone_and_click):
    pytest.importorskip("librosa")
    frontend = MSSincNet(n_filters=40).eval()
    figure = plot_representations(frontend, tone_and_click, start_s=10.0, title="tone")
    assert figure.get_suptitle() == "tone"
    panels = axes_by_title(figure)
    learned = [f"learned by filters of {n} taps" for n in (251, 501, 1001)]
    assert list(panels) == HAND_CRAFTED + learned
    for name in HAND_CRAFTED[:2]:
        assert highest_pixel(panels[name])[1] == pytest.approx(1000)
    time_s, _ = highest_pixel(panels["percussive spectrogram"])
    assert time_s == pytest.approx(12, abs=256 / 16000)

    low_hz, high_hz = (hz.tolist() for hz in frontend.banks[0].cutoffs())
    for name in HAND_CRAFTED[3:] + learned:
        _, row = highest_pixel(panels[name])
        named = panels[name].get_yticks(), panels[name].get_yticklabels()
        (label,) = [text for tick, text in zip(*named, strict=True) if tick == row]
        if name in learned:
            low, high = low_hz[int(row)], high_hz[int(row)]
            assert low < 1000 < high
            assert label.get_text() == f"{(low + high) / 2:.0f}"
        else:
            assert float(label.get_text()) == pytest.approx(1000, abs=16)

    for name, axes in panels.items():
        assert axes.get_xlim() == pytest.approx((10, 13))
        row = {"mel-spectrogram": "mel band", **dict.fromkeys(learned, "filter")}
        by = f"{row[name]}, by its centre (Hz)" if name in row else "frequency (Hz)"
        assert axes.get_ylabel() == by
    for name in ("mel-spectrogram", learned[-1]):  # the lowest ones
        assert panels[name].get_xlabel() == "time (s)"


def test_learned_maps_are_the_frontends(tone_and_click):
    pytest.importorskip("librosa")
    frontend = MSSincNet(n_filters=8, kernel_sizes=(251, 251, 1001)).eval()
    figure = plot_representations(frontend, tone_and_click)
    expected = frontend(tone_and_click[None])[0].detach().numpy()
    images = [axes.get_images()[0] for axes in figure.axes if axes.get_images()]
    for image, values in zip(images[4:], expected, strict=True):
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_extent() == [0, 3, -0.5, 7.5]
        assert image.origin == "lower"


@pytest.mark.parametrize("kernel_sizes", [(251,), (251, 501, 1001)])
def test_maps_alone_need_no_librosa(monkeypatch, tone_and_click, kernel_sizes):
    monkeypatch.setitem(sys.modules, "librosa", None)
    frontend = MSSincNet(n_filters=8, kernel_sizes=kernel_sizes).eval()
    panels = axes_by_title(plot_maps(frontend, tone_and_click, start_s=10.0))
    expected = frontend(tone_and_click[None])[0].detach().numpy()
    for axes, values in zip(panels.values(), expected, strict=True):
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), values)
        assert axes.get_images()[0].get_extent()[:2] == [10, 13]


def test_silence_has_a_figure():
    pytest.importorskip("librosa")
    frontend = MSSincNet(n_filters=8).eval()
    figure = plot_representations(frontend, torch.zeros(48000))
    figure.canvas.draw()
    for axes in figure.axes[:7]:
        for image in axes.get_images():
            assert np.isfinite(image.get_array()).all()


def test_titles_are_no_formulas():
    pytest.importorskip("librosa")
    frontend = MSSincNet(n_filters=8).eval()
    figure = plot_representations(frontend, torch.randn(48000), title=r"a$\b$.wav")
    figure.draw_without_rendering()
    assert figure.get_suptitle() == r"a$\b$.wav"
