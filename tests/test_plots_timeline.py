"""A timeline shows each clip at its time, below the song's envelope."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from ms_sincresnet.plots.timeline import plot_timeline, read_envelope


def test_each_moment_has_the_posteriors_of_the_nearest_clip():
    values = np.random.default_rng(0).dirichlet((4, 1, 1, 2), 24)
    values[7] = np.nan  # silent
    genres = ["rock", r"a$\b$", "$x$", "jazz"]  # no formulas
    posteriors = pd.DataFrame(values, 1.5 + 0.5 * np.arange(24), genres)
    figure = plot_timeline(posteriors, 14.5, r"a$\b$.wav")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_title() == r"a$\b$.wav"
    assert axes.get_xlim() == (0, 14.5)
    named = [label.get_text() for label in axes.get_yticklabels()]
    order = [genres.index(name) for name in named]
    assert (np.diff(np.nanmean(values, 0)[order]) >= 0).all()
    mesh = axes.collections[0]
    shown = np.ma.filled(mesh.get_array(), np.nan).reshape(4, 24)
    np.testing.assert_array_equal(shown, values[:, order].T)
    edges_s = mesh.get_coordinates()[0, :, 0]
    assert edges_s[:2].tolist() == [0, 1.75] and edges_s[-2:].tolist() == [12.75, 14.5]
    audible = posteriors.dropna()
    (dots,) = axes.lines
    assert dots.get_xdata().tolist() == audible.index.tolist()
    likeliest = audible.idxmax(axis=1).tolist()
    assert [named[row] for row in dots.get_ydata()] == likeliest


def test_the_envelope_is_the_loudest_sample_of_each_hundredth(tmp_path):
    # 16 whole blocks of the decoder and a few samples of another hundredth.
    samples = np.random.default_rng(0).uniform(-1, 1, 16 * 16384 + 7)
    samples *= np.linspace(0, 1, len(samples))
    soundfile.write(tmp_path / "song.wav", samples, 16000, subtype="FLOAT")
    envelope = read_envelope(tmp_path / "song.wav", 16000)
    whole = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(1)
    np.testing.assert_allclose(envelope[:-1], whole, rtol=1e-6)
    assert len(envelope) == len(whole) + 1
    assert envelope.index[-1] == pytest.approx(len(whole) / 100)


@pytest.mark.parametrize("duration_s", [12.0, 3600.0])
def test_the_envelope_is_above_the_timeline(duration_s):
    middles_s = np.arange(1.5, duration_s - 1, 0.5)
    posteriors = pd.DataFrame(np.ones((len(middles_s), 2)) / 2, middles_s, ["a", "b"])
    times_s = np.arange(0, duration_s, 0.01)
    click_s = duration_s / 3
    envelope = pd.Series(0.1 + 0.9 * (np.abs(times_s - click_s) < 0.005), times_s)
    figure = plot_timeline(posteriors, duration_s, "a click", envelope)
    top, below, _ = figure.axes
    assert top.get_title() == "a click" and below.get_xlabel() == "time (s)"
    assert top.get_xlim() == below.get_xlim() == (0, duration_s)
    figure.draw_without_rendering()
    assert top.get_position().x1 == pytest.approx(below.get_position().x1)
    lines = np.array(top.collections[0].get_segments())
    assert len(lines) <= 1000
    loudest_s = lines[lines[:, 1, 1].argmax(), 0, 0]
    assert loudest_s == pytest.approx(click_s, abs=duration_s / len(lines) + 0.01)
