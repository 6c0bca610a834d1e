"""Log-posteriors of a song's clips to one decision."""

import torch
from torch import Tensor

VOTES = ("majority", "mean")


def vote(log_posteriors: Tensor, method: str = "majority") -> tuple[int, Tensor]:
    """One genre for all clips of a song.

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
    posteriors = _posteriors(log_posteriors)
    shares = ranking = posteriors.mean(0)
    if method == "majority":
        votes = posteriors.argmax(1).bincount(minlength=len(shares)).double()
        shares, total = votes / len(posteriors), posteriors.sum(0)
        # Halved, so that the sum of posteriors never outweighs one vote.
        ranking = votes + total / (2 * total.sum())
    return int(ranking.argmax()), shares.to(log_posteriors)


def _posteriors(log_posteriors: Tensor) -> Tensor:
    """Posteriors in float64, on the CPU, since not every device has it."""
    return log_posteriors.cpu().double().exp()


def song_log_posteriors(
    log_posteriors: Tensor, method: str = "majority", temperature: float | None = None
) -> Tensor:
    """A song's log-posteriors [genres]; their largest is the genre that ``vote`` names.

    A little of the mean posterior, less than one vote, keeps the logarithm of genres
    without votes finite. Without clips, all genres are equally likely. ``temperature``
    calibrates them (see ``nnet.calibration``).
    """
    if len(log_posteriors) == 0:
        return log_posteriors.new_zeros(log_posteriors.shape[1]).log_softmax(0)
    index, shares = vote(log_posteriors, method)
    weight = min(0.01, 0.5 / len(log_posteriors))
    song = (1 - weight) * shares.cpu() + weight * _posteriors(log_posteriors).mean(0)
    song = song.clamp_min(torch.finfo(log_posteriors.dtype).tiny).log()
    song = (song / (temperature or 1)).log_softmax(0).to(log_posteriors)
    if song.argmax() != index:  # a tie closer than rounding can show
        song[index] = song.max().nextafter(song.new_tensor(torch.inf))
    return song
