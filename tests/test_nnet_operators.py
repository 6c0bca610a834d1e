"""When a backward pass may follow, and what an operator asks its loops for."""

import pytest
import torch
from torch import nn

from ms_sincresnet.nnet.backends.op import filter_and_pool_operator, needs_gradient


@pytest.mark.parametrize("parameters", [True, False])
@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_gradient_is_needed_where_one_can_come_back(parameters, inputs, enabled):
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).requires_grad_(False)
    module[1].bias.requires_grad_(parameters)
    wavs = torch.zeros(1, 2, requires_grad=inputs)
    with torch.set_grad_enabled(enabled):
        needed = needs_gradient(module, wavs)
        assert needed == module(wavs).requires_grad
    with torch.inference_mode():
        assert not needs_gradient(module, wavs)


def new_masks(wavs, filters, n_frames, padding, keep):
    """A byte an output frame, or none."""
    return wavs.new_empty(len(wavs) * n_frames * keep, dtype=torch.uint8)


@pytest.fixture(scope="module")
def calls():
    """Arguments that the loops of ``operator`` were called with."""
    return {"forward": [], "backward": []}


@pytest.fixture(scope="module")
def operator(calls):
    """An operator whose maps are the offsets, and whose gradients are known."""

    def forward(wavs, filters, offsets, n_frames, padding, keep):
        calls["forward"].append((n_frames, padding, keep))
        maps = offsets[:, None].expand(len(wavs), -1, n_frames).clone()
        return maps, new_masks(wavs, filters, n_frames, padding, keep).fill_(7)

    def backward(grad_maps, wavs, masks, kernel_size, padding):
        calls["backward"].append((masks.tolist(), kernel_size, padding))
        grad_filters = grad_maps.new_full((grad_maps.shape[1], kernel_size), 3)
        return grad_filters, grad_maps.sum((0, 2))

    return filter_and_pool_operator("for_a_test", forward, backward, new_masks)


@pytest.mark.parametrize("filters_learn", [True, False])
@pytest.mark.parametrize("offsets_learn", [True, False])
def test_masks_are_kept_where_filters_or_offsets_learn(
    operator, calls, filters_learn, offsets_learn
):
    for made in calls.values():
        made.clear()
    wavs = torch.zeros(2, 9, requires_grad=True)
    filters = torch.zeros(4, 5, requires_grad=filters_learn)
    offsets = torch.ones(4, requires_grad=offsets_learn)
    with torch.no_grad():
        operator(wavs, filters, offsets, 3, 2)
    maps = operator(wavs, filters, offsets, 3, padding=2)
    learn = filters_learn or offsets_learn
    assert calls["forward"] == [(3, 2, False), (3, 2, learn)]
    if learn:
        (2 * maps).sum().backward()
        assert calls["backward"] == [(6 * [7], 5, 2)]
        assert wavs.grad is None
    if filters_learn:
        assert filters.grad.eq(3).all()
    if offsets_learn:
        assert offsets.grad.eq(2 * 2 * 3).all()
