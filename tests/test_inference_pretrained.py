"""A network's two files: what was saved is what is loaded, or nothing is."""

import json
import os
import struct
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.models.weights import (
    outline,
    read_network,
    whole_files,
    write_network,
)

SETTINGS = {
    "genres": ["jazz", "rock"],
    "clip_samples": 16000,
    "hop_samples": 4000,
    "voting": "mean",
    "full_scale": 32768.0,
}


@pytest.fixture(scope="module")
def network():
    """A network, not to be changed, with statistics that are not those of the start."""
    torch.manual_seed(0)
    network = MSSincResNet(2, n_filters=8, n_frames=64, pooling="avg", hidden_size=None)
    with torch.no_grad():
        network.train()(torch.randn(4, 8000))
    return network.eval()


@pytest.fixture
def folder(tmp_path, network):
    """The network's two files, to be changed."""
    write_network(tmp_path, network, {})
    return tmp_path


def refused(folder, **changes):
    """What is told of weights that cannot be used."""
    with pytest.raises(WeightsError) as error:
        read_network(folder, **changes)
    assert str(error.value).startswith(f"{folder / 'model.safetensors'}: ")
    return str(error.value)


def edit(folder, change):
    """Changes the saved weights by a function of their dict."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_the_weights_come_back(folder, network):
    loaded = read_network(folder)
    assert type(loaded) is MSSincResNet
    assert not loaded.training
    assert loaded.config == network.config
    assert loaded.settings == {}
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    state = loaded.state_dict()
    assert state.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert state[name].equal(value), name
    wavs = torch.randn(2, 16000)
    assert loaded(wavs).equal(network(wavs))


def test_the_settings_of_songs_come_back(tmp_path, network):
    write_network(tmp_path, network, SETTINGS, speechbrain_interface="E")
    assert read_network(tmp_path).settings == SETTINGS
    config = json.loads((tmp_path / "config.json").read_text())
    assert [*config][:4] == [
        "format_version",
        "speechbrain_interface",
        "system",
        "genres",
    ]
    assert config["system"] == "MSSincResNet"


def test_both_files_are_as_readable_as_others(folder):
    (folder / "other").write_text("")
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1


def test_the_file_is_row_major_and_shares_nothing(tmp_path, network):
    """The trunk's channels lie last in memory, and one weight has two names here."""
    model = read_network_of(network)
    block = model.embedding.trunk.layer1[0]
    block.conv2.weight = block.conv1.weight
    assert not block.conv1.weight.is_contiguous()
    write_network(tmp_path, model, {})
    saved = load_file(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert saved[name].equal(value), name
        assert saved[name].is_contiguous()
    loaded = read_network(tmp_path)
    conv = loaded.embedding.trunk.layer1[0].conv1.weight
    assert conv.is_contiguous(memory_format=torch.channels_last)


def read_network_of(network):
    """A copy of a network, which may be changed."""
    copy = MSSincResNet(**network.config).eval()
    copy.load_state_dict(network.state_dict())
    return copy


def test_arguments_can_be_replaced_if_the_weights_fit(folder, network):
    loaded = read_network(folder, backend="reference")
    assert loaded.frontend.backend == loaded.config["backend"] == "reference"
    wavs = torch.randn(2, 16000)
    torch.testing.assert_close(loaded(wavs), network(wavs), rtol=0, atol=1e-4)
    told = refused(folder, n_genres=5)
    assert "does not fit config.json, n_genres=5: classifier.layers.bias has" in told
    assert "kernel_sizes [251, 501, 1001]" in refused(folder, kernel_sizes=(3, 5, 7))
    for name in ("weights", "n_filter", "strict"):
        with pytest.raises(TypeError, match=f"no saved argument '{name}'"):
            read_network(folder, **{name: 1})


def test_names_and_shapes_are_compared(folder):
    edit(folder, lambda weights: weights.pop("frontend.banks.0.low_hz_"))
    assert "frontend.banks.0.low_hz_ is missing" in refused(folder)
    edit(folder, lambda weights: weights.update(extra=torch.zeros(1)))
    assert "'extra' is unknown, and 1 more" in refused(folder)
    bank = {"frontend.banks.0.low_hz_": torch.zeros(9, 1)}
    edit(folder, lambda weights: (weights.update(bank), weights.pop("extra")))
    told = refused(folder)
    assert "frontend.banks.0.low_hz_ has shape [9, 1], expected [8, 1]" in told


def test_weights_of_other_kernel_lengths_are_refused(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace("1001", "801"))
    assert "kernel_sizes [251, 501, 1001]" in refused(folder)


def test_half_precision_is_loaded_in_full(tmp_path, network):
    write_network(tmp_path, read_network_of(network).half(), {})
    loaded = read_network(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    wavs = torch.randn(2, 16000)
    torch.testing.assert_close(loaded(wavs), network(wavs), rtol=0, atol=0.05)


def with_header(header):
    """A safetensors file that says something else of itself than is true."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


LIAR = {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"no safetensors file, but some text instead",
        struct.pack("<Q", 2**63) + b"{}",
        with_header(b"{"),
        with_header(b"\xff" * 64),
        with_header({"x": LIAR}),
        with_header({"x": {**LIAR, "shape": [16], "data_offsets": [0, 2**60]}}),
        with_header({"x": {**LIAR, "shape": [16], "dtype": "PICKLE"}}),
        "cut",
        "longer",
    ],
)
def test_what_is_no_safetensors_file_is_refused(folder, content):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    if isinstance(content, str):
        content = {"cut": whole[:-1000], "longer": whole + b"more"}[content]
    path.write_bytes(content)
    assert "not a safetensors file, or not all of it (" in refused(folder)


def test_a_pickle_is_never_looked_at(folder, network, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save(Malicious(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "kept")
    assert "no such file of weights" in refused(folder)
    torch.save(Malicious(), folder / "model.safetensors")
    assert "not a safetensors file" in refused(folder)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("system", [MSSincResNet, MelResNet, SincNet])
def test_an_outline_has_the_names_and_shapes_of_the_network(system):
    found, network = outline(system, {}), system()
    for kind in ("parameters", "buffers"):
        expected = {n: p.shape for n, p in getattr(network, f"named_{kind}")()}
        outlined = dict(getattr(found, f"named_{kind}")())
        assert {n: p.shape for n, p in outlined.items()} == expected
    assert all(
        parameter.is_meta
        for n, parameter in found.named_parameters()
        if not n.endswith("_hz_")
    )


def test_sizes_that_no_memory_holds_are_refused_without_it(folder):
    """The largest values that a config may have: 2560 × 16 million numbers …"""
    resource = pytest.importorskip("resource")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = {"hidden_size": 2**24, "n_filters": 2**14, "n_genres": 2**24}
    path.write_text(json.dumps({**config, **largest, "arch": "resnet152"}))
    refused(folder)
    frames = {"frame_samples": 2**24, "kernel_size": 3}
    sincnet = {**SincNet().config, **frames, "format_version": 1, "system": "SincNet"}
    path.write_text(json.dumps(sincnet))
    refused(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**19 * (1024 if sys.platform == "darwin" else 1)  # 512 MB


def test_a_value_that_the_network_refuses_names_the_file(folder):
    path = folder / "config.json"
    text = path.read_text()
    for old, new, told in [
        ('"avg"', '"max"', "pooling must be one of"),
        ('"resnet18"', '"resnet17"', "arch must be one of"),
        ('"mel"', '"mal"', "init must be one of"),
        ("501", "500", "must be odd"),
        ("251,", "", r"must be three"),
    ]:
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        with pytest.raises(ModelFolderError, match=told) as error:
            read_network(folder)
        assert str(error.value).startswith(f"{path}: ")


def test_what_could_not_be_read_is_not_written(tmp_path, network):
    changed = read_network_of(network)
    changed.classifier = nn.Linear(512, 5)
    with pytest.raises(ModelFolderError, match="not what its config says: 'classifier"):
        write_network(tmp_path, changed, {})
    for settings in (SETTINGS | {"genres": ["jazz"]}, SETTINGS | {"voting": "x"}):
        with pytest.raises(ModelFolderError, match="cannot be saved: (genres|voting)"):
            write_network(tmp_path, network, settings)
    assert os.listdir(tmp_path) == []


def fill(folder, **texts):
    """Writes files."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def contents(folder):
    """Files of a folder by name."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_are_replaced_all_or_none(tmp_path):
    old = {"config_json": "old", "model_safetensors": "old", "notes_txt": "mine"}
    folder = fill(tmp_path / "a", **old)
    with pytest.raises(OSError), whole_files(folder) as new:
        fill(new, config_json="new")
        raise OSError("no space left on device")
    assert contents(folder) == contents(fill(tmp_path / "b", **old))
    with whole_files(folder) as new:
        fill(new, config_json="new", model_safetensors="new", README_md="new")
    assert contents(folder) == contents(
        fill(
            tmp_path / "b",
            **{"config_json": "new", "model_safetensors": "new", "README_md": "new"},
        )
    )
    with whole_files(folder) as new:
        fill(new, config_json="newer", README_md="newer")
    assert (folder / "config.json").read_text() == "newer"
    assert (folder / "README.md").read_text() == "new"  # the user may have written it
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_new_folder_is_not_left_behind(tmp_path):
    with pytest.raises(OSError), whole_files(tmp_path / "x" / "a"):
        raise OSError("no space left on device")
    assert not (tmp_path / "x" / "a").exists()


def test_a_kill_between_two_files_leaves_no_model(tmp_path, monkeypatch):
    folder = fill(tmp_path / "a", config_json="old", model_safetensors="old")
    moved = []

    def killed(self, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(self.name)
        os.replace(self, target)

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt), whole_files(folder) as new:
        fill(new, config_json="new", model_safetensors="new")
    assert contents(folder) == {"model.safetensors": "new"}


def test_a_model_of_speechbrains_is_not_half_replaced(tmp_path):
    folder = fill(tmp_path / "a", hyperparams_yaml="old", config_json="old")
    with pytest.raises(ModelFolderError, match="would disagree"), whole_files(folder):
        pytest.fail("nothing is to be written")
    assert contents(folder) == {"hyperparams.yaml": "old", "config.json": "old"}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ModelFolderError, match="a file"), whole_files(tmp_path / "a"):
        pytest.fail("nothing is to be written")
    assert (tmp_path / "a").read_text() == "mine"
