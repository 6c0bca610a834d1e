"""Maps to embeddings and log-posteriors, against torchvision and NumPy."""

import copy
from functools import partial
from unittest.mock import Mock
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.profiler import profile
from torchvision.models import ResNet18_Weights

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.resnet import (
    GenreMLP,
    ResNetEmbedding,
    SpatialPyramidPooling,
    fold_batch_norms,
    load_trunk,
)

from .small_models import trained_resnet


def maps(n_filters=32, n_frames=64, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 3, n_filters, n_frames, generator=generator)


def batch_norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.fixture(scope="module")
def resnet():
    """torchvision's ResNet-18, not to be changed."""
    torch.manual_seed(0)
    return trained_resnet(torchvision.models.resnet18(weights=None))


@pytest.fixture
def embedding():
    """An embedding as after training."""
    torch.manual_seed(0)
    return trained_resnet(ResNetEmbedding())


def by_the_trunk_itself(embedding, feats):
    return embedding.pooling(embedding.trunk(feats))[:, None]


@pytest.mark.parametrize("levels", [(1, 2), [1, 2, 3]])
@pytest.mark.parametrize("rows", [5, 1])  # the middle of five lies in both halves
def test_a_pyramid_averages_each_block(levels, rows):
    def parts(size, n):
        return [slice(size * i // n, -(-size * (i + 1) // n)) for i in range(n)]

    volume, pooling = torch.randn(2, 3, rows, 12), SpatialPyramidPooling(levels)
    blocks = [
        volume[:, :, some_rows, columns].mean((2, 3))
        for n in levels
        for some_rows in parts(rows, n)
        for columns in parts(12, n)
    ]
    expected = torch.cat(blocks, dim=1)
    assert expected.shape[1] == pooling.output_size(3)
    last = volume.contiguous(memory_format=torch.channels_last)
    for found in (pooling(volume), pooling(last)):
        torch.testing.assert_close(found, expected)


DOWNLOAD = "torchvision.models._api.load_state_dict_from_url"


@pytest.mark.parametrize("kind", ["old.pth", "half.safetensors", "imagenet"])
def test_torchvisions_weights_give_its_features(resnet, tmp_path, kind, monkeypatch):
    state, weights, rounding = resnet.state_dict(), tmp_path / kind, 1e-5
    download = Mock(return_value=state)
    monkeypatch.setattr(DOWNLOAD, download)
    if kind == "old.pth":
        counters = {name for name in state if name.endswith("num_batches_tracked")}
        torch.save({name: state[name] for name in state.keys() - counters}, weights)
    elif kind == "half.safetensors":
        rounding = 0.02
        save_file({name: value.half() for name, value in state.items()}, weights)
    else:
        weights = kind
    embedding = ResNetEmbedding(weights=weights, pooling="avg").eval()
    if download.called:
        assert download.call_args.args[0] == ResNet18_Weights.IMAGENET1K_V1.url
    features = copy.deepcopy(resnet)
    features.fc = nn.Identity()
    with torch.no_grad():
        found, expected = embedding(maps(), wav_lens=torch.ones(2)), features(maps())
    assert found.shape == (2, 1, 512) == (2, 1, embedding.embedding_size)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=rounding)


ODD_WEIGHTS = {
    r"100 missing, such as \['bn1.bias', .*; 122 unknown, .*'module.bn1.bias'": (
        lambda state: {f"module.{name}": value for name, value in state.items()}
    ),
    r"conv1.weight has shape \[64, 1, 7, 7\], that of resnet18 \[64, 3,": (
        lambda state: state | {"conv1.weight": state["conv1.weight"][:, :1]}
    ),
    "expected a dict .*; got .*Tensor": lambda state: state["conv1.weight"],
    "not a file of weights": lambda state: nn.Linear(1, 1),
}


@pytest.mark.parametrize("message", ODD_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(resnet, embedding, tmp_path, message):
    path = tmp_path / "odd weights.pth"
    with pytest.raises(WeightsError, match=f'^{path}: no such file .*"imagenet"'):
        load_trunk(embedding.trunk, "resnet18", path)
    torch.save(ODD_WEIGHTS[message](resnet.state_dict()), path)
    with pytest.raises(WeightsError, match=f"^{path}: .*{message}") as error:
        load_trunk(embedding.trunk, "resnet18", path)
    assert "weights_only" not in str(error.value)  # torch.load's advice is unsafe


@pytest.mark.parametrize("failure", [URLError("no host"), RuntimeError("bad hash")])
def test_without_a_network_the_error_says_what_to_do(embedding, monkeypatch, failure):
    monkeypatch.setattr(DOWNLOAD, Mock(side_effect=failure))
    message = f"of resnet18 .* https:.*{failure}.*--resnet_weights=FILE.*_weights=null"
    with pytest.raises(WeightsError, match=message):
        load_trunk(embedding.trunk, "resnet18", "imagenet")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="pooling must be one of spp, avg; got 'max'"):
        ResNetEmbedding(pooling="max")
    with pytest.raises(ValueError, match="arch must be .*resnet18.*; got 'vgg16'"):
        ResNetEmbedding("vgg16")


@pytest.mark.parametrize(("arch", "size"), [("resnet18", 2560), ("resnet50", 10240)])
def test_the_folded_trunk_is_the_trunk(arch, size):
    embedding, feats = trained_resnet(ResNetEmbedding(arch)), maps()
    modules = [*embedding.trunk.modules()]
    with torch.no_grad():
        assert embedding(feats).shape == (2, 1, size)
        assert embedding.embedding_size == size
        embedding.trunk.layer3[1].conv2.weight *= 3  # nothing is kept of the last call
        expected = by_the_trunk_itself(embedding, feats)
        found = embedding(feats)
        assert not batch_norms(fold_batch_norms(embedding.trunk))
        assert by_the_trunk_itself(embedding, feats).equal(expected)
    assert [*embedding.trunk.modules()] == modules
    assert not found.equal(expected)  # to rounding: it is computed differently
    rounding = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding)


