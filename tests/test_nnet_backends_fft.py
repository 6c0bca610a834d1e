import pytest
import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.backends.fft import average, filter_and_pool, spread


@pytest.mark.parametrize(
    ("n_samples", "n_frames"),
    [
        (48000, 1024),  # 47 or 48 samples per frame, neighbours sharing one
        (2048, 1024),  # no sample is shared
        (47750, 1024),  # as with padding="valid"
        *((1024, 1024), (375, 8), (3, 2), (5000, 1), (47999, 1024)),
    ],
)
def test_averages_and_their_gradient_are_of_adaptive_pooling(n_samples, n_frames):
    activations = torch.randn(2, 3, n_samples, dtype=torch.float64, requires_grad=True)
    grads = torch.randn(2, 3, n_frames, dtype=torch.float64)
    expected = F.adaptive_avg_pool1d(activations.relu(), n_frames)
    for rest in (0, 96):
        longer = F.pad(activations.detach().relu(), (0, rest))
        torch.testing.assert_close(average(longer, n_samples, n_frames), expected)
    (expected,) = torch.autograd.grad(expected, activations, grads)
    found = spread(grads, (activations > 0).double())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("n_samples", "n_frames", "padding"), [(40, 7, 0), (32, 16, 3), (12, 16, 3)]
)
def test_filter_and_pool_has_the_gradient_of_its_output(n_samples, n_frames, padding):
    generator = torch.Generator().manual_seed(1)
    filters = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    offsets = torch.randn(9, generator=generator, dtype=torch.float64)
    wavs = torch.randn(2, n_samples, generator=generator, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda *learned: filter_and_pool(wavs, *learned, n_frames, padding),
        (filters.requires_grad_(), offsets.requires_grad_()),
        fast_mode=True,
    )
