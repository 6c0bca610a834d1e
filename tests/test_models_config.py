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
ARGUMENTS |= {"hidden_size": 512, "affine_samples": None, "parametrization": "hz"}
SONGS = {"genres": ["jazz", "rock"], "clip_samples": 48000, "hop_samples": 8000}
SONGS |= {"voting": "majority", "full_scale": 1.0}
FIGURES = {"song_accuracy": 0.85, "clip_accuracy": 0.7, "tracks": 100, "clips": 5500}
FIGURES["epoch"] = 7
TRAINING = {"dataset": "GTZAN", "protocol": "x", "figures": FIGURES}
BARE = {"format_version": 1, "system": "MSSincResNet", **ARGUMENTS}
FULL = {**BARE, "speechbrain_interface": "EncoderClassifier", **SONGS}
FAULTY = [0, -1.0, "1", None, True, float("nan"), float("inf"), 1e4, 1e-4, [1]]
NEWER = "format_version is 2; ms_sincresnet "


def fault(config=FULL, **changes):
    with pytest.raises(ValueError) as error:
        check_config({**config, **changes}, MODELS)
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
    fitted = {**SONGS, "temperature": 0.59, "usual_norm": 60}
    assert check_config({**FULL, **fitted}, MODELS)[2] == fitted
    for model_class in MODELS.values():
        config = build_on_meta(model_class, {"n_genres": 2}).config
        assert check_config(built(model_class), MODELS) == (model_class, config, {})
    check_config({**FULL, "hidden_size": None}, MODELS)
    older = {key: value for key, value in FULL.items() if key != "parametrization"}
    assert check_config(older, MODELS) == check_config(FULL, MODELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2, "invention": 1}, NEWER),  # before its new names
        ({"system": "NoNet"}, "system must be MSSincResNet or "),
        ({"auto_map": "x", "n_filter": 8}, "unknown names: ['auto_map', 'n_filter']"),
        ({"weights": "imagenet"}, "unknown names: ['weights']"),
        ({"affine_samples": 32000}, "clip_samples must be 32000, as affine_samples is"),
    ],
)
def test_another_format_model_or_name_is_refused(changes, message):
    assert fault(**changes).startswith(message)


@pytest.mark.parametrize("name", [*SONGS, "n_genres", "kernel_sizes"])
def test_a_missing_name_is_named(name):
    config = {key: value for key, value in FULL.items() if key != name}
    assert fault(config) == f"{name} missing"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("format_version", [0, 1.0, "1", True, None]),
        ("n_filters", ["8", -8, 0, 8.0, True, None, [8], 10**9]),
        ("n_genres", ["2", 0, 10**9]),
        ("init", [None, 1, ["mel"]]),
        ("kernel_sizes", [251, "251", [251, 501, 0], [251, None, 1], [10**9]]),
        ("genres", [["jazz"], ["jazz", "jazz"], ["jazz", "rock", "pop"], ["jazz", ""]]),
        ("genres", [["jazz", 1], ["jazz", "ro\x1b[31mck"], "ab", {"jazz": 0}, None]),
        ("clip_samples", [0, 1.5, "48000", None, 10**9]),
        ("hop_samples", [0, True, [8000], 10**9]),
        ("voting", ["median", None, 1, ["mean"], {}]),
        ("full_scale", [0, -1.0, "1", None, True, float("nan"), float("inf"), 1e30]),
        *((name, FAULTY) for name in ("temperature", "usual_norm")),
        ("training", [None, "GTZAN", {}, {"dataset": "GTZAN", "protocol": "x"}]),
        ("training", [{**TRAINING, "dataset": "GT\x1b"}]),
    ],
)
def test_a_value_must_make_sense(name, values):
    for value in values:
        assert fault(**{name: value}).startswith(f"{name} must be ")


def test_clips_must_be_long_enough_for_the_model():
    assert "at least 1001 " in fault(padding="valid", clip_samples=900)
    for model_class, least in [(SincNet, 3200), (MelResNet, 1025)]:
        config = built(model_class) | SONGS
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
    (tmp_path / "hyperparams.yaml").write_text("x: !apply:os.system [false]")
    with pytest.raises(ModelFolderError, match="export the run again"):
        read_config(tmp_path, MODELS)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FULL))
    assert read_config(str(tmp_path), MODELS) == (MSSincResNet, ARGUMENTS, SONGS)
    texts = [b"{", b"\xff\xfe{", b"[1, 2]", b"[" * 100_000]
    texts += [json.dumps({**FULL, "n_filters": "many"}).encode()]
    texts += [b'{"format_version": ' + b"9" * 5000 + b"}"]
    for content in (*texts, json.dumps(FULL).encode() + b" " * 2**20):
        path.write_bytes(content)
        with pytest.raises(ModelFolderError) as error:
            read_config(tmp_path, MODELS)
        assert str(error.value).startswith(f"{path}: ")
        assert len(str(error.value)) < 1000
