"""A timeline shows each clip at its time, below the song's envelope."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from ms_sincresnet.plots.timeline import plot_timeline, read_envelope


def test_each_moment_has_the_posteriors_of_the_nearest_clip():
    random = np.random.default_rng(0)
    values = random.dirichlet((4, 1, 1, 2), 24)
    genres = ["rock", "blues", "metal", "jazz"]
    posteriors = pd.DataFrame(values, 1.5 + 0.5 * np.arange(24), genres)
    axes = plot_timeline(posteriors, 14.5, "a song").axes[0]
    assert axes.get_title() == "a song"
    assert axes.get_xlabel() == "time (s)"
    assert axes.get_xlim() == (0, 14.5)
    named = [label.get_text() for label in axes.get_yticklabels()]
    order = [genres.index(name) for name in named]
    assert sorted(order) == [0, 1, 2, 3]
    assert (np.diff(values.mean(0)[order]) >= 0).all()
    mesh = axes.collections[0]
    assert (mesh.get_array().reshape(4, 24) == values[:, order].T).all()
    edges_s = mesh.get_coordinates()[0, :, 0]
    assert edges_s[:2].tolist() == [0, 1.75] and edges_s[-2:].tolist() == [12.75, 14.5]
    (dots,) = axes.lines
    assert dots.get_xdata().tolist() == posteriors.index.tolist()
    likeliest = [genres[n] for n in values.argmax(1)]
    assert [named[row] for row in dots.get_ydata()] == likeliest


def test_silent_clips_are_left_blank():
    clips = {"jazz": [0.8, np.nan, 0.3], "rock": [0.2, np.nan, 0.7]}
    axes = plot_timeline(pd.DataFrame(clips, index=[1.5, 2.0, 2.5]), 4.0).axes[0]
    (dots,) = axes.lines
    assert dots.get_xdata().tolist() == [1.5, 2.5]
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert [named[row] for row in dots.get_ydata()] == ["jazz", "rock"]
    blank = np.ma.getmaskarray(axes.collections[0].get_array()).reshape(2, 3)
    assert blank.tolist() == [[False, True, False]] * 2


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


@pytest.mark.parametrize("envelope", [None, pd.Series([0.1, 0.5], [0.0, 0.01])])
def test_names_are_not_formulas(envelope):
    genres = [r"a$\b$", "$x$"]
    posteriors = pd.DataFrame([[0.1, 0.9]], [1.5], genres)
    figure = plot_timeline(posteriors, 3.0, r"a$\b$.wav", envelope)
    figure.draw_without_rendering()
    assert figure.axes[0].get_title() == r"a$\b$.wav"
    timeline = figure.axes[0 if envelope is None else 1]
    assert [label.get_text() for label in timeline.get_yticklabels()] == genres
