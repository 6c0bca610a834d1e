"""Every path of the front-end in use: devices, compilers, training, extreme values.

The accuracy of a path alone is tested beside its file.
"""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from ms_sincresnet import MSSincNet, MSSincResNet, split_clips
from ms_sincresnet.nnet.backends import fft, simd, songs
from ms_sincresnet.nnet.backends.op import Sizes
from ms_sincresnet.nnet.filtering import output_statistics

from .backends import FAST

SIZES = {"n_filters": 8, "kernel_sizes": (11, 21, 31), "n_frames": 32}
CLIP, HOP = 4800, 800

each_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
each_fast = pytest.mark.parametrize("backend", FAST)
each_way = pytest.mark.parametrize("backend", ["reference", *FAST])


def small(cls, **options):
    torch.manual_seed(0)
    return cls(**SIZES | options)


def small_network(**options):
    return small(MSSincResNet, n_genres=2, hidden_size=32, **options)


def sounds(n, seed, n_samples=CLIP):
    """Slightly noisy tones alternating with noise, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    hz = 200 + 3000 * torch.rand(n, 1, generator=generator)
    tones = torch.sin(2 * math.pi * hz * torch.arange(n_samples) / 16000)
    noise = torch.randn(n, n_samples, generator=generator)
    return torch.where(labels[:, None] == 0, tones + 0.05 * noise, noise), labels


def random_sum(maps):
    """A sum with random weights, so that each map has a gradient of its own."""
    generator = torch.Generator().manual_seed(1)
    return (maps * torch.randn(maps.shape, generator=generator)).sum()


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


@each_mode
@each_fast
def test_a_compiled_caller_computes_the_same(backend, training):
    options = {"kernel_sizes": (11,), "parametrization": "relative"}
    plain = small(MSSincNet, **options, backend=backend).train(training)
    model = copy.deepcopy(plain)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    wavs, _ = sounds(2, seed=0, n_samples=1600)
    expected, found = plain(wavs), compiled(wavs)
    torch.testing.assert_close(found, expected)
    random_sum(expected).backward()
    random_sum(found).backward()
    torch.testing.assert_close(gradients(model), gradients(plain))
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("backend", ["fft", "auto"])
def test_an_exported_network_takes_batches_of_any_size(backend):
    model = small_network(backend=backend).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    wavs, _ = sounds(3, seed=0, n_samples=1600)
    exported = torch.export.export(model, (wavs,), dynamic_shapes=({0: batch},))
    for n in (1, 5):
        wavs, _ = sounds(n, seed=n, n_samples=1600)
        with torch.no_grad():
            torch.testing.assert_close(exported.module()(wavs), model(wavs))


@each_way
def test_under_autocast_maps_are_the_same_and_everything_learns(backend):
    model = small_network(backend=backend)
    wavs, labels = sounds(4, seed=0)
    expected = model.frontend(wavs)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.frontend(wavs).equal(expected)
        F.nll_loss(model(wavs).float(), labels).backward()
    for name, grad in gradients(model).items():
        assert grad.dtype == torch.float32
        assert grad.isfinite().all(), name
        assert grad.ne(0).any(), name


@pytest.fixture(scope="module")
def trained():
    """A network after a few steps; in float64, as its batch norms make it chaotic."""
    model = small_network(n_frames=128, backend="fft").double()
    optimizer = torch.optim.SGD(model.parameters(), 5e-3, 0.9, nesterov=True)
    for step in range(6):
        wavs, labels = sounds(4, seed=step)
        optimizer.zero_grad()
        F.nll_loss(model(wavs.double()), labels).backward()
        optimizer.step()
    return model.float()


@pytest.mark.parametrize("backend", [*FAST, "auto"])
def test_clips_and_songs_have_the_log_posteriors_of_the_definition(
    trained, backend, monkeypatch
):
    loops, make_loop = [], songs._loop_over
    monkeypatch.setattr(
        songs, "_loop_over", lambda *args: loops.append(args) or make_loop(*args)
    )
    model = copy.deepcopy(trained).eval().requires_grad_(False)
    song = sounds(2, seed=98, n_samples=16000)[0].flatten()  # a tone, then noise
    clips = split_clips(song, CLIP, HOP)
    model.frontend.backend = "reference"
    expected = model(clips)
    assert (expected[0] - expected[-1]).abs().max() > 0.01
    model.frontend.backend = backend
    torch.testing.assert_close(model(clips), expected, rtol=0, atol=1e-4)
    maps = model.frontend.clip_maps(song, CLIP, HOP)
    found = model.classifier(model.embedding(maps))[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert bool(loops) == (backend != "fft" and simd.LIBRARY is not None)


# 7951 Hz is beyond half the sample rate once the least cut-off is added, 7949 is not.
LOW_HZ = [1e9, 7951.0, 7949.0, 0.0, -0.0, -300.0, 30.0, 4000.0]
BAND_HZ = [0.0, 1e9, 0.0, 0.0, 1e9, 0.0, -500.0, -1e9]
WEIGHTS = [1.0, -1.0, 0.0, 0.5, 2.0, -0.3, 1.0, 0.0, -2.0]


def front_end_at_its_limits(padding, training):
    """Cut-offs, batch norms' weights and statistics as training might leave them."""
    options = {"n_filters": 3 * len(LOW_HZ), "kernel_sizes": (11, 251)}
    model = small(MSSincNet, padding=padding, **options).train(training)
    with torch.no_grad():
        for bank, norm in zip(model.banks, model.norms, strict=True):
            bank.low_hz_.copy_(torch.tensor(3 * LOW_HZ)[:, None])
            bank.band_hz_.copy_(torch.tensor(3 * BAND_HZ)[:, None])
            norm.weight.copy_(torch.tensor(3 * WEIGHTS)[: len(norm.weight)])
            norm.bias.uniform_(-0.5, 0.5)
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
            # In simd, which has 16 pairs of filters, these two are alone: one
            # of 300 times the other's gain would leave its rounding there.
            norm.running_var[[10, 11]] = 1e-12
    return model


def one_step(model, wavs, backend):
    """Maps, the gradients of a random sum, and statistics; new memory holds NaN."""
    model = copy.deepcopy(model).to(wavs.dtype)
    model.backend = backend
    try:
        torch.use_deterministic_algorithms(True)
        maps = model(wavs)
        random_sum(maps).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    statistics = {k: v for k, v in model.named_buffers() if "running" in k}
    return maps.detach(), gradients(model) | statistics


@each_mode
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("batch", [1, 3])
@each_fast
def test_steps_at_the_limits_are_as_near_to_float64_as_the_definition(
    backend, batch, padding, training
):
    model = front_end_at_its_limits(padding, training)
    wavs = sounds(batch + 1, seed=35, n_samples=400)[0][1:]  # noise first
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


def test_a_backend_names_what_it_needs_and_auto_takes_another():
    for backend, dtype, kernel_size, message in [
        ("simd", torch.float64, 11, r"'simd' needs float32.*got torch.float64"),
        ("simd", torch.float32, 2049, r"at most 2048 taps.*got .* 2049 taps"),
        ("tensor_cores", torch.float32, 11, r"float32 on an NVIDIA GPU; got .* on cpu"),
        ("fft", torch.bfloat16, 11, r"float32 or float64; got torch.bfloat16"),
    ]:
        model = small(MSSincNet, backend=backend, kernel_sizes=(kernel_size,)).to(dtype)
        wavs = torch.randn(2, 4000, dtype=dtype)
        with pytest.raises(ValueError, match=message):
            model(wavs)
        model.backend = "auto"
        assert model(wavs).isfinite().all()
