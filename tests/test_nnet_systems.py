"""The whole network: shapes at full size, gradients, and nothing left behind."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.systems import MSSincResNet


def music(n_samples=48000, batch=2):
    """Noise as loud as music is."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(batch, n_samples, generator=generator)


def small_model(**options):
    """A network whose ResNet sees small maps."""
    torch.manual_seed(0)
    return MSSincResNet(**{"n_filters": 32, "n_frames": 64} | options)


def test_shapes_at_full_size():
    model = MSSincResNet().eval()
    shapes = []
    for module in (
        *(model.frontend, model.embedding.trunk),
        *(model.embedding, model.classifier),
    ):
        module.register_forward_hook(lambda *args: shapes.append(tuple(args[2].shape)))
    with torch.no_grad():
        log_posteriors = model(music())
    assert shapes == [
        (2, 3, 160, 1024),
        (2, 512, 5, 32),
        (2, 1, 2560),
        (2, 1, 10),
    ]
    assert log_posteriors.shape == (2, 10)
    torch.testing.assert_close(log_posteriors.exp().sum(1), torch.ones(2))


def test_the_parts_in_a_row_are_the_network():
    model = small_model(n_genres=6, pooling="avg", hidden_size=None).eval()
    embeddings = model.embedding(model.frontend(music(16000)))
    assert embeddings.shape == (2, 1, 512)
    expected = model.classifier(embeddings)
    assert expected.shape == (2, 1, 6)
    assert model(music(16000)).equal(expected[:, 0])


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_cutoff(training, backend):
    model = small_model(backend=backend).train(training)
    model(music(16000))[:, 3].sum().backward()
    for bank in model.frontend.banks:
        assert bank.low_hz_.grad.ne(0).all()
        # The band of the last filter ends at half the sample rate, whatever it is.
        assert bank.band_hz_.grad[:-1].ne(0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.ne(0).any(), name


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("training", [True, False])
def test_silence_gives_finite_numbers(training, backend):
    model = small_model(backend=backend).train(training)
    log_posteriors = model(torch.zeros(2, 16000))
    assert log_posteriors.isfinite().all()
    log_posteriors[:, 3].sum().backward()
    for values in (*model.buffers(), *(p.grad for p in model.parameters())):
        assert values.isfinite().all()


def test_everything_that_moves_is_a_parameter_or_a_buffer():
    model = small_model()
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
    """Whether this PyTorch fakes tensors on a GPU where there is none; 2.7 does not."""
    try:
        with FakeTensorMode() as mode:
            mode.from_tensor(torch.zeros(1)).to("cuda")
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not can_fake_a_gpu(), reason="this PyTorch needs a GPU to fake one")
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_on_the_device_that_it_is_moved_to(training):
    """Shapes and devices of a pass on a GPU, without one."""
    model = small_model().train(training)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    with FakeTensorMode() as mode:
        moved = {name: mode.from_tensor(x).to("cuda") for name, x in state.items()}
        wavs = torch.randn(2, 48000, device="cuda")
        log_posteriors = functional_call(model, moved, wavs)
        assert log_posteriors.shape == (2, 10)
        assert log_posteriors.device.type == "cuda"


def test_double_precision_works():
    model = small_model(backend="reference").eval()
    double = copy.deepcopy(model).double()
    log_posteriors = double(music(16000).double())
    assert log_posteriors.dtype == torch.float64
    torch.testing.assert_close(
        log_posteriors, model(music(16000)).double(), rtol=0, atol=1e-4
    )


def test_the_scale_of_the_samples_does_not_matter():
    model = small_model().eval()
    with torch.no_grad():
        found, expected = model(32768 * music(16000)), model(music(16000))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "n_genres": 6,
            "n_filters": 16,
            "kernel_sizes": (101, 51, 25),
            "pooling": "avg",
            "n_frames": 32,
            "sample_rate": 8000,
            "padding": "valid",
            "backend": "reference",
            "arch": "resnet34",
            "hidden_size": None,
        },
    ],
    ids=["small", "other"],
)
def test_the_config_rebuilds_the_network(options):
    model = small_model(**options).eval()
    assert {name: model.config[name] for name in options} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
    }
    rebuilt = MSSincResNet(**model.config).eval()
    assert rebuilt.config == model.config
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt(music(4000)).equal(model(music(4000)))


def test_the_options_reach_the_parts():
    model = MSSincResNet(
        n_filters=4,
        n_frames=32,
        sample_rate=8000,
        padding="valid",
        backend="reference",
        arch="resnet34",
    )
    frontend, trunk = model.frontend, model.embedding.trunk
    assert {bank.sample_rate for bank in frontend.banks} == {8000}
    assert [bank.kernel_size for bank in frontend.banks] == [251, 501, 1001]
    assert (frontend.padding, frontend.backend) == ("valid", "reference")
    assert len(trunk.layer3) == 6  # two in ResNet-18
    assert frontend(music(1600)).shape == (2, 3, 4, 32)


def test_weights_of_other_kernel_lengths_are_refused():
    state = small_model(kernel_sizes=(25, 51, 101)).state_dict()
    with pytest.raises(WeightsError, match=r"\[25, 51, 101\].*\[25, 51, 103\]"):
        small_model(kernel_sizes=(25, 51, 103)).load_state_dict(state)


def test_the_resnets_weights_come_from_a_file(tmp_path):
    trunk = small_model().embedding.trunk
    torch.save(trunk.state_dict(), tmp_path / "trunk.pth")
    torch.manual_seed(1)
    model = MSSincResNet(n_filters=8, weights=tmp_path / "trunk.pth")
    for name, value in model.embedding.trunk.state_dict().items():
        assert value.equal(trunk.state_dict()[name])
    assert "weights" not in model.config


@pytest.mark.parametrize("kernel_sizes", [(251, 501), (251, 501, 1001, 2001)])
def test_three_scales_are_needed(kernel_sizes):
    with pytest.raises(ValueError, match=r"three.* got \[251, 501") as error:
        MSSincResNet(kernel_sizes=kernel_sizes)
    assert str(list(kernel_sizes)) in str(error.value)
