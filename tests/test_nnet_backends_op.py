import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from ms_sincresnet.nnet.backends import fft, simd, tensor_cores
from ms_sincresnet.nnet.backends.op import filter_and_pool_operator

from .backends import FAST

OPERATORS = torch.ops.ms_sincresnet


@pytest.fixture(scope="module")
def calls():
    """Arguments that the passes of ``operator`` were called with."""
    return {"forward": [], "backward": []}


@pytest.fixture(scope="module")
def operator(calls):
    """An operator whose maps are the offsets, and whose gradients are known."""

    def forward(wavs, filters, offsets, sizes, masks, factor):
        calls["forward"].append((sizes, masks is not None, factor))
        if masks is not None:
            masks.fill_(7)
        return offsets[:, None].expand(len(wavs), -1, sizes.n_frames).clone()

    def backward(grad_maps, wavs, masks, sizes, factor):
        calls["backward"].append((sizes, masks.tolist(), factor))
        grad_filters = grad_maps.new_full((sizes.n_filters, sizes.kernel_size), 3)
        return grad_filters, grad_maps.sum((0, 2))

    return filter_and_pool_operator(
        *("for_a_test", forward, backward, lambda sizes: (sizes.n_frames,)),
        options=", int factor",
    )


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
        operator(wavs, filters, offsets, 3, 2, factor=6)
    maps = operator(wavs, filters, offsets, 3, padding=2, factor=6)
    learn = filters_learn or offsets_learn
    sizes = (2, 4, 5, 2, 9, 3)
    assert calls["forward"] == [(sizes, False, 6), (sizes, learn, 6)]
    assert maps.requires_grad == learn
    if learn:
        (2 * maps).sum().backward()
        assert calls["backward"] == [(sizes, 3 * [7], 6)]
        assert wavs.grad is None
    if filters_learn:
        assert filters.grad.eq(3).all()
    if offsets_learn:
        assert offsets.grad.eq(2 * 2 * 3).all()


def test_backends_get_no_frames_shorter_than_a_sample(operator, calls):
    calls["forward"].clear()
    arguments = torch.zeros(2, 9), torch.zeros(4, 5), torch.arange(4.0), 64
    maps = operator(*arguments, factor=1)
    assert calls["forward"][0][0].n_frames == 5
    assert maps.equal(torch.arange(4.0)[:, None].expand(2, 4, 64))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("learns", [True, False])
def test_the_operators_keep_the_rules_of_pytorch(backend, learns):
    wavs, offsets = torch.randn(2, 300), torch.randn(9, requires_grad=learns)
    filters = torch.randn(9, 7, requires_grad=learns)
    operator = getattr(OPERATORS, f"{backend}_filter_and_pool")
    arguments = (wavs, filters, offsets, 16, 3, learns)
    torch.library.opcheck(operator, arguments)
    if learns:
        maps, masks = operator(*arguments)
        gradient = getattr(OPERATORS, f"{backend}_filter_and_pool_backward")
        torch.library.opcheck(gradient, (torch.randn_like(maps), wavs, masks, 7, 3))


@pytest.mark.parametrize("backend", [fft, simd, tensor_cores])
def test_one_bit_per_activation_is_kept_for_a_backward_pass_only(backend):
    shapes = [(2, 4096), (64, 1), (64,)]
    factors = wavs, _, offsets = [torch.empty(x, device="meta") for x in shapes]
    options = {"half": False} if backend is tensor_cores else {}
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.nbytes), lambda _: None):
        backend.filter_and_pool(*factors, 64, **options)
        offsets.requires_grad_()
        with torch.no_grad():
            backend.filter_and_pool(*factors, 64, **options)
        assert kept == []
        backend.filter_and_pool(*factors, 64, **options)
    assert kept == [wavs.nbytes, 2 * 64 * 4096 // 8]
