"""config.json: a sound one is read, and each fault is named."""

import json

import pytest

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.models import MODELS
from ms_sincresnet.models.config import check_config, read_config
from ms_sincresnet.models.weights import build_on_meta

ARGUMENTS = {"n_genres": 2, "n_filters": 8, "kernel_sizes": [251, 501, 1001]}
ARGUMENTS |= {"pooling": "spp", "n_frames": 1024, "sample_rate": 16000, "init": "mel"}
ARGUMENTS |= {"padding": "same", "backend": "auto", "arch": "resnet18"}
ARGUMENTS |= {"hidden_size": 512, "affine_samples": None}
SONGS = {"genres": ["jazz", "rock"], "clip_samples": 48000, "hop_samples": 8000}
SONGS |= {"voting": "majority", "full_scale": 1.0}
FIGURES = {"song_accuracy": 0.85, "clip_accuracy": 0.7, "tracks": 100, "clips": 5500}
FIGURES["epoch"] = 7
TRAINING = {"dataset": "GTZAN", "protocol": "x", "figures": FIGURES}
BARE = {"format_version": 1, "system": "MSSincResNet", **ARGUMENTS}
FULL = {**BARE, "speechbrain_interface": "EncoderClassifier", **SONGS}


def fault(config=FULL, known=MODELS, **changes):
    with pytest.raises(ValueError) as error:
        check_config({**config, **changes}, known)
    return str(error.value)


def built(model_class):
    config = build_on_meta(model_class, {"n_genres": 2}).config
    return {"format_version": 1, "system": model_class.__name__, **config}


def test_a_sound_configuration_is_read():
    assert check_config(BARE, MODELS) == (MSSincResNet, ARGUMENTS, {})
    assert check_config(FULL, MODELS) == (MSSincResNet, ARGUMENTS, SONGS)
    for training in (TRAINING, {**TRAINING, "figures": None}):
        found = check_config({**FULL, "training": training}, MODELS)[2]
        assert found == {**SONGS, "training": training}
    for model_class in MODELS.values():
        config = build_on_meta(model_class, {"n_genres": 2}).config
        assert check_config(built(model_class), MODELS) == (model_class, config, {})


def test_a_newer_format_asks_for_a_newer_package():
    message = fault(format_version=2, invention=1)  # before its new names
    assert message.startswith("format_version is 2; ms_sincresnet ")
    assert message.endswith("reads up to 1: install a newer one")


def test_another_model_is_refused():
    for name in ("SincNet", "NoNet", None, ["MSSincResNet"], {}):
        message = fault(BARE, {"MSSincResNet": MSSincResNet}, system=name)
        assert message == f"system must be MSSincResNet; got {name!r}"


def test_unknown_and_missing_names_are_named():
    assert fault(auto_map="x", n_filter=8) == "unknown names: ['auto_map', 'n_filter']"
    assert fault(weights="imagenet") == "unknown names: ['weights']"
    for name in [*ARGUMENTS, *SONGS]:
        config = {key: value for key, value in FULL.items() if key != name}
        assert fault(config) == f"{name} missing"


@pytest.mark.parametrize("name", ["n_filters", "n_genres", "n_frames", "sample_rate"])
def test_a_number_must_be_whole_and_within_bounds(name):
    for value in ("many", "8", -8, 0, 8.0, True, None, [8], 10**9):
        message = fault(**{name: value})
        assert message.startswith(f"{name} must be a whole number from ")
        assert repr(value) in message


def test_only_some_arguments_may_be_none():
    check_config({**FULL, "hidden_size": None}, MODELS)
    for name in ("init", "padding", "pooling", "arch", "backend"):
        for value in (None, 1, ["mel"]):
            assert fault(**{name: value}).startswith(f"{name} must be a word")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("format_version", [0, -1, 1.0, "1", True, None, [1]]),
        ("kernel_sizes", [251, "251", [251, 501, 0], [251, None, 1], [10**9]]),
        ("genres", [["jazz"], ["jazz", "jazz"], ["jazz", "rock", "pop"], ["jazz", ""]]),
        ("genres", [["jazz", 1], ["jazz", "ro\x1b[31mck"], ["jazz", "ro\nck"]]),
        ("genres", ["ab", {"jazz": 0, "rock": 1}, None]),
        ("clip_samples", [0, -1, 1.5, "48000", None, 10**9]),
        ("hop_samples", [0, True, [8000], 10**9]),
        ("voting", ["median", None, 1, ["mean"], {}]),
        ("full_scale", [0, -1.0, "1", None, True, float("nan"), float("inf"), 1e30]),
        ("training", [None, "GTZAN", {}, {"dataset": "GTZAN", "protocol": "x"}]),
        ("training", [{**TRAINING, "dataset": "GT\x1b"}]),
    ],
)
def test_a_value_must_make_sense(name, values):
    for value in values:
        assert fault(**{name: value}).startswith(f"{name} must be ")


@pytest.mark.parametrize(
    "figures",
    [{}, [], 0.9, FIGURES | {"x": 1}, FIGURES | {"clips": "many"}]
    + [FIGURES | {"song_accuracy": value} for value in (None, True, float("nan"))],
)
def test_figures_must_be_those_of_a_test(figures):
    message = fault(training={**TRAINING, "figures": figures})
    assert message.startswith("figures must be null, or the numbers")


def test_clips_must_be_long_enough_for_the_model():
    assert "must be 32000, as affine_samples is" in fault(affine_samples=32000)
    assert "at least 1001 " in fault(padding="valid", clip_samples=900)
    for model_class, least in [(SincNet, 3200), (MelResNet, 1025)]:
        config = built(model_class) | SONGS
        check_config(config | {"clip_samples": least}, MODELS)
        message = fault(config, clip_samples=least - 1)
        assert f"at least {least} for this model" in message


def test_messages_are_short_and_move_no_cursor():
    for changes in (
        {"init": "\x1b[31m" + "x" * 10**5, "genres": ["\x1b"] * 10**5},
        {"\x1b[31m" + "x" * 10**5: 1},
        {"system": "\x1b[31m" * 10**5},
        {"genres": ["\x1b[31m"] * 10**5},
        {"training": {"\x1b[31m" * 10**5: 1}},
        {"format_version": "\x1b[31m" * 10**5},
        {"format_version": 10**4000},
    ):
        message = fault(**changes)
        assert len(message) < 400
        assert message.isprintable()


def test_a_file_is_read_and_named_in_the_error(tmp_path):
    with pytest.raises(ModelFolderError) as error:
        read_config(tmp_path, MODELS)
    assert str(error.value) == f"{tmp_path}: config.json is missing"
    (tmp_path / "hyperparams.yaml").write_text("x: !apply:os.system [false]")
    with pytest.raises(ModelFolderError, match="export the run again"):
        read_config(tmp_path, MODELS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FULL))
    assert read_config(str(tmp_path), MODELS) == (MSSincResNet, ARGUMENTS, SONGS)
    texts = [b"", b"{", b"\xff\xfe{", b"[1, 2]", b"null", b'"text"', b"[" * 100_000]
    texts += [json.dumps({**FULL, "n_filters": "many"}).encode()]
    texts += [b'{"format_version": ' + b"9" * 5000 + b"}"]
    for content in (*texts, json.dumps(FULL).encode() + b" " * 2**20):
        path.write_bytes(content)
        with pytest.raises(ModelFolderError) as error:
            read_config(tmp_path, MODELS)
        assert str(error.value).startswith(f"{path}: ")
        assert len(str(error.value)) < 1000
