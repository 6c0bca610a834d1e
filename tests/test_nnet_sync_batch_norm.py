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
)

from .backends import FAST

SHAPES = {"1d": (4, 8), "1d over time": (4, 8, 30), "2d": (4, 8, 5, 6)}


def norms(shape, dtype=torch.float64):
    """PyTorch's batch norm, and the same one that shares statistics."""
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
    found, expected = [], []
    for module, steps in [(shared, found), (norm, expected)]:
        for _ in range(2):
            clips = feats.clone().requires_grad_()
            loss = module(clips).sin().sum()
            steps.append(torch.autograd.grad(loss, [clips, *module.parameters()]))
        steps.append(module.eval()(feats))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(shared.state_dict(), norm.state_dict())


def test_layout_and_type_are_those_of_the_input():
    norm, shared = norms(SHAPES["2d"], torch.float32)
    feats = torch.randn(SHAPES["2d"]).contiguous(memory_format=torch.channels_last)
    assert shared(feats).is_contiguous(memory_format=torch.channels_last)
    half = feats.bfloat16()
    found, expected = shared(half), norm(half)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


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
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.BatchNorm3d)
    model = nn.Sequential(nn.Sequential(*(kind(4) for kind in kinds))).eval()
    values = {name: id(x) for name, x in model.state_dict(keep_vars=True).items()}
    share_statistics(model)
    shared = SharedBatchNorm1d, SharedBatchNorm2d, *kinds[2:]
    assert [(type(x), x.training) for x in model[0]] == [(x, False) for x in shared]
    after = {name: id(x) for name, x in model.state_dict(keep_vars=True).items()}
    assert after == values
