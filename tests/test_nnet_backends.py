"""Every path of the front-end in use: devices, compilers, training, extreme values."""

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from ms_sincresnet import MSSincNet, MSSincResNet
from ms_sincresnet.nnet.backends import fft, simd, tensor_cores
from ms_sincresnet.nnet.backends.op import Sizes
from ms_sincresnet.nnet.filtering import output_statistics

from .backends import FAST, white_noise

OPERATORS = torch.ops.ms_sincresnet
each_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
each_fast = pytest.mark.parametrize("backend", FAST)


def small(cls=MSSincNet, **options):
    sizes = {"n_filters": 8, "kernel_sizes": (11, 21, 31), "n_frames": 32}
    torch.manual_seed(0)
    return cls(**sizes | options)


def random_sum(maps):
    """A sum with random weights, so that each map has a gradient of its own."""
    return (maps * white_noise(*maps.shape, seed=1)).sum()


def gradients(module):
    return {name: value.grad for name, value in module.named_parameters()}


@pytest.mark.parametrize(("n_frames", "padding"), [(64, 3), (7, 0), (600, 3)])
def test_the_fft_path_leaves_nothing_on_the_cpu(n_frames, padding, fake_gpu):
    with fake_gpu:
        wavs = torch.randn(2, 600, device="cuda")
        filters, offsets = torch.randn(9, 7, device="cuda"), wavs.new_zeros(9)
        sizes = Sizes.of(wavs, 9, 7, padding, n_frames)
        masks = wavs.new_empty(fft._mask_shape(sizes), dtype=torch.uint8)
        maps = fft._forward(wavs, filters, offsets, sizes, masks)
        grads = fft._backward(torch.randn_like(maps), wavs, masks, sizes)
        statistics = output_statistics(wavs, filters, padding)
    assert maps.shape == (2, 9, n_frames)
    for values in (maps, *grads, *statistics):
        assert values.device.type == "cuda"


@each_fast
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


@pytest.mark.parametrize(
    ("n_outputs", "n_frames", "padding"),
    [
        (34, 7, 0),  # neighbouring frames share samples
        (32, 16, 3),  # and here not
        *((12, 16, 3), (50, 1, 0)),
        (9000, 1500, 3),  # several blocks
    ],
)
def test_the_fft_path_has_the_gradient_of_its_output(n_outputs, n_frames, padding):
    wavs = white_noise(2, n_outputs + 6 - 2 * padding).double()
    filters, offsets = white_noise(9, 7).double(), white_noise(9, seed=1).double()
    torch.autograd.gradcheck(
        lambda *learned: fft.filter_and_pool(wavs, *learned, n_frames, padding),
        (filters.requires_grad_(), offsets.requires_grad_()),
        fast_mode=True,
    )


@each_mode
@each_fast
def test_a_compiled_caller_computes_the_same(backend, training):
    options = {"kernel_sizes": (11,), "parametrization": "relative"}
    plain = small(**options, backend=backend).train(training)
    model = copy.deepcopy(plain)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    wavs = white_noise(2, 1600)
    expected, found = plain(wavs), compiled(wavs)
    torch.testing.assert_close(found, expected)
    random_sum(expected).backward()
    random_sum(found).backward()
    torch.testing.assert_close(gradients(model), gradients(plain))
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_under_autocast_maps_are_the_same_and_everything_learns(backend):
    model = small(MSSincResNet, n_genres=2, hidden_size=32, backend=backend)
    wavs = white_noise(4, 4800)
    expected = model.frontend(wavs)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.frontend(wavs).equal(expected)
        F.nll_loss(model(wavs).float(), torch.arange(4) % 2).backward()
    for name, grad in gradients(model).items():
        assert grad.dtype == torch.float32
        assert grad.isfinite().all(), name
        assert grad.ne(0).any(), name


# 7951 Hz is beyond half the sample rate once the least cut-off is added, 7949 is not.
LOW_HZ = [1e9, 7951.0, 7949.0, 0.0, -0.0, -300.0, 30.0, 4000.0]
BAND_HZ = [0.0, 1e9, 0.0, 0.0, 1e9, 0.0, -500.0, -1e9]
WEIGHTS = [1.0, -1.0, 0.0, 0.5, 2.0, -0.3, 1.0, 0.0, -2.0]


def front_end_at_its_limits(padding, training):
    """Cut-offs, batch norms' weights and statistics as training might leave them."""
    options = {"n_filters": 3 * len(LOW_HZ), "kernel_sizes": (11, 251)}
    model = small(padding=padding, **options).train(training)
    with torch.no_grad():
        for bank, norm in zip(model.banks, model.norms, strict=True):
            bank.low_hz_.copy_(torch.tensor(3 * LOW_HZ)[:, None])
            bank.band_hz_.copy_(torch.tensor(3 * BAND_HZ)[:, None])
            norm.weight.copy_(torch.tensor(3 * WEIGHTS)[: len(norm.weight)])
            norm.bias.uniform_(-0.5, 0.5)
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
            # A pair in simd, in which the larger would leave its rounding in the other.
            norm.running_var[[10, 11]] = 1e-12
    return model


def one_step(model, wavs, backend):
    """Maps, the gradients of a random sum, and statistics."""
    model = copy.deepcopy(model).to(wavs.dtype)
    model.backend = backend
    maps = model(wavs)
    random_sum(maps).backward()
    statistics = {k: v for k, v in model.named_buffers() if "running" in k}
    return maps.detach(), gradients(model) | statistics


@each_mode
@pytest.mark.parametrize("padding", ["same", "valid"])
@each_fast
def test_steps_at_the_limits_are_as_near_to_float64_as_the_definition(
    backend, padding, training
):
    model = front_end_at_its_limits(padding, training)
    wavs = white_noise(3, 400, seed=35)
    least = []
    for norm in model.norms:
        norm.register_forward_hook(lambda *args: least.append(args[2].abs().min()))
    expected_maps, expected = one_step(model, wavs.double(), "reference")
    # The seed is such that no activation is so near to 0 that rounding switches it.
    assert min(least) > 3e-6
    _, reference = one_step(model, wavs, "reference")
    maps, found = one_step(model, wavs, backend)
    assert expected_maps.isfinite().all()
    assert (maps - expected_maps).abs().max() < 1e-5 * expected_maps.max()
    for name, grad in expected.items():
        allowed = 2 * (reference[name] - grad).norm() + 2e-6 * grad.norm()
        assert (found[name] - grad).norm() <= allowed, name
