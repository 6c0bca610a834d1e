"""Mean and variance of filters' outputs, against those of the outputs."""

import pytest
import torch
from torch.nn import functional as F

from ms_sincresnet.nnet.filtering import output_statistics


def waveforms(n_samples):
    """Noise with a mean and a tone, in float64."""
    generator = torch.Generator().manual_seed(0)
    wavs = torch.randn(3, n_samples, generator=generator, dtype=torch.float64)
    tone = torch.sin(0.17 * torch.arange(n_samples))
    return wavs + tone + torch.tensor([[0.5], [0.0], [-3.0]])


@pytest.mark.parametrize(
    ("n_samples", "padding"),
    [
        *((5000, 125), (5000, 0), (5000, 60), (5000, 250)),
        *((251, 125), (251, 0), (250, 60), (131, 60)),
        *((126, 125), (125, 125), (124, 125), (3, 125)),  # half a filter, and less
    ],
)
def test_moments_are_those_of_the_output(n_samples, padding):
    wavs = waveforms(n_samples)
    filters = torch.randn(11, 251, dtype=torch.float64)
    output = F.conv1d(wavs[:, None], filters[:, None], padding=padding)
    variance, mean = torch.var_mean(output, dim=(0, 2), correction=0)
    found = output_statistics(wavs, filters, padding)
    rounding = {"rtol": 1e-9, "atol": 1e-9 * output.square().mean().item()}
    torch.testing.assert_close(found[0], mean, **rounding)
    torch.testing.assert_close(found[1], variance, **rounding)


def test_moments_have_the_gradient_of_the_output():
    wavs = waveforms(40)
    for padding in (0, 1, 3):
        filters = torch.rand(2, 7, dtype=torch.float64, requires_grad=True)
        torch.autograd.gradcheck(
            lambda filters, p=padding: output_statistics(wavs, filters, p), filters
        )
