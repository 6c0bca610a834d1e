"""The models of Table 1: sizes, gradients, and the arguments that rebuild them."""

import copy
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._pytree import tree_leaves
from torchvision.models import resnet18

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.frontend import LogMelSpectrogram


def music(n_samples=48000, batch=2):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(batch, n_samples, generator=generator)


def small_model(**options):
    torch.manual_seed(0)
    return MSSincResNet(**{"n_filters": 8, "n_frames": 64} | options)


def small_mel_resnet(**options):
    torch.manual_seed(0)
    return MelResNet(**{"n_mels": 32} | options)


def small_sincnet(**options):
    torch.manual_seed(0)
    frames = {"frame_samples": 800, "frame_hop": 400, "train_frames": 4}
    return SincNet(**{"n_filters": 8, "kernel_size": 51} | frames | options)


BUILD = {
    "MSSincResNet": small_model,
    "MelResNet": small_mel_resnet,
    "SincNet": small_sincnet,
}
each_model = pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)


@pytest.mark.parametrize(
    ("model_class", "expected"),
    [
        (MSSincResNet, [(2, 3, 160, 1024), (2, 512, 5, 32), (2, 1, 2560), (2, 1, 10)]),
        (MelResNet, [(2, 3, 160, 376), (2, 512, 5, 12), (2, 1, 512), (2, 1, 10)]),
    ],
)
def test_shapes_at_full_size(model_class, expected):
    model = model_class().eval()
    shapes = []
    for module in (
        *(model.frontend, model.embedding.trunk),
        *(model.embedding, model.classifier),
    ):
        module.register_forward_hook(lambda *args: shapes.append(tuple(args[2].shape)))
    with torch.no_grad():
        log_posteriors = model(music())
    assert shapes == expected
    assert log_posteriors.shape == (2, 10)
    torch.testing.assert_close(log_posteriors.exp().sum(1), torch.ones(2))


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_as_many_parameters_as_resnet_18_and_two_layers_have():
    resnet = n_parameters(resnet18()) - (512 * 1000 + 1000)  # but for its last layer
    mlp = 512 * 512 + 512 + 512 * 10 + 10
    assert n_parameters(MelResNet()) == resnet + mlp
    sinc = 3 * (2 * 160 + 2 * 160)  # cut-offs, and a batch norm
    wider = mlp + (2560 - 512) * 512
    assert n_parameters(MSSincResNet()) == sinc + resnet + wider


@pytest.mark.parametrize(
    ("options", "n_filters", "kernel_size"),
    [({}, 80, 251), ({"n_filters": 160, "kernel_size": 1001}, 160, 1001)],
)
def test_as_many_parameters_as_sincnet_has(options, n_filters, kernel_size):
    expected, length, inputs = 2 * n_filters, 3200, n_filters
    for layer, taps in enumerate([kernel_size, 5, 5]):
        outputs = 60 if layer else n_filters
        length = (length - taps + 1) // 3
        if layer:
            expected += inputs * outputs * taps + outputs
        expected += 2 * outputs * length  # layer norm
        inputs = outputs
    inputs *= length
    for _ in range(3):
        expected += inputs * 2048 + 2 * 2048  # the batch norm has the biases
        inputs = 2048
    expected += 2048 * 10 + 10
    assert n_parameters(SincNet(**options)) == expected


def test_the_model_is_its_parts_in_sequence():
    model = small_model(n_genres=6, pooling="avg", hidden_size=None).eval()
    embeddings = model.embedding(model.frontend(music(16000)))
    assert embeddings.shape == (2, 1, 512)
    expected = model.classifier(embeddings)
    assert expected.shape == (2, 1, 6)
    assert model(music(16000)).equal(expected[:, 0])


@each_model
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter(training, build):
    model = build().train(training)
    model(music(16000))[:, 3].sum().backward()
    banks = [part for part in model.modules() if isinstance(part, SincFilterbank)]
    assert banks or isinstance(model, MelResNet)
    for bank in banks:
        assert bank.low_hz_.grad.ne(0).all()
        # The band of the last filter ends at half the sample rate, whatever it is.
        assert bank.band_hz_.grad[:-1].ne(0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.ne(0).any(), name


@each_model
@pytest.mark.parametrize("training", [True, False])
def test_silence_gives_finite_numbers(training, build):
    model = build().train(training)
    log_posteriors = model(torch.zeros(2, 16000))
    assert log_posteriors.isfinite().all()
    log_posteriors[:, 3].sum().backward()
    for values in (*model.buffers(), *(p.grad for p in model.parameters())):
        assert values.isfinite().all()


@each_model
def test_everything_that_moves_is_a_parameter_or_a_buffer(build):
    model = build()
    known = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for name, module in model.named_modules():
        attributes = {
            key: value
            for key, value in vars(module).items()
            if key not in ("_parameters", "_buffers", "_modules")
        }
        tensors = [x for x in tree_leaves(attributes) if isinstance(x, torch.Tensor)]
        assert {id(tensor) for tensor in tensors} <= known, name


def can_fake_a_gpu():
    """False for PyTorch 2.7, which fakes no tensors of a GPU that is missing."""
    try:
        with FakeTensorMode() as mode:
            mode.from_tensor(torch.zeros(1)).to("cuda")
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not can_fake_a_gpu(), reason="this PyTorch needs a GPU to fake one")
@each_model
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_on_the_device_that_it_is_moved_to(training, build):
    """Shapes and devices of a pass on a GPU, without one."""
    model = build().train(training)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    with FakeTensorMode() as mode:
        moved = {name: mode.from_tensor(x).to("cuda") for name, x in state.items()}
        wavs = torch.randn(2, 48000, device="cuda")
        log_posteriors = functional_call(model, moved, wavs)
        assert log_posteriors.shape == (2, 10)
        assert log_posteriors.device.type == "cuda"


