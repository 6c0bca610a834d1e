"""A model's files: read as they were written, or refused."""

import copy
import json
import os
import struct
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ms_sincresnet import MSSincResNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.models import MODELS
from ms_sincresnet.models.weights import read_model, write_model

SETTINGS = {"genres": ["jazz", "rock"], "clip_samples": 16000, "hop_samples": 4000}
SETTINGS |= {"voting": "mean", "full_scale": 32768.0}


@pytest.fixture(scope="module")
def model():
    """A model, not to be changed, with batch statistics as after training."""
    torch.manual_seed(0)
    model = MSSincResNet(2, n_filters=8, n_frames=64, pooling="avg", hidden_size=None)
    with torch.no_grad():
        model.train()(torch.randn(4, 8000))
    return model.eval()


@pytest.fixture
def folder(tmp_path, model):
    write_model(tmp_path, model, {})
    return tmp_path


def refused(folder, **changes):
    with pytest.raises(WeightsError) as error:
        read_model(folder, MODELS, **changes)
    assert str(error.value).startswith(f"{folder / 'model.safetensors'}: ")
    return str(error.value)


def edit(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_the_model_comes_back(tmp_path, model):
    write_model(tmp_path, model, SETTINGS)
    loaded = read_model(tmp_path, MODELS)
    assert type(loaded) is MSSincResNet
    assert not loaded.training
    assert (loaded.config, loaded.settings) == (model.config, SETTINGS)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert state[name].equal(value), name


def test_the_file_is_row_major_and_shares_nothing(tmp_path, model):
    """The trunk's channels lie last in memory, and one weight has two names here."""
    model = copy.deepcopy(model)
    block = model.embedding.trunk.layer1[0]
    block.conv2.weight = block.conv1.weight
    assert not block.conv1.weight.is_contiguous()
    write_model(tmp_path, model, {})
    saved = load_file(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert saved[name].equal(value), name
        assert saved[name].is_contiguous()
    conv = read_model(tmp_path, MODELS).embedding.trunk.layer1[0].conv1.weight
    assert conv.is_contiguous(memory_format=torch.channels_last)


def test_arguments_can_be_replaced_if_the_weights_fit(folder, model):
    loaded = read_model(folder, MODELS, backend="reference")
    assert loaded.frontend.backend == loaded.config["backend"] == "reference"
    wavs = torch.randn(2, 8000)
    torch.testing.assert_close(loaded(wavs), model(wavs), rtol=0, atol=1e-4)
    message = refused(folder, n_genres=5)
    assert "does not fit config.json, n_genres=5: classifier.layers.bias has" in message
    for name in ("weights", "n_filter", "strict"):
        with pytest.raises(TypeError, match=f"no saved argument '{name}'"):
            MSSincResNet.from_pretrained(folder, **{name: 1})


def test_names_shapes_and_kernel_lengths_are_compared(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace("1001", "801"))
    assert "kernel_sizes [251, 501, 1001]" in refused(folder)
    edit(folder, lambda weights: weights.pop("frontend.banks.0.low_hz_"))
    assert "frontend.banks.0.low_hz_ is missing" in refused(folder)
    edit(folder, lambda weights: weights.update(extra=torch.zeros(1)))
    assert "'extra' is unknown, and 1 more" in refused(folder)
    bank = {"frontend.banks.0.low_hz_": torch.zeros(9, 1)}
    edit(folder, lambda weights: (weights.update(bank), weights.pop("extra")))
    message = refused(folder)
    assert "frontend.banks.0.low_hz_ has shape [9, 1], expected [8, 1]" in message


def with_header(lie):
    """A file of one tensor, with something wrong in its header."""
    sound = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    text = json.dumps({"x": sound | lie}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


def test_a_file_of_something_else_is_refused(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    contents = [b"", b"no safetensors file, but some text instead", whole[:-1000]]
    contents.append(struct.pack("<Q", 2**63) + b"{}")
    lies = {"shape": [10**9, 10**9]}, {"data_offsets": [0, 2**60]}, {"dtype": "PICKLE"}
    for content in (*contents, *map(with_header, lies)):
        path.write_bytes(content)
        assert "not a file of weights" in refused(folder)


def test_a_pickle_is_never_loaded(folder, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save(Malicious(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "kept")
    assert "no such file of weights" in refused(folder)
    torch.save(Malicious(), folder / "model.safetensors")
    assert "not a file of weights" in refused(folder)
    assert not (tmp_path / "made").exists()


def test_sizes_beyond_all_memory_are_refused_without_allocating_it(folder):
    resource = pytest.importorskip("resource")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = {"hidden_size": 2**24, "n_filters": 2**14, "n_genres": 2**24}
    path.write_text(json.dumps({**config, **largest, "arch": "resnet152"}))
    refused(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**19 * (1024 if sys.platform == "darwin" else 1)  # 512 MB


def test_a_value_that_the_model_refuses_names_the_file(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace("501", "500"))
    with pytest.raises(ModelFolderError, match=f"{path}: .*must be odd"):
        read_model(folder, MODELS)


def test_a_model_that_could_not_be_read_is_not_written(tmp_path, model):
    changed = copy.deepcopy(model)
    changed.classifier = nn.Linear(512, 5)
    with pytest.raises(ModelFolderError, match="not what its config says: 'classifier"):
        write_model(tmp_path, changed, {})
    for settings in (SETTINGS | {"genres": ["jazz"]}, SETTINGS | {"voting": "x"}):
        with pytest.raises(ModelFolderError, match="cannot be saved: (genres|voting)"):
            write_model(tmp_path, model, settings)
    assert os.listdir(tmp_path) == []
