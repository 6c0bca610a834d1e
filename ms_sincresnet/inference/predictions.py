"""Predictions: the genre of a song, and how its clips voted."""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from ms_sincresnet.nnet.voting import song_log_posteriors, vote


class ClipPrediction(NamedTuple):
    """Prediction for one clip of a song; without a genre if the clip is silent."""

    start_s: float
    end_s: float
    genre: str | None
    posterior: float
    posteriors: dict[str, float]


class SongPrediction(NamedTuple):
    """Prediction for a song, and for each of its clips.

    Arguments
    ---------
    genre
        Predicted genre.
    shares, posteriors
        Shares of the audible clips' votes, and their mean posteriors, by genre; both
        are the latter if the voting is "mean". If the model has a temperature,
        posteriors are calibrated ones of the song.
    clips, duration
        Predictions for the clips in order of time; length of the song in s.
    unlike
        Above 1, the sound is unlike 99 % of the songs that the model was tested on;
        None if the model does not know.

    Example
    -------
    >>> clips = [ClipPrediction(0.0, 3.0, "jazz", 0.9, {"jazz": 0.9, "rock": 0.1})]
    >>> shares, posteriors = {"jazz": 1.0, "rock": 0.0}, clips[0].posteriors
    >>> SongPrediction("jazz", shares, posteriors, clips, duration=3.0).timeline()
         jazz  rock
    1.5   0.9   0.1
    """

    genre: str
    shares: dict[str, float]
    posteriors: dict[str, float]
    clips: list[ClipPrediction]
    duration: float
    unlike: float | None = None

    def timeline(self) -> pd.DataFrame:
        """Posteriors by genre and by the centre of a clip in s; NaN in silence."""
        centres_s = [(clip.start_s + clip.end_s) / 2 for clip in self.clips]
        rows = [clip.posteriors for clip in self.clips]
        return pd.DataFrame(rows, centres_s, list(self.shares))


def predict(
    log_posteriors: Tensor,
    audible: Sequence[bool],
    genres: Sequence[str],
    voting: str,
    clip_s: float,
    hop_s: float,
    duration: float,
    temperature: float | None = None,
) -> SongPrediction:
    """Prediction from log-posteriors [clips, n_genres] of a song's audible clips."""
    index, shares = vote(log_posteriors, voting)
    posteriors = log_posteriors.exp()
    mean = posteriors.mean(0)
    if temperature is not None:
        mean = song_log_posteriors(log_posteriors, voting, temperature).exp()
        shares = mean if voting == "mean" else shares
    by_genre, of_song, *rows = (
        dict(zip(genres, values.tolist(), strict=True))
        for values in (shares, mean, *posteriors)
    )
    scored = iter(rows)
    clips = []
    for number, is_audible in enumerate(audible):
        row = next(scored) if is_audible else {}
        best, posterior = max(row.items(), key=itemgetter(1), default=(None, 0.0))
        start_s = min(number * hop_s, max(duration - clip_s, 0.0))
        span = start_s, min(start_s + clip_s, duration)
        clips.append(ClipPrediction(*span, best, posterior, row))
    return SongPrediction(genres[index], by_genre, of_song, clips, duration)
