"""Predictions of songs, counted by hand."""

import numpy as np
import pytest
import torch

from ms_sincresnet.inference.predictions import ClipPrediction, predict
from ms_sincresnet.nnet.voting import song_log_posteriors

GENRES = ["jazz", "rock", "pop"]
TIMES = {"clip_s": 3.0, "hop_s": 0.5, "duration": 5.25}
CLIPS = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.3, 0.7, 0.0]]).log()
MEAN = {"jazz": 1.6 / 3, "rock": 1.4 / 3, "pop": 0}
AUDIBLE = [True, False, True, False, True]


@pytest.mark.parametrize(
    ("voting", "genre", "shares"),
    [
        ("majority", "rock", {"jazz": 1 / 3, "rock": 2 / 3, "pop": 0}),
        ("mean", "jazz", MEAN),
    ],
)
def test_the_clips_decide_and_a_temperature_calibrates_the_song(voting, genre, shares):
    how = {"voting": voting, **TIMES}
    song = predict(CLIPS, AUDIBLE, GENRES, **how)
    assert (song.genre, song.duration) == (genre, 5.25)
    assert song.shares == pytest.approx(shares, abs=1e-6)
    assert song.posteriors == pytest.approx(MEAN, abs=1e-6)

    sure = predict(CLIPS, AUDIBLE, GENRES, **how, temperature=0.5)
    expected = song_log_posteriors(CLIPS, voting, 0.5).exp()
    assert list(sure.posteriors.values()) == pytest.approx(expected.tolist())
    assert max(sure.posteriors, key=sure.posteriors.get) == sure.genre == genre
    assert sure.clips == song.clips
    assert sure.shares == (sure.posteriors if voting == "mean" else song.shares)


def test_silent_clips_keep_their_place_in_time():
    song = predict(CLIPS, AUDIBLE, GENRES, voting="majority", **TIMES)
    clips = song.clips
    spans = [(0, 3), (0.5, 3.5), (1, 4), (1.5, 4.5), (2, 5)]
    assert [(clip.start_s, clip.end_s) for clip in clips] == spans
    assert [clip.genre for clip in clips] == ["jazz", None, "rock", None, "rock"]
    assert [clip.posterior for clip in clips] == pytest.approx([0.9, 0, 0.6, 0, 0.7])
    assert clips[1] == ClipPrediction(0.5, 3.5, None, 0.0, {})
    expected = {"jazz": 0.4, "rock": 0.6, "pop": 0.0}
    assert clips[2].posteriors == pytest.approx(expected)

    table = song.timeline()
    assert table.index.tolist() == [1.5, 2.0, 2.5, 3.0, 3.5]
    silence = [np.nan] * 3
    expected = [[0.9, 0.1, 0], silence, [0.4, 0.6, 0], silence, [0.3, 0.7, 0]]
    np.testing.assert_allclose(table, expected, atol=1e-6)


def test_a_song_shorter_than_a_clip_ends_where_it_ends():
    times = TIMES | {"duration": 0.25}
    song = predict(CLIPS[:1], [True], GENRES, voting="majority", **times)
    assert song.clips[0][:3] == (0.0, 0.25, "jazz")
