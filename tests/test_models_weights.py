"""A model's files, config.json and weights: read as written, or refused."""

import copy
import json
import os
import pickle
import struct
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.models import MODELS
from ms_sincresnet.models.config import check_config, read_config
from ms_sincresnet.models.weights import build_on_meta, read_model, write_model

from .backends import white_noise
from .small_models import small


@pytest.fixture
def model():
    return copy.deepcopy(small(MSSincResNet))


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path, small(MSSincResNet), {})
    return tmp_path


def refused(folder, **changes):
    with pytest.raises(WeightsError) as error:
        read_model(folder, MODELS, **changes)
    assert str(error.value).startswith(f"{folder / 'model.safetensors'}: ")
    return str(error.value)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_arguments_can_be_replaced_if_the_weights_fit(folder, model):
    loaded = read_model(folder, MODELS, backend="reference")
    assert loaded.frontend.backend == loaded.config["backend"] == "reference"
    wavs = white_noise(2, 8000)
    torch.testing.assert_close(loaded(wavs), model(wavs), rtol=0, atol=1e-4)
    weight = loaded.embedding.trunk.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    message = refused(folder, n_genres=5)
    assert "does not fit config.json, n_genres=5: classifier.layers.2.bias" in message
    with pytest.raises(TypeError, match="no saved argument 'n_filter'"):
        MSSincResNet.from_pretrained(folder, n_filter=1)


def test_names_and_shapes_are_compared(folder):
    path, name = folder / "model.safetensors", "frontend.banks.0.low_hz_"
    weights = load_file(path)
    del weights[name]
    for changes, message in [
        ({}, f"{name} is missing"),
        ({"extra": torch.zeros(1)}, "'extra' is unknown, and 1 more"),
        ({name: torch.zeros(9, 1)}, f"{name} has shape [9, 1], expected [8, 1]"),
    ]:
        save_file(weights | changes, path)
        assert message in refused(folder)


def test_kernel_lengths_must_be_those_of_the_weights_and_make_sense(folder):
    edit_config(folder, kernel_sizes=[101, 51, 27])
    assert "kernel_sizes [101, 51, 25]" in refused(folder)
    edit_config(folder, kernel_sizes=[101, 51, 24])
    with pytest.raises(ModelFolderError, match="config.json: .*must be odd"):
        read_model(folder, MODELS)


def test_a_file_of_something_else_is_refused_and_never_run(folder):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(folder / "made"),)

    path = folder / "model.safetensors"
    whole, pickled = path.read_bytes(), pickle.dumps(Malicious())
    huge = struct.pack("<Q", 2**63) + b"{}"
    for content in (b"", b"some text, no safetensors", whole[:-1000], huge, pickled):
        path.write_bytes(content)
        assert "not a file of weights" in refused(folder)
    torch.save(Malicious(), path)
    assert "not a file of weights" in refused(folder)
    path.rename(folder / "pytorch_model.bin")
    assert "no such file of weights" in refused(folder)
    assert not (folder / "made").exists()


def test_sizes_beyond_all_memory_are_refused_without_allocating_it(folder):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = {"hidden_size": 2**24, "n_filters": 2**14, "n_genres": 2**24}
    edit_config(folder, **largest, arch="resnet152")
    refused(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**19 * (1024 if sys.platform == "darwin" else 1)  # 512 MB


def test_a_model_that_could_not_be_read_is_not_written(tmp_path, model):
    for bad in ({"genres": ["jazz"]}, {"genres": ["a", "b", "c"], "voting": "x"}):
        with pytest.raises(ModelFolderError, match="cannot be saved: (genres|voting)"):
            write_model(tmp_path, model, SONGS | bad)
    model.classifier = nn.Linear(512, 5)
    with pytest.raises(ModelFolderError, match="not what its config says: 'classifier"):
        write_model(tmp_path, model, {})
    assert os.listdir(tmp_path) == []


def config_of(model_class):
    config = build_on_meta(model_class, {"n_genres": 2}).config
    return {"format_version": 1, "system": model_class.__name__, **config}


SONGS = {"genres": ["jazz", "rock"], "clip_samples": 48000, "hop_samples": 8000}
SONGS |= {"voting": "majority", "full_scale": 1.0}
FIGURES = dict.fromkeys(("song_accuracy", "clip_accuracy", "tracks", "clips"), 0.5)
FIGURES["epoch"] = 7
TRAINING = {"dataset": "GTZAN", "protocol": "x", "figures": FIGURES}
FULL = config_of(MSSincResNet) | {"speechbrain_interface": "x", **SONGS}


def fault(config=FULL, **changes):
    with pytest.raises(ValueError) as error:
        check_config({**config, **changes}, MODELS)
    return str(error.value)


def test_a_sound_configuration_is_read():
    for model_class in MODELS.values():
        config = build_on_meta(model_class, {"n_genres": 2}).config
        assert check_config(config_of(model_class), MODELS) == (model_class, config, {})
    fitted = {"temperature": 0.59, "usual_norm": 60, "training": TRAINING}
    for more in ({}, fitted, {"training": TRAINING | {"figures": None}}):
        assert check_config(FULL | more, MODELS)[2] == SONGS | more
    check_config(FULL | {"hidden_size": None}, MODELS)
    older = {key: value for key, value in FULL.items() if key != "parametrization"}
    assert check_config(older, MODELS) == check_config(FULL, MODELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Newer formats may have new names.
        ({"format_version": 2, "invention": 1}, "format_version is 2; ms_sincresnet "),
        ({"system": "NoNet"}, "system must be MSSincResNet or "),
        ({"auto_map": "x", "n_filter": 8}, "unknown names: ['auto_map', 'n_filter']"),
        ({"affine_samples": 32000}, "clip_samples must be 32000, as affine_samples is"),
    ],
)
def test_another_format_model_or_name_is_refused(changes, message):
    assert fault(**changes).startswith(message)


