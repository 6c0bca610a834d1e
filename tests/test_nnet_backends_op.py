import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from ms_sincresnet.nnet.backends import fft, simd, tensor_cores

from .backends import FAST

OPERATORS = torch.ops.ms_sincresnet


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
