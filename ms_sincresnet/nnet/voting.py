"""Log-posteriors of a song's clips to one decision."""

import torch


def vote(log_posteriors, method="majority"):
    """One genre for all clips of a song.

    The paper's section 2: "the classification results of all music clips will be
    summarized by using voting strategy".

    Arguments
    ---------
    log_posteriors : torch.Tensor [clips, genres]
        Log-posteriors of the clips.
    method : str
        "majority": each clip votes for its most likely genre; of genres with equally
        many votes, the one with the larger sum of posteriors wins. "mean": the mean of
        the clips' posteriors.

    Returns
    -------
    index : int
        The genre voted for.
    shares : torch.Tensor [genres]
        Shares of the votes, or mean posteriors; their sum is 1.

    Raises
    ------
    ValueError
        If ``method`` is unknown, or there is no clip to vote.

    Example
    -------
    >>> clips = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]).log()
    >>> vote(clips)  # two clips of three
    (1, tensor([0.3333, 0.6667]))
    >>> vote(clips, method="mean")[0]
    0
    """
    if method not in VOTES:
        raise ValueError(f"method must be one of {', '.join(VOTES)}; got {method!r}")
    if len(log_posteriors) == 0:
        raise ValueError("there is no clip to vote")
    shares, ranking = VOTES[method](log_posteriors.double().exp())
    return int(ranking.argmax()), shares.to(log_posteriors.dtype)


def _majority(posteriors):
    """Vote shares, and a ranking in which less than one vote breaks ties."""
    votes = torch.zeros_like(posteriors).scatter_(1, posteriors.argmax(1)[:, None], 1.0)
    votes, total = votes.sum(0), posteriors.sum(0)
    # Halved, so that the sum of posteriors never outweighs one vote.
    return votes / len(posteriors), votes + total / (2 * total.sum())


def _mean(posteriors):
    """Mean posteriors, which rank the genres themselves."""
    mean = posteriors.mean(0)
    return mean, mean


VOTES = {"majority": _majority, "mean": _mean}


def song_log_posteriors(log_posteriors, method="majority", weight_of_mean=0.01):
    """The vote of a song's clips as log-posteriors of the song.

    Vote shares are 0 where no clip votes and equal where genres tie; a little of the
    mean posterior keeps every logarithm finite and orders ties as ``vote`` does.

    Arguments
    ---------
    log_posteriors : torch.Tensor [clips, genres]
        Log-posteriors of the clips. Without a clip, all genres are as likely.
    method : str
        As in ``vote``.
    weight_of_mean : float
        Weight of the mean posterior in the song's posterior. It is brought under one
        clip's vote, so that it never overrules one.

    Returns
    -------
    torch.Tensor [genres]
        Log-posteriors of the song; the largest is the genre that ``vote`` names.

    Example
    -------
    >>> clips = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]).log()
    >>> song_log_posteriors(clips).argmax().item()
    1
    """
    if len(log_posteriors) == 0:
        return log_posteriors.new_zeros(log_posteriors.shape[1]).log_softmax(0)
    index, shares = vote(log_posteriors, method)
    mean = log_posteriors.double().exp().mean(0)
    weight = min(weight_of_mean, 0.5 / len(log_posteriors))
    song = (1 - weight) * shares + weight * mean
    song = song.clamp_min(torch.finfo(log_posteriors.dtype).tiny).log()
    song = song.log_softmax(0).to(log_posteriors.dtype)
    if song.argmax() != index:  # a tie closer than rounding can show
        song[index] = song.max().nextafter(song.new_tensor(torch.inf))
    return song
