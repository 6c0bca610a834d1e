"""Ways to filter, what tests compare them with, and clips to filter."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ms_sincresnet.nnet.backends import simd

needs_compiler = pytest.mark.skipif(
    simd.LIBRARY is None, reason="installed without a C compiler"
)
FAST = ["fft", pytest.param("simd", marks=needs_compiler)]


def white_noise(*shape, seed=0):
    """Noise of variance 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def music(*shape):
    """Noise with a tone and an offset in it, as loud as music is."""
    tone = torch.sin(0.17 * torch.arange(shape[-1]))
    return 0.1 * white_noise(*shape) + 0.3 * tone + 0.02


def trained(module):
    """A module whose batch norms have statistics, and weights of both signs and 0."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.1, 4)
            nn.init.normal_(norm.bias, std=0.5)
            norm.weight.data = torch.linspace(-2, 2, norm.num_features).round()
    return module


def filter_and_pool(wavs, filters, offsets, n_frames, padding=0):
    """The definition of what each backend has under this name."""
    filtered = F.conv1d(wavs[:, None], filters[:, None], offsets, padding=padding)
    return F.adaptive_avg_pool1d(filtered.relu(), n_frames)


def maps_and_gradients(function, factors, *arguments, scale=1.0, **options):
    """Maps of clips, filters and offsets, and the gradients of a random sum of them."""
    wavs, *learned = factors
    learned = [x.detach().requires_grad_() for x in learned]
    maps = function(wavs, *learned, *arguments, **options)
    maps.backward(scale * white_noise(*maps.shape, seed=1).to(maps))
    return maps.detach(), *(x.grad for x in learned)
