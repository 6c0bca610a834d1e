"""What a song was taken for, and by which of its clips."""

from typing import NamedTuple

import pandas as pd

from ms_sincresnet.nnet.voting import vote


class ClipPrediction(NamedTuple):
    """What one clip of a song was taken for.

    Arguments
    ---------
    start_s : float
        Where the clip starts, in s.
    end_s : float
        Where it ends, in s, or where the song does.
    genre : str or None
        Its most likely genre; None if it is silent.
    posterior : float
        How likely, from 0 to 1.
    posteriors : dict of str to float
        How likely each genre is; empty if the clip is silent.
    """

    start_s: float
    end_s: float
    genre: str | None
    posterior: float
    posteriors: dict


class SongPrediction(NamedTuple):
    """What a song was taken for, and by which of its clips.

    Arguments
    ---------
    genre : str
        The genre voted for.
    shares : dict of str to float
        Each genre's share of the clips' votes, silent clips aside; with the voting
        "mean", the same as ``posteriors``.
    posteriors : dict of str to float
        Each genre's posterior, the mean of the clips'.
    clips : list of ClipPrediction
        The clips in the order of time: the song's timeline.
    duration : float
        Length of the song, in s.
    """

    genre: str
    shares: dict
    posteriors: dict
    clips: list
    duration: float

    def timeline(self):
        """The clips as a table: how likely each genre is over the song's time.

        Returns
        -------
        pandas.DataFrame
            A row a clip, by the time of its middle in s; a column a genre. NaN for
            silent clips.

        Example
        -------
        >>> clips = [ClipPrediction(0.0, 3.0, "jazz", 0.9, {"jazz": 0.9, "rock": 0.1})]
        >>> shares, posteriors = {"jazz": 1.0, "rock": 0.0}, clips[0].posteriors
        >>> song = SongPrediction("jazz", shares, posteriors, clips, duration=3.0)
        >>> song.timeline()
             jazz  rock
        1.5   0.9   0.1
        """
        middles_s = [(clip.start_s + clip.end_s) / 2 for clip in self.clips]
        rows = [clip.posteriors for clip in self.clips]
        return pd.DataFrame(rows, middles_s, list(self.shares))


def predict(log_posteriors, heard, genres, *, voting, clip_s, hop_s, duration):
    """Makes a prediction of a song's clips.

    Arguments
    ---------
    log_posteriors : torch.Tensor [clips heard, n_genres]
        Of the clips that are not silent; one at least.
    heard : list of bool
        Of each clip, whether it is not silent.
    genres : list of str
        Names of the genres.
    voting : str
        "majority" or "mean", as in ``vote``.
    clip_s : float
        Length of a clip, in s.
    hop_s : float
        Time from the start of one clip to the next, in s.
    duration : float
        Length of the song, in s.

    Returns
    -------
    SongPrediction
        Vote and clips.

    Example
    -------
    >>> import torch
    >>> log_posteriors = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]).log()
    >>> times = {"clip_s": 3.0, "hop_s": 0.5, "duration": 5.0}
    >>> heard = [True, True, False, True]
    >>> song = predict(log_posteriors, heard, ["a", "b"], voting="majority", **times)
    >>> song.genre, [clip.genre for clip in song.clips]
    ('b', ['a', 'b', None, 'b'])
    """
    index, shares = vote(log_posteriors, voting)
    posteriors = log_posteriors.exp()
    votes = zip(log_posteriors.argmax(1).tolist(), posteriors.tolist(), strict=True)
    clips = []
    for number, is_heard in enumerate(heard):
        start_s = number * hop_s
        span_s = start_s, min(start_s + clip_s, duration)
        if is_heard:
            winner, likely = next(votes)
            by_genre = dict(zip(genres, likely, strict=True))
            clip = ClipPrediction(*span_s, genres[winner], likely[winner], by_genre)
        else:
            clip = ClipPrediction(*span_s, None, 0.0, {})
        clips.append(clip)
    return SongPrediction(
        genre=genres[index],
        shares=dict(zip(genres, shares.tolist(), strict=True)),
        posteriors=dict(zip(genres, posteriors.mean(0).tolist(), strict=True)),
        clips=clips,
        duration=duration,
    )
