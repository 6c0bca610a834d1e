"""config.json: what is right is read, and each fault is told by name."""

import json

import pytest

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.models.config import check_config, read_config

NETWORK = {
    "n_genres": 2,
    "n_filters": 8,
    "kernel_sizes": [251, 501, 1001],
    "pooling": "spp",
    "n_frames": 1024,
    "sample_rate": 16000,
    "init": "mel",
    "padding": "same",
    "backend": "auto",
    "arch": "resnet18",
    "hidden_size": 512,
    "affine_samples": None,
}
SONGS = {
    "genres": ["jazz", "rock"],
    "clip_samples": 48000,
    "hop_samples": 8000,
    "voting": "majority",
    "full_scale": 1.0,
}
BARE = {"format_version": 1, "system": "MSSincResNet", **NETWORK}
FULL = {**BARE, "speechbrain_interface": "EncoderClassifier", **SONGS}


def fault(**changes):
    """What is told of a configuration with some values changed."""
    with pytest.raises(ValueError) as error:
        check_config({**FULL, **changes})
    return str(error.value)


def test_what_is_right_is_read():
    assert check_config(BARE) == (MSSincResNet, NETWORK, {})
    assert check_config(FULL, MSSincResNet) == (MSSincResNet, NETWORK, SONGS)
    for system in (MSSincResNet, MelResNet, SincNet):
        config = system(n_genres=2).config
        names = {"format_version": 1, "system": system.__name__}
        assert check_config(names | config) == (system, config, {})


@pytest.mark.parametrize("version", [2, 10**30])
def test_a_newer_format_asks_for_a_newer_package(version):
    told = fault(format_version=version)
    assert f"is {version}, and ms_sincresnet " in told
    assert "reads up to 1; pip install -U ms_sincresnet" in told


def test_a_newer_format_is_told_before_its_new_names_are():
    assert "pip install -U" in fault(format_version=2, invention=1)


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None, [1]])
def test_what_is_no_format_version(version):
    assert fault(format_version=version).startswith("format_version must be")


@pytest.mark.parametrize("system", ["SincNet", "NoNet", None, ["MSSincResNet"], {}])
def test_another_system_is_refused(system):
    with pytest.raises(ValueError) as error:
        check_config({**BARE, "system": system}, MSSincResNet)
    assert f"its system is {system!r}, expected MSSincResNet" in str(error.value)
    if system == "SincNet":
        assert "load it by SincNet.from_pretrained" in str(error.value)


def test_unknown_and_missing_names_are_told():
    assert fault(auto_map="x", n_filter=8) == "unknown names: ['auto_map', 'n_filter']"
    assert fault(weights="imagenet") == "unknown names: ['weights']"
    for name in [*NETWORK, *SONGS]:
        config = {key: value for key, value in FULL.items() if key != name}
        with pytest.raises(ValueError, match=f"it lacks {name}$"):
            check_config(config)


@pytest.mark.parametrize("name", ["n_filters", "n_genres", "n_frames", "sample_rate"])
@pytest.mark.parametrize("value", ["many", "8", -8, 0, 8.0, True, None, [8], 10**9])
def test_a_number_must_be_whole_and_not_absurd(name, value):
    told = fault(**{name: value})
    assert told.startswith(f"{name} must be a whole number from ")
    assert repr(value) in told


@pytest.mark.parametrize("value", [251, "251", [251, 501, 0], [251, None, 1], [10**9]])
def test_kernel_sizes_must_be_numbers(value):
    assert fault(kernel_sizes=value).startswith("kernel_sizes must be whole numbers")


def test_only_some_arguments_may_be_none():
    _, arguments, _ = check_config({**FULL, "hidden_size": None})
    assert arguments["hidden_size"] is None
    for name in ("init", "padding", "pooling", "arch", "backend"):
        for value in (None, 1, ["mel"]):
            assert fault(**{name: value}).startswith(f"{name} must be a word")


@pytest.mark.parametrize(
    "genres",
    [
        ["jazz"],
        ["jazz", "jazz"],
        ["jazz", "rock", "pop"],
        ["jazz", ""],
        ["jazz", 1],
        ["jazz", "ro\x1b[31mck"],
        ["jazz", "ro\nck"],
        "ab",
        {"jazz": 0, "rock": 1},
        None,
    ],
)
def test_genres_must_be_one_name_an_output(genres):
    assert fault(genres=genres).startswith("genres must be 2 different names")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("clip_samples", [0, -1, 1.5, "48000", None, 10**9]),
        ("hop_samples", [0, True, [8000], 10**9]),
        ("voting", ["median", None, 1, ["mean"], {}]),
        ("full_scale", [0, -1.0, "1", None, True, float("nan"), float("inf"), 1e30]),
    ],
)
def test_settings_of_songs_must_make_sense(name, values):
    for value in values:
        assert fault(**{name: value}).startswith(f"{name} must be ")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"affine_samples": 32000}, "clip_samples must be the affine_samples, 32000"),
        ({"padding": "valid", "clip_samples": 900}, "must be at least 1001 "),
    ],
)
def test_clips_must_be_as_long_as_the_network_needs(changes, told):
    assert told in fault(**changes)


def test_clips_of_the_baselines_must_fill_a_frame_or_window():
    for system, least in [(SincNet, 3200), (MelResNet, 1025)]:
        config = {**system(n_genres=2).config, **SONGS, "format_version": 1}
        config["system"] = system.__name__
        check_config({**config, "clip_samples": least})
        with pytest.raises(ValueError, match=f"at least {least} for this network"):
            check_config({**config, "clip_samples": least - 1})


def test_what_is_told_is_short_and_moves_no_cursor():
    for changes in (
        {"init": "\x1b[31m" + "x" * 10**5, "genres": ["\x1b"] * 10**5},
        {"\x1b[31m" + "x" * 10**5: 1},
        {"system": "\x1b[31m" * 10**5},
        {"genres": ["\x1b[31m"] * 10**5},
        {"format_version": "\x1b[31m" * 10**5},
    ):
        told = fault(**changes)
        assert len(told) < 400
        assert told.isprintable()


def test_a_file_is_read_and_named_in_the_error(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FULL))
    assert read_config(tmp_path) == (MSSincResNet, NETWORK, SONGS)
    assert read_config(str(tmp_path))[2] == SONGS
    path.write_text(json.dumps({**FULL, "n_filters": "many"}))
    with pytest.raises(ModelFolderError) as error:
        read_config(tmp_path)
    assert str(error.value).startswith(f"{path}: n_filters must be")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"format_version": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "cut", "no text", "list", "null", "word", "deep", "digits"],
)
def test_what_is_no_configuration_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelFolderError) as error:
        read_config(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert len(str(error.value)) < 1000


def test_what_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FULL) + " " * 2**20)
    with pytest.raises(ModelFolderError, match=f"{path}: too large"):
        read_config(tmp_path)


def test_a_missing_file_is_told_and_what_to_do(tmp_path):
    with pytest.raises(ModelFolderError) as error:
        read_config(tmp_path)
    assert str(error.value) == f"{tmp_path}: no config.json there"
    (tmp_path / "hyperparams.yaml").write_text("x: !apply:os.system [false]")
    with pytest.raises(ModelFolderError) as error:
        read_config(tmp_path)
    for part in ("export it again", "GenreClassifier.from_hparams", "if you trust it"):
        assert part in str(error.value)
