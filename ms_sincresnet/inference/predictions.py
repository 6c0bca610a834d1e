"""Predictions: the genre of a song, and how its clips voted."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from ms_sincresnet.nnet.voting import vote


class ClipPrediction(NamedTuple):
    """Prediction for one clip of a song; without a genre if the clip is silent."""

    start_s: float
    end_s: float
    genre: str | None
    posterior: float
    posteriors: dict[str, float]


class SongPrediction(NamedTuple):
    """Prediction for a song.

    Arguments
    ---------
    genre
        Predicted genre.
    shares
        Share of the clips' votes per genre, without silent clips; equal to
        ``posteriors`` if the voting is "mean".
    posteriors
        Mean posterior of the clips per genre.
    clips
        Predictions for the clips, in order of time.
    duration
        Length of the song in s.
    """

    genre: str
    shares: dict[str, float]
    posteriors: dict[str, float]
    clips: list[ClipPrediction]
    duration: float

    def timeline(self) -> pd.DataFrame:
        """Posteriors over time.

        Returns
        -------
        A table with one row per clip, indexed by its centre in s, and one column per
        genre. Rows of silent clips are NaN.

        Example
        -------
        >>> clips = [ClipPrediction(0.0, 3.0, "jazz", 0.9, {"jazz": 0.9, "rock": 0.1})]
        >>> shares, posteriors = {"jazz": 1.0, "rock": 0.0}, clips[0].posteriors
        >>> song = SongPrediction("jazz", shares, posteriors, clips, duration=3.0)
        >>> song.timeline()
             jazz  rock
        1.5   0.9   0.1
        """
        centres_s = [(clip.start_s + clip.end_s) / 2 for clip in self.clips]
        rows = [clip.posteriors for clip in self.clips]
        return pd.DataFrame(rows, centres_s, list(self.shares))


def predict(
    log_posteriors: Tensor,
    audible: Sequence[bool],
    genres: Sequence[str],
    *,
    voting: str,
    clip_s: float,
    hop_s: float,
    duration: float,
) -> SongPrediction:
    """Prediction from log-posteriors [clips, n_genres] of a song's audible clips."""
    index, shares = vote(log_posteriors, voting)
    posteriors = log_posteriors.exp()
    rows = iter(posteriors.tolist())
    clips = []
    for number, is_audible in enumerate(audible):
        start_s = number * hop_s
        span_s = start_s, min(start_s + clip_s, duration)
        if is_audible:
            by_genre = dict(zip(genres, next(rows), strict=True))
            best = max(by_genre, key=by_genre.__getitem__)
            clips.append(ClipPrediction(*span_s, best, by_genre[best], by_genre))
        else:
            clips.append(ClipPrediction(*span_s, None, 0.0, {}))
    return SongPrediction(
        genre=genres[index],
        shares=dict(zip(genres, shares.tolist(), strict=True)),
        posteriors=dict(zip(genres, posteriors.mean(0).tolist(), strict=True)),
        clips=clips,
        duration=duration,
    )
