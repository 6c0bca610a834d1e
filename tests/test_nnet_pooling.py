"""Spatial pyramid pooling against averages of slices."""

import numpy as np
import pytest
import torch

from ms_sincresnet.nnet.resnet import SpatialPyramidPooling


def volume(*shape):
    """A volume of random numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def averages(values, rows, columns):
    """The average of one block of every channel."""
    return values[:, :, rows, columns].mean((2, 3))


def test_the_papers_pooling_is_plain_averages_of_blocks():
    values = volume(2, 512, 5, 32)
    numbers = values.double().numpy()
    upper, lower = slice(0, 3), slice(2, 5)  # the middle of five rows lies in both
    left, right = slice(0, 16), slice(16, 32)
    expected = np.concatenate(
        [
            averages(numbers, slice(None), slice(None)),
            averages(numbers, upper, left),
            averages(numbers, upper, right),
            averages(numbers, lower, left),
            averages(numbers, lower, right),
        ],
        axis=1,
    )
    pooled = SpatialPyramidPooling()(values)
    assert pooled.shape == (2, 2560)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-6)


def test_channels_last_changes_nothing():
    values = volume(2, 7, 5, 32)
    pooling = SpatialPyramidPooling()
    pooled = pooling(values.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(pooled, pooling(values))


@pytest.mark.parametrize(
    ("levels", "size"), [((1,), 3), ((1, 2), 15), ([1, 2, 3], 42), ((2,), 12)]
)
def test_levels_can_be_chosen(levels, size):
    values = volume(2, 3, 6, 12)
    pooling = SpatialPyramidPooling(levels)
    assert pooling.output_size(3) == size
    expected = [
        values[
            :, :, 6 * row // n : 6 * (row + 1) // n, 12 * col // n : 12 * (col + 1) // n
        ].mean((2, 3))
        for n in levels
        for row in range(n)
        for col in range(n)
    ]
    torch.testing.assert_close(pooling(values), torch.cat(expected, dim=1))


def test_the_number_of_features_does_not_depend_on_the_volume():
    pooling = SpatialPyramidPooling()
    for shape in [(5, 32), (1, 1), (10, 7)]:
        assert pooling(volume(1, 4, *shape)).shape == (1, 20)
