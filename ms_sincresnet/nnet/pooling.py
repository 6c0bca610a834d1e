"""Spatial pyramid pooling: one vector of a volume of any size."""

import torch
from torch import nn
from torch.nn import functional as F


class SpatialPyramidPooling(nn.Module):
    """Averages of the whole volume and of its blocks, channel by channel.

    The paper's section 2.2.4 and Fig. 3: 512 @ 5 × 32 becomes 512 @ 1 × 1 (global)
    and 512 @ 2 × 2 (local), 2560 numbers. Blocks are split as
    ``adaptive_avg_pool2d`` splits them: of five rows, the middle one lies in both.

    Arguments
    ---------
    levels : tuple of int
        Each level cuts frequency and time into that many parts.

    Example
    -------
    >>> SpatialPyramidPooling()(torch.zeros(4, 512, 5, 32)).shape
    torch.Size([4, 2560])
    """

    def __init__(self, levels=(1, 2)):
        super().__init__()
        self.levels = tuple(levels)

    def forward(self, volume):
        """Pools a batch of volumes.

        Arguments
        ---------
        volume : torch.Tensor [batch, channels, frequency, time]
            The last volume of a convolutional network.

        Returns
        -------
        torch.Tensor [batch, channels · Σ level²]
            Level by level; within a level block by block, row by row; within a
            block channel by channel.
        """
        pooled = [F.adaptive_avg_pool2d(volume, level) for level in self.levels]
        return torch.cat([p.flatten(2).mT.flatten(1) for p in pooled], dim=1)

    def output_size(self, channels):
        """Numbers that come out for a volume of so many channels.

        Arguments
        ---------
        channels : int
            Channels of the volume.

        Returns
        -------
        int
            channels · Σ level².

        Example
        -------
        >>> SpatialPyramidPooling().output_size(512)
        2560
        """
        return channels * sum(level**2 for level in self.levels)
