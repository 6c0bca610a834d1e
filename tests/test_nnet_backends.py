"""Every path of the front-end where it will be used: devices, compilers, training.

How exact a path is at all is tested beside its own file.
"""

import copy
import math
import subprocess
import sys

import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn import functional as F

from ms_sincresnet import GenreClassifier, MSSincNet, MSSincResNet, split_clips
from ms_sincresnet.inference.speechbrain_modules import SongEmbedding
from ms_sincresnet.nnet import filtering, frontend
from ms_sincresnet.nnet.backends import fft, simd
from ms_sincresnet.nnet.filtering import filtered_maps
from ms_sincresnet.nnet.voting import song_log_posteriors
from ms_sincresnet.pretrained.model_folder import save_model_folder

needs_compiler = pytest.mark.skipif(
    simd.LIBRARY is None, reason="installed without a C compiler"
)
SIMD = pytest.param("simd", marks=needs_compiler)
FAST = ["fft", SIMD]
CPU = {"device": "cpu"}
SIZES = {"n_filters": 8, "kernel_sizes": (11, 21, 31), "n_frames": 32}
GENRES = ["tone", "noise"]
CLIP, HOP = 4800, 800


def small(cls, seed=0, **options):
    """A front-end or a network whose maps are small."""
    torch.manual_seed(seed)
    return cls(**SIZES | options)


def small_network(**options):
    """A network for two genres."""
    return small(MSSincResNet, n_genres=2, hidden_size=32, **options)


def sounds(n, seed, n_samples=CLIP):
    """Tones, a little noisy, and noise in turn, and which are which."""
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
    """The gradients of a module's parameters by name."""
    return {name: value.grad for name, value in module.named_parameters()}


def can_fake_a_gpu():
    """Whether this PyTorch fakes tensors on a GPU where there is none; 2.7 does not."""
    try:
        with FakeTensorMode() as mode:
            mode.from_tensor(torch.zeros(1)).to("cuda")
    except RuntimeError:
        return False
    return True


fakes_a_gpu = pytest.mark.skipif(
    not can_fake_a_gpu(), reason="this PyTorch needs a GPU to fake one"
)
training = pytest.mark.parametrize("training", [True, False])
PORTABLE = ["reference", "fft", "tensor_cores", "auto"]


@fakes_a_gpu
@training
@pytest.mark.parametrize(
    ("cls", "backend"),
    [*((MSSincNet, backend) for backend in PORTABLE), (MSSincResNet, "auto")],
)
def test_a_gpu_computes_by_itself(cls, backend, training):
    model = small(cls, backend=backend).train(training)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    with FakeTensorMode() as mode:
        moved = {name: mode.from_tensor(x).to("cuda") for name, x in state.items()}
        found = functional_call(model, moved, torch.randn(2, 1600, device="cuda"))
        assert found.shape == ((2, 3, 8, 32) if cls is MSSincNet else (2, 10))
        assert found.device.type == "cuda"
        assert found.dtype == torch.float32


@fakes_a_gpu
@pytest.mark.parametrize(("n_frames", "padding"), [(64, 3), (7, 0), (1024, 3)])
def test_nothing_inside_the_fft_path_is_left_on_the_cpu(n_frames, padding):
    with FakeTensorMode():
        wavs = torch.randn(2, 600, device="cuda")
        filters, offsets = torch.randn(9, 7, device="cuda"), wavs.new_zeros(9)
        arguments = wavs, filters, offsets, n_frames, padding, True
        maps, masks = fft._forward(*arguments)
        grads = fft._backward(torch.randn_like(maps), wavs, masks, 7, padding)
        statistics = filtering.output_statistics(wavs, filters, padding)
    assert maps.shape == (2, 9, n_frames)
    for values in (maps, masks, *grads, *statistics):
        assert values.device.type == "cuda"


