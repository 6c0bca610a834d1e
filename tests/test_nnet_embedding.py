"""Maps to embeddings: torchvision's ResNet, its weights, and files that are not."""

import copy
from functools import partial
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.resnet import ResNetEmbedding, fold_batch_norms


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


def trained_embedding(arch="resnet18"):
    """An embedding with statistics and affine parts as after training."""
    torch.manual_seed(0)
    embedding = ResNetEmbedding(arch).eval()
    for norm in batch_norms(embedding):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias, std=0.1)
    return embedding


def batch_norms(embedding):
    """Its batch norms."""
    return [m for m in embedding.modules() if isinstance(m, nn.BatchNorm2d)]


def by_the_trunk_itself(embedding, feats):
    """What the trunk makes of maps, without shortcuts."""
    return embedding.pooling(embedding.trunk(feats))[:, None]


def expect_folded(embedding, feats, tolerance=1e-5):
    """Checks that embeddings are the trunk's, but by another way."""
    with torch.no_grad():
        found, expected = embedding(feats), by_the_trunk_itself(embedding, feats)
    assert found.dtype == expected.dtype
    assert not found.equal(expected)
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < tolerance


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_folded_trunk_is_the_trunk(arch):
    expect_folded(trained_embedding(arch), maps(32, 64, batch=5))


def test_folding_leaves_no_batch_norm_and_the_trunk_as_it_was():
    embedding = trained_embedding()
    before = copy.deepcopy(embedding.trunk.state_dict())
    folded = fold_batch_norms(embedding.trunk)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert len(batch_norms(embedding)) == 20
    assert all(parameter.requires_grad for parameter in embedding.parameters())
    for name, value in embedding.trunk.state_dict().items():
        assert value.equal(before[name])


def an_optimizer_steps(embedding):
    """Weights change in place."""
    for parameter in embedding.parameters():
        parameter.grad = torch.sign(parameter.detach())
    torch.optim.SGD(embedding.parameters(), lr=0.01).step()


def one_weight_changes(embedding):
    """A single one, deep in the trunk."""
    with torch.no_grad():
        embedding.trunk.layer3[1].conv2.weight *= 3


def statistics_change(embedding):
    """As a forward pass in training does to them."""
    batch_norms(embedding)[4].running_mean.lerp_(torch.ones(64), 0.5)


def others_are_loaded(embedding):
    """A state dict is copied into the weights."""
    embedding.load_state_dict(ResNetEmbedding().state_dict())


def others_are_assigned(embedding):
    """A state dict takes the weights' place."""
    embedding.load_state_dict(ResNetEmbedding().state_dict(), assign=True)


def weights_are_rounded(embedding):
    """There and back, maybe to the same memory."""
    embedding.half().float()


def weights_change_unseen_in_training(embedding):
    """As some libraries do, so that versions do not tell."""
    embedding.train()
    for parameter in embedding.parameters():
        parameter.data.mul_(1.1)
    embedding.eval()


@pytest.mark.parametrize(
    "change",
    [
        an_optimizer_steps,
        one_weight_changes,
        statistics_change,
        others_are_loaded,
        others_are_assigned,
        weights_are_rounded,
        weights_change_unseen_in_training,
    ],
)
def test_the_trunk_is_folded_again_when_it_changes(change):
    embedding, feats = trained_embedding(), maps(32, 64)
    with torch.no_grad():
        before = embedding(feats)
        folded = embedding._folded[1]
        assert embedding(feats).equal(before)
        assert embedding._folded[1] is folded  # kept as long as nothing changes
    change(embedding)
    expect_folded(embedding, feats)
    assert embedding._folded[1] is not folded
    with torch.no_grad():
        assert not embedding(feats).equal(before)


def test_a_trunk_of_other_precision_is_folded_in_it():
    embedding, feats = trained_embedding(), maps(32, 64)
    with torch.no_grad():
        single = embedding(feats)
        expect_folded(embedding.double(), feats.double(), tolerance=1e-13)
        assert embedding.float()(feats).equal(single)


def test_under_autocast_the_folded_trunk_is_near_the_trunk():
    embedding, feats = trained_embedding(), maps(32, 64)
    with torch.no_grad():
        exact = embedding(feats)
        with torch.autocast("cpu", torch.bfloat16):
            found, unfolded = embedding(feats), by_the_trunk_itself(embedding, feats)
        assert embedding(feats).equal(exact)
    assert found.dtype == unfolded.dtype
    error, allowed = (found - exact).norm(), (unfolded - exact).norm()
    assert 0 < error < 2 * allowed


