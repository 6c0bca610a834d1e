import pytest
import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.backends.fft import average, filter_and_pool, spread

each_size = pytest.mark.parametrize(
    ("n_samples", "n_frames"),
    [
        (48000, 1024),  # 47 or 48 samples per frame, neighbours sharing one
        (375, 8),
        (1024, 1024),
        (2048, 1024),  # no sample is shared
        (47750, 1024),  # as with padding="valid"
        (3, 2),
        (5000, 1),
        (47999, 1024),
    ],
)


@each_size
@pytest.mark.parametrize("rest", [0, 96])
def test_averages_are_adaptive_average_pooling(n_samples, n_frames, rest):
    activations = torch.randn(2, 3, n_samples + rest, dtype=torch.float64)
    expected = F.adaptive_avg_pool1d(activations[..., :n_samples], n_frames)
    torch.testing.assert_close(average(activations, n_samples, n_frames), expected)


@each_size
def test_spread_is_the_gradient_of_the_averages(n_samples, n_frames):
    activations = torch.randn(2, 3, n_samples, dtype=torch.float64, requires_grad=True)
    grads = torch.randn(2, 3, n_frames, dtype=torch.float64)
    pooled = F.adaptive_avg_pool1d(activations.relu(), n_frames)
    (expected,) = torch.autograd.grad(pooled, activations, grads)
    found = spread(grads, (activations > 0).double())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("n_samples", "n_frames", "padding"), [(48, 7, 0), (48, 16, 3), (12, 16, 3)]
)
def test_filter_and_pool_has_the_gradient_of_its_output(n_samples, n_frames, padding):
    generator = torch.Generator().manual_seed(1)
    filters = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    offsets = torch.randn(9, generator=generator, dtype=torch.float64)
    wavs = torch.randn(2, n_samples, generator=generator, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda *learned: filter_and_pool(wavs, *learned, n_frames, padding),
        (filters.requires_grad_(), offsets.requires_grad_()),
    )