def test_a_missing_name_is_named():
    for name in (*SONGS, "n_genres", "kernel_sizes"):
        config = {key: value for key, value in FULL.items() if key != name}
        assert fault(config) == f"{name} missing"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("format_version", [0, 1.0, "1", True, None]),
        ("n_filters", ["8", -8, 0, 8.0, True, None, [8], 10**9]),
        ("init", [None, 1, ["mel"]]),
        ("kernel_sizes", [251, "251", [251, 501, 0], [251, None, 1], [10**9]]),
        ("genres", [["jazz"], ["jazz", "jazz"], ["jazz", ""], ["jazz", 1], "ab", None]),
        ("clip_samples", [0, 1.5, "48000", None, 10**9]),
        ("hop_samples", [0, True, [8000], 10**9]),
        ("voting", ["median", None, 1, ["mean"], {}]),
        ("full_scale", [0, -1.0, "1", None, True, float("nan"), float("inf"), 1e30]),
        ("temperature", [0, None, float("nan"), 1e4, 1e-4, [1]]),
        ("training", [None, "GTZAN", {}, {**TRAINING, "dataset": "GT\x1b"}]),
    ],
)
def test_a_value_must_make_sense(name, values):
    for value in values:
        assert fault(**{name: value}).startswith(f"{name} must be ")


def test_clips_must_be_long_enough_for_the_model():
    assert "at least 1001 " in fault(padding="valid", clip_samples=900)
    for model_class, least in [(SincNet, 3200), (MelResNet, 1025)]:
        config = config_of(model_class) | SONGS
        check_config(config | {"clip_samples": least}, MODELS)
        message = fault(config, clip_samples=least - 1)
        assert f"at least {least} for this model" in message


@pytest.mark.parametrize("name", ["genres", "system", "format_version", "\x1b[31mx"])
def test_messages_are_short_and_move_no_cursor(name):
    for value in ("\x1b[31m" * 10**5, ["\x1b"] * 10**5, 10**4000):
        message = fault(**{name: value})
        assert len(message) < 400 and message.isprintable()


def test_a_file_is_read_and_named_in_the_error(tmp_path):
    with pytest.raises(ModelFolderError) as error:
        read_config(tmp_path, MODELS)
    assert str(error.value) == f"{tmp_path}: config.json is missing"
    (tmp_path / "hyperparams.yaml").touch()
    with pytest.raises(ModelFolderError, match="export the run again"):
        read_config(tmp_path, MODELS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FULL))
    assert read_config(str(tmp_path), MODELS) == check_config(FULL, MODELS)
    huge = json.dumps(FULL).encode() + b" " * 2**20
    long = b'{"format_version": ' + b"9" * 5000 + b"}"
    for content in (b"{", b"\xff\xfe{", b"[1, 2]", b"[" * 100_000, long, huge):
        path.write_bytes(content)
        with pytest.raises(ModelFolderError) as error:
            read_config(tmp_path, MODELS)
        assert str(error.value).startswith(f"{path}: ")
        assert len(str(error.value)) < 1000