@training
@pytest.mark.parametrize("backend", PORTABLE)
def test_backward_passes_have_shapes_without_values(backend, training):
    (bank, *_), (norm, *_) = (
        getattr(small(MSSincNet).train(training).to("meta"), name)
        for name in ("banks", "norms")
    )
    wavs = torch.empty(2, 1600, device="meta")
    maps = filtered_maps(wavs, bank.filters(), norm, 32, 5, backend)
    maps.sum().backward()
    for parameter in (*bank.parameters(), *norm.parameters()):
        assert parameter.grad.device.type == "meta"
        assert parameter.grad.shape == parameter.shape


@training
@pytest.mark.parametrize("backend", [*FAST, "auto"])
def test_a_compiled_caller_computes_the_same(backend, training):
    plain = small(MSSincNet, kernel_sizes=(11,), backend=backend).train(training)
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


@pytest.mark.parametrize("backend", FAST)
def test_deterministic_algorithms_do_and_change_nothing(backend):
    wavs, labels = sounds(2, seed=0)
    losses, grads = [], []
    try:
        for deterministic in (False, True):
            # It fills new memory with NaN, too.
            torch.use_deterministic_algorithms(deterministic)
            model = small_network(backend=backend)
            losses.append(F.nll_loss(model(wavs), labels))
            losses[-1].backward()
            grads.append(gradients(model))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_autocast_leaves_the_maps_as_they_are_and_trains(backend):
    model = small_network(backend=backend)
    wavs, labels = sounds(4, seed=0)
    expected = copy.deepcopy(model).frontend(wavs)
    with torch.autocast("cpu", torch.bfloat16):
        maps = copy.deepcopy(model).frontend(wavs)
        loss = F.nll_loss(model(wavs).float(), labels)
    assert maps.dtype == torch.float32
    assert maps.equal(expected)
    loss.backward()
    for name, grad in gradients(model).items():
        assert grad.dtype == torch.float32
        assert grad.isfinite().all(), name
        assert grad.ne(0).any(), name


