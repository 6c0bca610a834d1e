"""The ResNet's trunk on ncnn: the same volumes as PyTorch's."""

import copy

import pytest
import torch

from ms_sincresnet import GenreClassifier, ResNetEmbedding
from ms_sincresnet.errors import UserError
from ms_sincresnet.nnet.winograd import WinogradTrunk, use_winograd

from .small_models import trained_resnet


@pytest.fixture(scope="module")
def embeddings():
    """The same embedding in PyTorch and on ncnn."""
    torch.manual_seed(0)
    embedding = trained_resnet(ResNetEmbedding()).requires_grad_(False)
    fast = copy.deepcopy(embedding)
    use_winograd(fast)
    assert fast.fast_trunk is not None
    return embedding, fast


# The last stage takes clips as one image: groups of clips, and even and odd heights.
@pytest.mark.parametrize("height", [160, 100, 8])
@pytest.mark.parametrize("n_clips", [1, 3, 9])
def test_embeddings_are_those_of_pytorch(embeddings, n_clips, height):
    maps = torch.randn(n_clips, 3, height, 96)
    with torch.no_grad():
        expected, found = (embedding(maps) for embedding in embeddings)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)


def test_a_clip_that_is_not_finite_leaves_its_neighbours_alone(embeddings):
    maps = torch.randn(5, 3, 160, 96)
    with torch.no_grad():
        expected = embeddings[1](maps)
        maps[2, 0, 0, 0] = torch.nan
        found = embeddings[1](maps)
    assert not found[2].isfinite().any()
    kept = [0, 1, 3, 4]
    torch.testing.assert_close(found[kept], expected[kept], rtol=0, atol=0)


def test_gradients_and_other_blocks_are_left_to_pytorch(embeddings):
    maps = torch.randn(1, 3, 160, 96, requires_grad=True)
    embeddings[1](maps).sum().backward()
    assert maps.grad.abs().sum() > 0
    bottlenecks = ResNetEmbedding("resnet50").eval()
    use_winograd(bottlenecks)
    assert bottlenecks.fast_trunk is None


@pytest.mark.parametrize("n_models", [1, 2])
def test_classifiers_take_winograd_as_a_precision(model_folder, n_models):
    source = [model_folder] * n_models if n_models > 1 else model_folder
    plain, fast = (
        GenreClassifier.from_hparams(source, run_opts={"device": "cpu"} | options)
        for options in ({}, {"precision": "winograd"})
    )
    assert fast.precision == "winograd"
    embeddings = [m for m in fast.mods.modules() if isinstance(m, ResNetEmbedding)]
    assert len(embeddings) == n_models
    assert all(isinstance(each.fast_trunk, WinogradTrunk) for each in embeddings)
    wavs = torch.randn(2, 64000)
    (expected, *_, genres), (found, *_, names) = (
        classifier.classify_batch(wavs) for classifier in (plain, fast)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert names == genres


def test_winograd_needs_a_cpu():
    run_opts = {"device": "meta", "precision": "winograd"}
    with pytest.raises(UserError, match="winograd needs a CPU; got meta"):
        GenreClassifier({}, {"label_encoder": None}, run_opts=run_opts)
