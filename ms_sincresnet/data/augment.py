"""Augmentations of clips, active in training only."""

import torch
from torch import nn


class RandomGain(nn.Module):
    """Multiplies each clip by a random gain.

    The paper's section 2.3. Behind the network's layer norm a gain alone changes
    nothing; it does where noise of fixed size is added, or without a layer norm.

    Arguments
    ---------
    low : float
        Least gain.
    high : float
        Greatest gain.

    Example
    -------
    >>> gain = RandomGain().eval()
    >>> gain(torch.ones(1, 3))
    tensor([[1., 1., 1.]])
    """

    def __init__(self, low=0.9, high=1.1):
        super().__init__()
        if low > high:
            raise ValueError(f"low must not exceed high; got {low} and {high}")
        self.low, self.high = low, high

    def forward(self, wavs):
        """Multiplies in training, passes in evaluation.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips.

        Returns
        -------
        torch.Tensor [batch, time]
            Clips.
        """
        if not self.training:
            return wavs
        gains = torch.empty_like(wavs[:, :1]).uniform_(self.low, self.high)
        return wavs * gains


class GaussianNoise(nn.Module):
    """Adds white Gaussian noise.

    The paper's section 2.3, σ = 0.02, whose scale it does not say. Here it is the
    clip's root mean square, that is the scale of the normalised input.

    Arguments
    ---------
    std : float
        Standard deviation of the noise.
    relative : bool
        Whether ``std`` is in units of the clip's root mean square; else in units of
        the samples.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> noisy = GaussianNoise(std=0.5)(torch.ones(1, 100000))
    >>> round(noisy.std().item(), 2)
    0.5
    """

    def __init__(self, std=0.02, relative=True):
        super().__init__()
        if std < 0:
            raise ValueError(f"std must not be negative; got {std}")
        self.std, self.relative = std, relative

    def forward(self, wavs):
        """Adds noise in training, passes in evaluation.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips.

        Returns
        -------
        torch.Tensor [batch, time]
            Clips.
        """
        if not self.training:
            return wavs
        noise = torch.randn_like(wavs) * self.std
        if self.relative:
            noise = noise * wavs.square().mean(1, keepdim=True).sqrt()
        return wavs + noise
