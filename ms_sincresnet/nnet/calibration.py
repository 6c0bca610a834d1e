"""Calibration of posteriors: of songs with a posterior of 0.7, 7 in 10 are right."""

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy


def fit_temperature(log_posteriors: Any, labels: Any) -> float:
    """The temperature that calibrates songs that were not used for training.

    C. Guo et al., "On calibration of modern neural networks", ICML 2017. A prior (the
    logarithm is normal around 0 with a deviation of 0.5) keeps it moderate if songs are
    few or all right, and hardly matters for a hundred.

    Arguments
    ---------
    log_posteriors
        Log-posteriors [songs, genres] after the vote.
    labels
        Indices [songs] of the true genres.

    Returns
    -------
    A number by which to divide log-posteriors before they are normalised again: above
    1 if the model is too sure, below 1 if it is not sure enough.

    Raises
    ------
    ValueError
        If there are no songs.

    Example
    -------
    >>> songs = torch.tensor([[0.99, 0.01]]).log().expand(100, 2)
    >>> labels = torch.arange(100) % 10 == 0  # sure at 99 %, right at 90 %
    >>> round(fit_temperature(songs, labels), 2)
    1.97
    """
    scores = torch.as_tensor(log_posteriors).detach().cpu().double()
    scores = scores.clamp_min(math.log(torch.finfo(torch.float32).tiny))
    targets = torch.as_tensor(labels).cpu().long()
    if len(scores) == 0:
        raise ValueError("there is no song to calibrate with")

    def loss(log_temperature: float) -> float:
        losses = cross_entropy(scores / math.exp(log_temperature), targets)
        return losses.item() + 2 * log_temperature**2 / len(scores)

    return math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)


def calibration_error(confidence: Any, right: Any, n_bins: int = 10) -> float:
    """Expected calibration error: how far confidence is from accuracy in the mean.

    Arguments
    ---------
    confidence
        Posteriors [songs] of the predicted genres.
    right
        True [songs] where the prediction is right.
    n_bins
        Number of bins of equal width, whose gaps are weighted by their songs.

    Returns
    -------
    A number from 0 to 1.

    Example
    -------
    >>> calibration_error([0.75, 0.75, 0.75, 0.75], [True, True, True, False])
    0.0
    >>> calibration_error([1.0, 1.0], [True, False])
    0.5
    """
    confidence = np.asarray(confidence, dtype=float)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, np.asarray(right, dtype=float) - confidence)
    return float(np.abs(gaps).sum() / len(confidence))