@pytest.mark.parametrize(
    "build",
    [partial(small_model, backend="reference"), small_mel_resnet, small_sincnet],
)
def test_double_precision_works(build):
    model = build().eval()
    double = copy.deepcopy(model).double()
    log_posteriors = double(music(16000).double())
    assert log_posteriors.dtype == torch.float64
    torch.testing.assert_close(
        log_posteriors, model(music(16000)).double(), rtol=0, atol=1e-4
    )


@each_model
def test_the_scale_of_the_samples_does_not_matter(build):
    model = build().eval()
    with torch.no_grad():
        found, expected = model(32768 * music(16000)), model(music(16000))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


OTHER = {
    MSSincResNet: {
        "n_genres": 6,
        "n_filters": 4,
        "kernel_sizes": (101, 51, 25),
        "pooling": "avg",
        "n_frames": 32,
        "sample_rate": 8000,
        "init": "linear",
        "padding": "valid",
        "backend": "reference",
        "arch": "resnet34",
        "hidden_size": None,
        "affine_samples": 4000,
    },
    MelResNet: {
        "n_genres": 6,
        "n_mels": 24,
        "window_samples": 256,
        "mel_hop": 100,
        "pooling": "spp",
        "sample_rate": 8000,
        "arch": "resnet34",
        "hidden_size": None,
    },
    SincNet: {
        "n_genres": 6,
        "n_filters": 4,
        "kernel_size": 25,
        "frame_samples": 400,
        "frame_hop": 100,
        "train_frames": 2,
        "sample_rate": 8000,
        "init": "linear",
    },
}


@pytest.mark.parametrize("model_class", OTHER)
def test_the_config_rebuilds_the_model_and_holds_every_argument(model_class):
    options = OTHER[model_class]
    model = model_class(**options).eval()
    assert model.config == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
    }
    rebuilt = model_class(**model.config).eval()
    assert rebuilt.config == model.config
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt(music(4000)).equal(model(music(4000)))
    assert model_class(*options.values()).config.keys() == model.config.keys()


def test_every_argument_reaches_its_part():
    model = MSSincResNet(**OTHER[MSSincResNet])
    frontend = model.frontend
    assert {bank.sample_rate for bank in frontend.banks} == {8000}
    assert [bank.kernel_size for bank in frontend.banks] == [101, 51, 25]
    assert (frontend.padding, frontend.backend) == ("valid", "reference")
    assert frontend.clip_norm.normalized_shape == (1, 4000)
    assert len(model.embedding.trunk.layer3) == 6  # two in ResNet-18
    assert frontend(music(4000)).shape == (2, 3, 4, 32)
    mel = small_mel_resnet(sample_rate=8000, mel_hop=100, pooling="spp", n_genres=6)
    assert mel.frontend(music(1600)).shape == (2, 3, 32, 17)
    assert mel.frontend.bands.equal(LogMelSpectrogram(32, 512, 100, 8000).bands)
    assert mel.embedding.embedding_size == 2560
    assert mel(music(1600)).shape == (2, 6)
    sincnet = SincNet(**OTHER[SincNet]).embedding
    assert (sincnet.bank.sample_rate, sincnet.bank.kernel_size) == (8000, 25)
    widths_hz = sincnet.bank.band_hz_
    torch.testing.assert_close(widths_hz, widths_hz[:1].expand(4, 1))
    assert sum(map(len, sincnet.clip_maps(music(8000)[0]))) == 1 + (8000 - 400) // 100


@pytest.mark.parametrize("kernel_sizes", [(251, 501), (251, 501, 1001, 2001)])
def test_three_scales_are_needed(kernel_sizes):
    with pytest.raises(ValueError, match=r"three.* got \[251, 501") as error:
        MSSincResNet(kernel_sizes=kernel_sizes)
    assert str(list(kernel_sizes)) in str(error.value)
