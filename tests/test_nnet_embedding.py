"""Maps to embeddings: torchvision's ResNet, its weights, and files that are not."""

import copy
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.embedding import ResNetEmbedding


def maps(n_filters=160, n_frames=1024, batch=2):
    """Maps of three scales."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 3, n_filters, n_frames, generator=generator)


@pytest.fixture(scope="module")
def resnet():
    """torchvision's ResNet-18 with statistics as after training."""
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked += 7
    return resnet.eval()


@pytest.fixture
def weights_file(resnet, tmp_path):
    """Its weights in a file, as torchvision's own files hold them."""
    path = tmp_path / "resnet18.pth"
    torch.save(resnet.state_dict(), path)
    return path


def expect_trunk(embedding, resnet):
    """Checks that a trunk has a ResNet's weights, without its last layer."""
    expected = resnet.state_dict()
    found = embedding.trunk.state_dict()
    assert found.keys() == {name for name in expected if not name.startswith("fc.")}
    assert all(found[name].equal(expected[name]) for name in found)


def test_shapes_at_full_size():
    embedding = ResNetEmbedding().eval()
    volumes = []
    embedding.trunk.register_forward_hook(lambda *args: volumes.append(args[2].shape))
    with torch.no_grad():
        assert embedding(maps()).shape == (2, 1, 2560)
    assert volumes == [(2, 512, 5, 32)]
    assert embedding.embedding_size == 2560


def test_spp_of_the_trunks_volume():
    embedding = ResNetEmbedding().eval()
    with torch.no_grad():
        volume = embedding.trunk(maps()).double().numpy()
        found = embedding(maps())[:, 0]
    blocks = [volume, volume[:, :, :3, :16], volume[:, :, :3, 16:]]
    blocks += [volume[:, :, 2:, :16], volume[:, :, 2:, 16:]]
    expected = np.concatenate([block.mean((2, 3)) for block in blocks], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_file_of_torchvisions_weights_gives_its_features(resnet, weights_file):
    embedding = ResNetEmbedding(weights=weights_file, pooling="avg").eval()
    expect_trunk(embedding, resnet)
    features = copy.deepcopy(resnet)
    features.fc = nn.Identity()
    with torch.no_grad():
        found = embedding(maps(32, 128), wav_lens=torch.ones(2))
        expected = features(maps(32, 128))
    assert found.shape == (2, 1, 512)
    assert embedding.embedding_size == 512
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_other_resnets_can_be_chosen():
    embedding = ResNetEmbedding(arch="resnet50").eval()
    assert embedding.embedding_size == 5 * 2048
    with torch.no_grad():
        assert embedding(maps(32, 64)).shape == (2, 1, 5 * 2048)


def test_a_file_without_fc_or_counters_will_do(resnet, tmp_path):
    state = {
        name: value
        for name, value in resnet.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "old.pth")
    embedding = ResNetEmbedding(weights=str(tmp_path / "old.pth"))
    found = embedding.trunk.state_dict()
    assert all(found[name].equal(value) for name, value in state.items())


def renamed(state):
    """As nn.DataParallel names them."""
    return {f"module.{name}": value for name, value in state.items()}


def cut_off(state):
    """As if the last layers were missing."""
    return {name: state[name] for name in state if not name.startswith("layer4.")}


def of_one_channel(state):
    """As a ResNet for grey images has them."""
    return state | {"conv1.weight": state["conv1.weight"][:, :1]}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (renamed, "missing: bn1.bias, .* more; unknown: module.bn1.bias, .* more"),
        (cut_off, "missing: layer4.0.bn1.bias, .* more; unknown: none"),
        (of_one_channel, r"conv1.weight has shape \[64, 1, 7, 7\], expected \[64, 3,"),
        (lambda state: {"state_dict": state, "epoch": 3}, "unknown: epoch, state_dict"),
        (lambda state: {0: state["bn1.bias"]}, "unknown: 0"),
        (lambda state: state["conv1.weight"], "expected a dict .*; got a Tensor"),
        (lambda state: nn.Linear(1, 1), "not a file of weights; expected a dict"),
    ],
    ids=["names", "pieces", "shapes", "checkpoint", "numbers", "tensor", "object"],
)
def test_weights_that_do_not_fit_are_refused(resnet, tmp_path, spoil, message):
    path = tmp_path / "odd weights.pth"
    torch.save(spoil(resnet.state_dict()), path)
    with pytest.raises(WeightsError, match=message) as error:
        ResNetEmbedding(weights=path)
    assert str(error.value).startswith(f"{path}: ")
    assert "weights_only" not in str(error.value)  # torch.load's advice is unsafe


def test_weights_of_another_resnet_are_refused(weights_file):
    with pytest.raises(WeightsError, match=r"resnet18\.pth: .*layer1\.2\."):
        ResNetEmbedding(arch="resnet34", weights=weights_file)


@pytest.mark.parametrize("content", [b"", b"not weights\n", b"PK\x03\x04 cut short"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a file of weights") as error:
        ResNetEmbedding(weights=path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["missing.pth", ""])
def test_a_missing_file_and_a_folder_are_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(WeightsError, match="no such file") as error:
        ResNetEmbedding(weights=path)
    assert str(error.value).startswith(f"{path}: ")
    assert '"imagenet"' in str(error.value)


def stand_in_for_the_network(monkeypatch, download):
    """Has torchvision ask a function for the weights of an address."""
    api = "torchvision.models._api.load_state_dict_from_url"
    monkeypatch.setattr(api, lambda url, *args, **kwargs: download(url))


def test_imagenet_weights_are_torchvisions(resnet, monkeypatch):
    urls = []

    def download(url):
        urls.append(url)
        return resnet.state_dict()

    stand_in_for_the_network(monkeypatch, download)
    expect_trunk(ResNetEmbedding(weights="imagenet"), resnet)
    assert urls == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url]


@pytest.mark.parametrize(
    "failure",
    [
        URLError("Name or service not known"),
        TimeoutError("timed out"),
        RuntimeError("invalid hash value"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_without_a_network_the_error_says_what_to_do(monkeypatch, failure):
    def download(url):
        raise failure

    stand_in_for_the_network(monkeypatch, download)
    with pytest.raises(WeightsError) as error:
        ResNetEmbedding(weights="imagenet")
    for part in (
        "ImageNet weights of resnet18",
        torchvision.models.ResNet18_Weights.DEFAULT.url,
        str(failure),
        "--resnet_weights=FILE",
        "--resnet_weights=null",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of spp, avg; got 'max'"),
        ({"arch": "vgg16"}, "arch must be one of .*resnet18.*; got 'vgg16'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNetEmbedding(**arguments)
