"""Log-posteriors of a song's clips to one decision."""

import torch
from torch import Tensor


def vote(log_posteriors: Tensor, method: str = "majority") -> tuple[int, Tensor]:
    """One genre for all clips of a song.

    The paper's section 2: "the classification results of all music clips will be
    summarized by using voting strategy".

    Arguments
    ---------
    log_posteriors
        Log-posteriors [clips, genres] of the clips.
    method
        "majority": each clip votes for its most likely genre; a tie goes to the larger
        sum of posteriors. "mean": the mean of the clips' posteriors.

    Returns
    -------
    The winning genre's index, and shares [genres] of the votes, or mean posteriors;
    they sum to 1.

    Raises
    ------
    ValueError
        If ``method`` is unknown, or there are no clips.

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
    shares, ranking = VOTES[method](_posteriors(log_posteriors))
    return int(ranking.argmax()), shares.to(log_posteriors)


def _posteriors(log_posteriors: Tensor) -> Tensor:
    """Posteriors in float64, on the CPU, since not every device has it."""
    return log_posteriors.cpu().double().exp()


def _majority(posteriors: Tensor) -> tuple[Tensor, Tensor]:
    """Vote shares, and a ranking in which less than one vote breaks ties."""
    votes = torch.zeros_like(posteriors).scatter_(1, posteriors.argmax(1)[:, None], 1.0)
    votes, total = votes.sum(0), posteriors.sum(0)
    # Halved, so that the sum of posteriors never outweighs one vote.
    return votes / len(posteriors), votes + total / (2 * total.sum())


def _mean(posteriors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean posteriors, which also rank the genres."""
    mean = posteriors.mean(0)
    return mean, mean


VOTES = {"majority": _majority, "mean": _mean}


def song_log_posteriors(
    log_posteriors: Tensor, method: str = "majority", weight_of_mean: float = 0.01
) -> Tensor:
    """A song's log-posteriors [genres]; their largest is the genre that ``vote`` names.

    Vote shares are 0 for a genre without votes and equal in a tie; a little of the mean
    posterior keeps every logarithm finite and orders ties as ``vote`` does. Its weight
    is kept below one clip's vote, so that it never overrules one. Without clips, all
    genres are equally likely.
    """
    if len(log_posteriors) == 0:
        return log_posteriors.new_zeros(log_posteriors.shape[1]).log_softmax(0)
    index, shares = vote(log_posteriors, method)
    mean = _posteriors(log_posteriors).mean(0)
    weight = min(weight_of_mean, 0.5 / len(log_posteriors))
    song = (1 - weight) * shares.cpu() + weight * mean
    song = song.clamp_min(torch.finfo(log_posteriors.dtype).tiny).log()
    song = song.log_softmax(0).to(log_posteriors)
    if song.argmax() != index:  # a tie closer than rounding can show
        song[index] = song.max().nextafter(song.new_tensor(torch.inf))
    return song
