"""Batch norms that share statistics; test_training_distributed.py has two processes."""

import copy

import pytest
import torch
from torch import nn

from ms_sincresnet.nnet.filtering import filtered_maps
from ms_sincresnet.nnet.sync_batch_norm import (
    SharedBatchNorm1d,
    SharedBatchNorm2d,
    share_statistics,
    update_running_statistics,
)

from .backends import FAST

SHAPES = {"1d": (4, 8), "1d over time": (4, 8, 30), "2d": (4, 8, 5, 6)}


def norms(shape, dtype=torch.float64):
    """PyTorch's batch norm, and one that shares statistics, of equal parameters."""
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(8, dtype=dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    model = nn.Sequential(copy.deepcopy(norm))
    share_statistics(model)
    return norm, model[0]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_one_process_trains_as_by_pytorchs_batch_norm(shape):
    norm, shared = norms(shape)
    feats = 3 + torch.randn(shape, dtype=torch.float64)
    found, expected = (feats.clone().requires_grad_() for _ in range(2))
    for module, feats in [(norm, expected), (shared, found)]:
        for _ in range(2):
            module(feats).sin().sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    torch.testing.assert_close(shared.state_dict(), norm.state_dict())
    for name, parameter in norm.named_parameters():
        torch.testing.assert_close(shared.get_parameter(name).grad, parameter.grad)
    torch.testing.assert_close(shared.eval()(found), norm.eval()(found))


def test_layout_and_type_are_those_of_the_input():
    norm, shared = norms(SHAPES["2d"], torch.float32)
    feats = torch.randn(SHAPES["2d"]).contiguous(memory_format=torch.channels_last)
    assert shared(feats).is_contiguous(memory_format=torch.channels_last)
    half = feats.bfloat16()
    found, expected = shared(half), norm(half)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("count", [1, 2, torch.tensor([1.0]), torch.tensor([2.0])])
def test_running_variance_is_unbiased_where_it_can_be(count):
    norm = nn.BatchNorm1d(1, momentum=1.0)
    update_running_statistics(norm, torch.zeros(1), torch.ones(1), count)
    assert norm.running_var.item() == count
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_fast_paths_share_statistics_as_well(backend):
    filters, wavs = torch.randn(8, 51), torch.randn(3, 2000)
    norm, shared = norms(SHAPES["1d"], torch.float32)
    options = {"n_frames": 16, "padding": 25, "backend": backend}
    found, expected = (
        filtered_maps(wavs, filters, each, **options) for each in (shared, norm)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared.state_dict(), norm.state_dict())


def test_a_model_keeps_its_parameters_and_their_names():
    model = nn.Sequential(
        nn.BatchNorm1d(8, eps=1e-3, momentum=0.2),
        nn.Sequential(nn.BatchNorm2d(4), nn.LayerNorm(3), nn.BatchNorm3d(2)),
    ).eval()
    values = {**model.state_dict(keep_vars=True)}
    share_statistics(model)
    kinds = [type(module) for module in (model[0], *model[1])]
    assert kinds == [SharedBatchNorm1d, SharedBatchNorm2d, nn.LayerNorm, nn.BatchNorm3d]
    assert (model[0].eps, model[0].momentum, model[0].training) == (1e-3, 0.2, False)
    shared = model.state_dict(keep_vars=True)
    assert list(shared) == list(values)
    assert all(shared[name] is value for name, value in values.items())
