"""Augmentations of clips, active in training only (the paper's section 2.3)."""

import torch
from torch import Tensor, nn


class RandomGain(nn.Module):
    """Multiplies each clip by a random gain, which the network's layer norm undoes.

    Arguments
    ---------
    low, high
        Bounds of the gain.

    Example
    -------
    >>> gain = RandomGain().eval()
    >>> gain(torch.ones(1, 3))
    tensor([[1., 1., 1.]])
    """

    def __init__(self, low: float = 0.9, high: float = 1.1):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, wavs: Tensor) -> Tensor:
        """Scaled clips [batch, time] in training, the same clips in evaluation."""
        if not self.training:
            return wavs
        return wavs * torch.empty_like(wavs[:, :1]).uniform_(self.low, self.high)


class GaussianNoise(nn.Module):
    """Adds white Gaussian noise. The paper does not give the scale of its σ = 0.02.

    Arguments
    ---------
    std
        Standard deviation of the noise.
    relative
        True if ``std`` is relative to the clip's root mean square, False if it is in
        units of the samples.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> noisy = GaussianNoise(std=0.5)(torch.ones(1, 100000))
    >>> round(noisy.std().item(), 2)
    0.5
    """

    def __init__(self, std: float = 0.02, relative: bool = True):
        super().__init__()
        self.std, self.relative = std, relative

    def forward(self, wavs: Tensor) -> Tensor:
        """Noisy clips [batch, time] in training, the same clips in evaluation."""
        if not self.training:
            return wavs
        noise = torch.randn_like(wavs) * self.std
        if self.relative:
            noise = noise * wavs.square().mean(1, keepdim=True).sqrt()
        return wavs + noise
