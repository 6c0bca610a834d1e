"""A tone, a click and maps appear at their places in every panel."""

import sys

import numpy as np
import pytest

from ms_sincresnet.errors import UserError
from ms_sincresnet.plots.representations import plot_maps, plot_representations

HAND_CRAFTED = ["spectrogram", "harmonic spectrogram", "percussive spectrogram"]
HAND_CRAFTED += ["mel-spectrogram"]
SIZES = (251, 501, 1001)
LEARNED = [f"learned by filters of {n} taps" for n in SIZES]
CENTRES_HZ = [np.array([110.0, 990.0, 4100.0])] * 3
MAPS = np.random.default_rng(0).random((3, 3, 64))


def axes_by_title(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def highest_pixel(axes):
    """Position of the brightest pixel, in the units of the axes."""
    (image,) = axes.get_images()
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    row, column = np.unravel_index(values.argmax(), values.shape)
    x = left + (right - left) * (column + 0.5) / values.shape[1]
    return x, bottom + (top - bottom) * (row + 0.5) / values.shape[0]


def test_a_tone_and_a_click_appear_in_every_panel():
    pytest.importorskip("librosa")
    clip = 0.1 * np.sin(2 * np.pi * 1000 / 16000 * np.arange(48000)) * np.hanning(48000)
    clip[32000] = 1.0
    title = r"a$\b$.wav"  # no formula
    figure = plot_representations(
        clip.astype("float32"), 16000, MAPS, CENTRES_HZ, SIZES, 10.0, title
    )
    figure.draw_without_rendering()
    assert figure.get_suptitle() == title
    panels = axes_by_title(figure)
    assert list(panels) == HAND_CRAFTED + LEARNED
    for name in HAND_CRAFTED[:2]:
        assert highest_pixel(panels[name])[1] == pytest.approx(1000)
    time_s, _ = highest_pixel(panels["percussive spectrogram"])
    assert time_s == pytest.approx(12, abs=256 / 16000)
    mel = panels["mel-spectrogram"]
    _, row = highest_pixel(mel)
    labels = zip(mel.get_yticks(), mel.get_yticklabels(), strict=True)
    (label,) = [text for tick, text in labels if tick == row]
    assert float(label.get_text()) == pytest.approx(1000, abs=16)
    for axes in panels.values():
        assert axes.get_xlim() == pytest.approx((10, 13))


@pytest.mark.parametrize("n_scales", [1, 3])
def test_maps_need_no_librosa(monkeypatch, n_scales):
    monkeypatch.setitem(sys.modules, "librosa", None)
    part = MAPS[:n_scales], CENTRES_HZ[:n_scales], SIZES[:n_scales]
    panels = axes_by_title(plot_maps(*part, start_s=10.0, clip_s=3.0))
    assert list(panels) == LEARNED[:n_scales]
    for axes, values in zip(panels.values(), MAPS, strict=False):
        (image,) = axes.get_images()
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_extent() == [10, 13, -0.5, 2.5] and image.origin == "lower"
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == ["110", "990", "4100"]
    with pytest.raises(UserError, match=r"librosa, .*pip install '\.\[plots\]'"):
        plot_representations(np.zeros(48000), 16000, *part)