PROCESS = """
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group(
    "gloo", f"file://{folder}/meeting", world_size=2, rank=rank
)
models, wavs = torch.load(f"{folder}/start.pt", weights_only=False)
for model in models:
    shared = DistributedDataParallel(model)
    shared(wavs[rank].to(model.dtype)).square().sum().backward()
grads = [{name: x.grad for name, x in m.named_parameters()} for m in models]
torch.save(grads, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def test_two_processes_share_their_gradients(tmp_path):
    """Those of the network in float64: in float32 its trunk is chaotic."""
    models = [small_network().double(), small(MSSincNet)]
    for model, dtype in zip(models, [torch.float64, torch.float32], strict=True):
        model.dtype = dtype
    wavs = sounds(4, seed=0)[0].unflatten(0, (2, 2))
    torch.save((models, wavs), tmp_path / "start.pt")
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    processes = [subprocess.Popen([*command, rank]) for rank in "01"]
    alone = [[], []]
    for part in wavs:
        for nth, model in enumerate(copy.deepcopy(models)):
            model(part.to(model.dtype)).square().sum().backward()
            alone[nth].append(gradients(model))
    try:
        assert [process.wait(60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    both = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in "01"), strict=True)
    for (first, second), of_parts in zip(both, alone, strict=True):
        for name, grad in first.items():
            assert grad.equal(second[name]), name
            mean = (of_parts[0][name] + of_parts[1][name]) / 2
            assert (grad - mean).norm() <= 1e-4 * mean.norm(), name


def train(parameters, forward, dtype=torch.float32, n_steps=20):
    """Losses of the first steps of training, by the recipes' optimiser."""
    optimizer = torch.optim.SGD(
        parameters, 5e-3, 0.9, weight_decay=1e-4, nesterov=True, fused=True
    )
    losses = []
    for step in range(n_steps):
        wavs, labels = sounds(4, seed=step)
        loss = F.nll_loss(forward(wavs.to(dtype)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def trainings():
    """Losses, and the network they lead to, by the definition and a fast path."""
    results = {}
    for backend in ("reference", "fft"):
        model = small_network(n_frames=128, backend=backend).double()
        results[backend] = train(model.parameters(), model, torch.float64), model
    return results


def test_losses_of_the_network_are_those_of_the_definition(trainings):
    """In float64: a ResNet's batch norms over so few values are chaotic.

    Within 20 steps they make ten thousand times as much of a rounding error: 1e-15 in
    the first loss becomes 1e-11. In float32, where rounding switches ReLUs as well, the
    definition's own losses change by 0.1 where samples are rounded another way.
    """
    expected, found = trainings["reference"][0], trainings["fft"][0]
    assert found == pytest.approx(expected, rel=0, abs=1e-8)
    assert min(expected) < 0.1 < expected[0]


@pytest.mark.parametrize("backend", FAST)
def test_losses_of_the_front_end_are_those_of_the_definition(backend):
    """In float32, with a linear layer behind it, which rounding does not upset.

    The losses, near 0.7, have steps of 6e-8; they are found one or two of them apart.
    """
    losses, cutoffs = [], []
    for name in ("reference", backend):
        maps = small(MSSincNet, backend=name)
        head = torch.nn.Linear(3 * 8, 2)
        parameters = [*maps.parameters(), *head.parameters()]

        def forward(wavs, maps=maps, head=head):
            return head(maps(wavs).mean(-1).flatten(1)).log_softmax(1)

        losses.append(train(parameters, forward))
        cutoffs.append(torch.cat([bank.low_hz_.detach() for bank in maps.banks]))
    assert losses[1] == pytest.approx(losses[0], rel=0, abs=1e-6)
    moved = cutoffs[0] - torch.cat([b.low_hz_ for b in small(MSSincNet).banks])
    assert moved.abs().max() > 1e-3
    torch.testing.assert_close(*cutoffs, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def trained(trainings):
    """A network, not to be changed, that tells tones from noise."""
    model = copy.deepcopy(trainings["fft"][1]).float()
    model.frontend.backend = model.config["backend"] = "auto"
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def songs():
    """Two seconds of each genre, and of both."""
    (tone, noise), _ = sounds(2, seed=98, n_samples=32000)
    return {"tone": tone, "noise": noise, "both": torch.cat([tone[:20000], noise])}


@pytest.fixture(scope="module")
def expected(trained, songs):
    """The songs' clips' log-posteriors by the definition."""
    by_definition = copy.deepcopy(trained)
    by_definition.frontend.backend = "reference"
    return {
        name: by_definition(split_clips(song, CLIP, HOP))
        for name, song in songs.items()
    }


def test_the_trained_network_knows_the_genres(expected):
    for nth, name in enumerate(GENRES):
        assert expected[name].argmax(1).eq(nth).all()
    votes = expected["both"].argmax(1)
    assert votes[:10].eq(0).all()
    assert votes[-30:].eq(1).all()


@pytest.mark.parametrize("backend", [*FAST, "auto"])
def test_clips_have_the_log_posteriors_of_the_definition(
    trained, songs, expected, backend
):
    model = copy.deepcopy(trained)
    model.frontend.backend = backend
    for name, song in songs.items():
        found = model(split_clips(song, CLIP, HOP))
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", ["reference", *FAST, "auto"])
def test_songs_have_the_log_posteriors_of_the_definition(
    trained, songs, expected, backend, monkeypatch
):
    filtered_once = []

    def spy(*args):
        filtered_once.append(1)
        return frontend_maps(*args)

    frontend_maps = frontend.maps_of_clips
    monkeypatch.setattr(frontend, "maps_of_clips", spy)
    model = copy.deepcopy(trained)
    model.frontend.backend = backend
    embed = SongEmbedding(model, CLIP, HOP).eval()
    for name, song in songs.items():
        found = model.classifier(embed(song[None]))[0]
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-4)
    by_loops = backend in ("simd", "auto") and simd.LIBRARY is not None
    assert bool(filtered_once) == by_loops


@pytest.mark.parametrize("voting", ["majority", "mean"])
def test_model_folders_name_the_genres_of_the_definition(
    trained, songs, expected, voting, tmp_path
):
    options = {"clip_samples": CLIP, "hop_samples": HOP, "voting": voting}
    save_model_folder(tmp_path / "model", trained, GENRES, **options)
    ours, stock = (
        cls.from_hparams(source=str(tmp_path / "model"), run_opts=CPU)
        for cls in (GenreClassifier, EncoderClassifier)
    )
    for name, song in songs.items():
        log_posteriors = song_log_posteriors(expected[name], voting)
        genre = GENRES[log_posteriors.argmax()]
        for classifier in (ours, stock):
            found, _, _, named = classifier.classify_batch(song[None])
            assert named == [genre]
            torch.testing.assert_close(found[0], log_posteriors, rtol=0, atol=1e-4)
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, song.numpy(), 16000, subtype="FLOAT")
        prediction = ours.predict_song(path)
        assert prediction.genre == genre
        posteriors = torch.tensor([prediction.posteriors[genre] for genre in GENRES])
        torch.testing.assert_close(
            posteriors, expected[name].exp().mean(0), rtol=0, atol=1e-4
        )


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
    """Maps and, of a random sum of them, the gradients."""
    model = copy.deepcopy(model).to(wavs.dtype)
    model.backend = backend
    maps = model(wavs)
    random_sum(maps).backward()
    return maps.detach(), gradients(model)


@training
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("backend", FAST)
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


@training
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_silence_at_the_limits_is_the_offset_alone(backend, padding, training):
    model = front_end_at_its_limits(padding, training)
    maps, grads = one_step(model, torch.zeros(1, 400), backend)
    for nth, norm in enumerate(model.norms):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        offsets = norm.bias - (0 if training else norm.running_mean * scale)
        offsets = offsets.relu()[:, None].expand(-1, 32)
        torch.testing.assert_close(maps[0, nth], offsets, rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        assert grad.isfinite().all(), name


@needs_compiler
def test_simd_is_refused_for_float64():
    model = small(MSSincNet, backend="simd").double()
    with pytest.raises(ValueError, match=r"'simd' needs float32.*got torch.float64"):
        model(torch.randn(2, 1600).double())


def test_simd_is_refused_where_there_was_no_compiler(monkeypatch):
    monkeypatch.setattr(simd, "LIBRARY", None)
    wavs = torch.randn(4 * HOP + CLIP)
    model = small(MSSincNet, backend="simd").eval().requires_grad_(False)
    message = "a C compiler; .* and no compiled loops.*backend='auto'"
    with pytest.raises(ValueError, match=message):
        model(wavs[None])
    with pytest.raises(ValueError, match=message):
        model.clip_maps(wavs, CLIP, HOP)
    model.backend = "auto"
    assert model.clip_maps(wavs, CLIP, HOP).isfinite().all()


@needs_compiler
def test_simd_is_refused_for_kernels_longer_than_half_a_block():
    model = small(MSSincNet, backend="simd", kernel_sizes=(2049,))
    with pytest.raises(ValueError, match="at most 2048 taps.*got .* 2049 taps"):
        model(torch.randn(2, 4000))


def test_tensor_cores_are_refused_on_a_cpu():
    model = small(MSSincNet, backend="tensor_cores")
    with pytest.raises(ValueError, match="float32 on an NVIDIA GPU; got .* on cpu"):
        model(torch.randn(2, 1600))


def test_half_precision_is_refused_by_fft_and_left_to_the_definition_by_auto():
    model = small(MSSincNet, backend="fft").bfloat16()
    wavs = torch.randn(2, 1600)
    with pytest.raises(ValueError, match="float32 or float64; got torch.bfloat16"):
        model(wavs)
    model.backend = "auto"
    assert model(wavs).dtype == torch.bfloat16