def test_copies_and_files_hold_the_trunk_once(tmp_path):
    embedding, feats = trained_embedding(), maps(32, 64)
    torch.save(embedding, tmp_path / "before.pt")
    names = list(embedding.state_dict())
    with torch.no_grad():
        expected = embedding(feats)
        assert list(embedding.state_dict()) == names
        torch.save(embedding, tmp_path / "after.pt")
        sizes = [(tmp_path / name).stat().st_size for name in ("before.pt", "after.pt")]
        assert sizes[1] < 1.01 * sizes[0]
        loaded = torch.load(tmp_path / "after.pt", weights_only=False)
        for twin in (loaded, copy.deepcopy(embedding), copy.copy(embedding)):
            assert twin(feats).equal(expected)
            one_weight_changes(twin)
            expect_folded(twin, feats)


def test_inference_mode_folds_as_well():
    feats = maps(32, 64)
    with torch.inference_mode():
        embedding = trained_embedding()
        expected = embedding(feats)
    with torch.no_grad():
        assert embedding(feats).equal(expected)
        assert trained_embedding()(feats).equal(expected)


def test_what_needs_a_gradient_in_evaluation_gets_it():
    embedding, feats = trained_embedding(), maps(32, 64)
    expected = by_the_trunk_itself(embedding, feats)
    found = embedding(feats)
    assert found.equal(expected)
    assert found.requires_grad
    frozen, feats = embedding.requires_grad_(False), feats.requires_grad_()
    assert torch.autograd.grad(frozen(feats).sum(), feats)[0].abs().max() > 0


def test_hooks_see_what_the_trunk_makes():
    embedding, feats = trained_embedding(), maps(32, 64)
    seen = []
    with torch.no_grad():
        embedding(feats)  # folds
        embedding.trunk.layer1[0].bn2.register_forward_hook(
            lambda *args: seen.append(args[2])
        )
        expected = by_the_trunk_itself(embedding, feats)
        assert embedding(feats).equal(expected)
    assert len(seen) == 2
    assert seen[0].equal(seen[1])


def test_batch_norms_in_training_take_the_batch_statistics():
    embedding, feats = trained_embedding(), maps(32, 64)
    with torch.no_grad():
        before = embedding(feats)
        for norm in batch_norms(embedding):
            norm.train()
        found = embedding(feats)
        assert found.equal(by_the_trunk_itself(embedding, feats))
    assert not found.equal(before)
    assert all(norm.num_batches_tracked == 2 for norm in batch_norms(embedding))


def with_frozen_batch_norms(embedding):
    """As in finetuning on few songs."""
    for norm in batch_norms(embedding)[:12]:
        norm.eval()


def with_cumulative_statistics(embedding):
    """Running statistics are means of all batches."""
    for norm in batch_norms(embedding):
        norm.momentum = None


def with_a_frozen_stem(embedding):
    """The first layers do not learn."""
    embedding.trunk.conv1.requires_grad_(False)
    embedding.trunk.layer1.requires_grad_(False)


def as_it_is(embedding):
    """All of it learns."""


@pytest.mark.parametrize(
    ("prepare", "autocast"),
    [
        (as_it_is, False),
        (as_it_is, True),
        (with_frozen_batch_norms, False),
        (with_cumulative_statistics, False),
        (with_a_frozen_stem, True),
    ],
)
def test_in_training_the_light_pass_is_the_plain_one_to_the_bit(prepare, autocast):
    plain = trained_embedding().train()
    prepare(plain)
    light = copy.deepcopy(plain)
    for seed in range(2):  # gradients add up
        feats = maps(32, 64) + seed
        results = []
        for embedding in (plain, light):
            leaf = feats.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                if embedding is light:
                    found = embedding(leaf)
                else:
                    last = leaf.contiguous(memory_format=torch.channels_last)
                    found = by_the_trunk_itself(embedding, last)
            found.square().mean().backward()
            results.append((found, leaf.grad))
        for expected, found in zip(*results, strict=True):
            assert found.equal(expected)
    for (name, expected), found in zip(
        plain.named_parameters(), light.parameters(), strict=True
    ):
        assert (found.grad is None) == (expected.grad is None), name
        assert found.grad is None or found.grad.equal(expected.grad), name
    for name, expected in plain.named_buffers():
        assert light.get_buffer(name).equal(expected), name
    for expected, found in zip(batch_norms(plain), batch_norms(light), strict=True):
        assert found.momentum == expected.momentum


class Memory(TorchDispatchMode):
    """Knows the memory of all tensors that are made while it is on."""

    def __init__(self):
        super().__init__()
        self.sizes = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, torch.Tensor):
                storage = output.untyped_storage()
                self.sizes[StorageWeakRef(storage)] = storage.nbytes()
        return outputs

    def still_in_use(self):
        """Bytes."""
        return sum(n for storage, n in self.sizes.items() if not storage.expired())


def test_training_keeps_a_third_less_than_the_trunk_itself():
    embedding, kept = trained_embedding().train(), []
    feats = maps(32, 128).contiguous(memory_format=torch.channels_last)
    for embed in (embedding, partial(by_the_trunk_itself, embedding)):
        with Memory() as memory:
            output = embed(feats)
        kept.append(memory.still_in_use())
        del output
        assert memory.still_in_use() < 1000  # counters of the batch norms
    assert kept[0] < 0.65 * kept[1]