def test_in_evaluation_the_trunk_itself_is_used_where_gradients_are_needed(embedding):
    with torch.no_grad():
        folded = embedding(maps())
    found = embedding(maps())
    assert found.equal(by_the_trunk_itself(embedding, maps())) and found.requires_grad
    # As SpeechBrain's EncoderClassifier runs: frozen, but with gradients enabled.
    frozen, feats = embedding.requires_grad_(False), maps().requires_grad_()
    assert frozen(maps()).equal(folded)
    assert torch.autograd.grad(frozen(feats).sum(), feats)[0].abs().max() > 0


@pytest.mark.parametrize("case", ["frozen norms", "a frozen stem"])
def test_checkpointed_training_is_the_plain_one_to_the_bit(embedding, case):
    plain, autocast = embedding.train(), case == "a frozen stem"
    if case == "a frozen stem":
        plain.trunk.conv1.requires_grad_(False)
        plain.trunk.layer1.requires_grad_(False)
    for nth, norm in enumerate(batch_norms(plain)):
        norm.train(nth >= 12 or case != "frozen norms")
    saving = copy.deepcopy(plain)
    saving.recompute = True
    for seed in range(2):  # gradients add up
        results = []
        for embed in (partial(by_the_trunk_itself, plain), saving):
            feats = maps(32, 32) + seed
            feats = feats.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                found = embed(feats.requires_grad_())
            found.square().mean().backward()
            results.append((found, feats.grad))
        assert all(map(torch.equal, *results))
    for name, expected in plain.named_parameters():
        found = saving.get_parameter(name)
        assert found.grad is expected.grad is None or found.grad.equal(expected.grad)
    for name, expected in plain.named_buffers():
        assert saving.get_buffer(name).equal(expected), name
    assert {norm.momentum for norm in batch_norms(saving)} == {0.1}


def test_training_keeps_a_third_less_than_the_trunk_itself(embedding):
    embedding, kept = embedding.train(), []
    embedding.recompute = True
    feats = maps(32, 128).contiguous(memory_format=torch.channels_last)
    for embed in (embedding, partial(by_the_trunk_itself, embedding)):
        with profile(profile_memory=True) as profiler:
            output = embed(feats)
        kept.append(sum(x.self_cpu_memory_usage for x in profiler.key_averages()))
        del output
    assert 0 < kept[0] < 0.65 * kept[1]


def test_log_posteriors_are_those_of_two_layers_or_one():
    feats, two, one = torch.randn(2, 4, 2560), GenreMLP(), GenreMLP(hidden_size=None)
    first, first_bias, last, last_bias = two.parameters()
    assert first.shape == (512, 2560)
    hidden = F.linear(feats, first, first_bias).relu()
    expected = F.linear(hidden, last, last_bias).log_softmax(-1)
    torch.testing.assert_close(two(feats), expected)
    expected = F.linear(feats, *one.parameters()).log_softmax(-1)
    torch.testing.assert_close(one(feats), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_posteriors_have_at_least_single_precision(dtype):
    classifier = GenreMLP(input_size=8, n_genres=6).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        posteriors = classifier(1000 * torch.randn(2, 4, 8).to(dtype)).exp()
    assert posteriors.shape == (2, 4, 6)
    assert posteriors.dtype == torch.float32
    # bfloat16 would miss by 4e-3.
    assert (posteriors.sum(-1) - 1).abs().max() < 1e-5
