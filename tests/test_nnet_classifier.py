"""Embeddings to log-posteriors, against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from ms_sincresnet.nnet.resnet import GenreMLP


def embeddings(size=2560):
    """Embeddings of four clips of two songs."""
    return torch.randn(2, 4, size, generator=torch.Generator().manual_seed(0))


def numpy_log_posteriors(values, layers):
    """Linear layers with ReLUs between them, then log-softmax, in float64."""
    values = values.double().numpy()
    for nth, layer in enumerate(layers):
        values = np.maximum(values, 0) if nth else values
        weight, bias = (p.detach().double().numpy() for p in layer.parameters())
        values = values @ weight.T + bias
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


@pytest.mark.parametrize(
    ("hidden_size", "shapes"),
    [
        (512, [(512, 2560), (10, 512)]),
        (64, [(64, 2560), (10, 64)]),
        (None, [(10, 2560)]),
    ],
)
def test_log_posteriors_are_numpys(hidden_size, shapes):
    classifier = GenreMLP(hidden_size=hidden_size)
    layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == shapes
    found = classifier(embeddings()).detach()
    assert found.shape == (2, 4, 10)
    expected = numpy_log_posteriors(embeddings(), layers)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_posteriors_sum_to_one():
    classifier = GenreMLP(input_size=8, n_genres=6)
    posteriors = classifier(1000 * embeddings(8)).exp()
    assert posteriors.shape == (2, 4, 6)
    torch.testing.assert_close(posteriors.sum(-1), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("model_dtype", "autocast", "expected"),
    [
        (torch.float32, False, torch.float32),
        (torch.float32, True, torch.float32),
        (torch.bfloat16, False, torch.float32),
        (torch.float64, False, torch.float64),
    ],
)
def test_log_posteriors_are_of_single_precision_at_least(
    model_dtype, autocast, expected
):
    classifier = GenreMLP(input_size=8).to(model_dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        posteriors = classifier(embeddings(8).to(model_dtype)).exp()
    assert posteriors.dtype == expected
    assert (posteriors.sum(-1) - 1).abs().max() < 1e-5  # bfloat16 would miss by 4e-3
