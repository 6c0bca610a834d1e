import pytest
import yaml

from ms_sincresnet.errors import HparamError, WeightsError
from ms_sincresnet.training.hparams import (
    load_hparams,
    parse_arguments,
    plain_hparams,
)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "kernel_size: 251\n"
        "weights: null\n"
        "bank: !new:ms_sincresnet.SincFilterbank\n"
        "    n_filters: 8\n"
        "    kernel_size: !ref <kernel_size>\n"
        "embedding: !new:ms_sincresnet.ResNetEmbedding\n"
        "    weights: !ref <weights>\n"
    )
    return path


def test_overrides_reach_what_is_built(recipe):
    hparams = load_hparams(recipe, "kernel_size: 501")
    assert hparams["bank"].filters().shape == (8, 501)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("kernal_size: 501", ["--kernal_size", "did you mean --kernel_size?"]),
        ("zzz: 1", ["--zzz: no such hparam"]),
        ("kernel_size: 250", ["recipe.yaml", "must be odd", "250"]),
        ("kernel_size: many", ["recipe.yaml", "must be odd", "'many'"]),
        ("kernel_size: [", ["not valid as overrides"]),
        ("kernel_size 501", ["'kernel_size 501'", "not valid as overrides"]),
    ],
)
def test_mistakes_name_the_hparam(recipe, overrides, parts):
    with pytest.raises(HparamError) as error:
        load_hparams(recipe, overrides)
    for part in parts:
        assert part in str(error.value)


def test_an_unknown_argument_names_the_class(recipe):
    recipe.write_text(recipe.read_text().replace("n_filters", "n_filter"))
    with pytest.raises(HparamError, match="n_filter"):
        load_hparams(recipe)


def test_an_error_of_the_users_keeps_its_kind(recipe):
    with pytest.raises(WeightsError, match="nowhere.pth"):
        load_hparams(recipe, "weights: nowhere.pth")


@pytest.mark.parametrize("text", ["kernel_size: [251\nbank: }", "", "- 251"])
def test_a_file_that_is_not_yaml_is_named(recipe, text):
    recipe.write_text(text)
    with pytest.raises(HparamError, match="recipe.yaml: not valid yaml"):
        load_hparams(recipe)


@pytest.mark.parametrize("read", [load_hparams, plain_hparams])
@pytest.mark.parametrize(
    "words",
    [
        ["--weights=a.pth", "--kernel_size=501", "--kernel_size=501"],
        ["--kernel_size", "501", "--weights=a.pth", "--kernel_size=251"],
    ],
)
def test_an_option_that_is_given_twice_is_named(recipe, words, read):
    _, _, overrides = parse_arguments([str(recipe), *words])
    with pytest.raises(HparamError, match="--kernel_size: given more than once"):
        read(recipe, overrides)


def test_plain_hparams_build_nothing(recipe):
    assert plain_hparams(recipe, "weights: nowhere.pth") == {
        "kernel_size": 251,
        "weights": "nowhere.pth",
        "bank": None,
        "embedding": None,
    }
    recipe.write_text("data_folder: !PLACEHOLDER\n")
    with pytest.raises(HparamError, match="'data_folder' is a !PLACEHOLDER"):
        plain_hparams(recipe)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("GTZAN", "GTZAN"),
        ('it\'s "my" müsic: take #1, a=b', 'it\'s "my" müsic: take #1, a=b'),
        ("'quoted'", "quoted"),
        ("C: #", "C: #"),
        ("[251, 501]", [251, 501]),
        ("0.5", 0.5),
        ("null", None),
        ("", None),
        ("-1", -1),
    ],
)
def test_values_are_what_was_typed(value, expected):
    words = ["a b.yaml", f"--value={value}", "--device=cpu", "--last=1"]
    hparams_file, run_opts, overrides = parse_arguments(words)
    assert hparams_file == "a b.yaml"
    assert run_opts.device == "cpu"
    assert yaml.safe_load(overrides) == {"value": expected, "last": 1}
