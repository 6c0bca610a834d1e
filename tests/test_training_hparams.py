from pathlib import Path

import pytest
import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml, resolve_references

from ms_sincresnet.errors import HparamError, WeightsError
from ms_sincresnet.training import hparams
from ms_sincresnet.training.hparams import open_hparams, plain_hparams

MODEL = """\
kernel_size: 251
weights: null
bank: !new:ms_sincresnet.SincFilterbank
    n_filters: 8
    kernel_size: !ref <kernel_size>
embedding: !new:ms_sincresnet.ResNetEmbedding
    weights: !ref <weights>
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(MODEL)
    return tmp_path / "recipe.yaml"


def load(path, overrides=""):
    """Loads hparams as train.py does."""
    with open_hparams(path, overrides, "Download it.") as (file, nested):
        return hparams.flatten(load_hyperpyyaml(file, nested))


AS_WRITTEN = ["/music/a #1", "take=1", "x: =#'\"q", "*a", "it's", "a\\tb: c", "ü: 音"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in AS_WRITTEN),
        *(("7", 7), ("0.5", 0.5), ("true", True), ("null", None), ("", None)),
        *((f"~/{text}", str(Path.home() / text)) for text in ("GTZAN", "a #1")),
        ("~", None),
        *(("[3, 5]", [3, 5]), ('"a: b"', "a: b"), ("!ref <kernel_size>", 251)),
    ],
)
def test_a_value_on_the_command_line_is_read_as_written(recipe, text, value):
    for words in ([f"--weights={text}"], ["--weights", text]):
        words = hparams.quoted(["recipe.yaml", "--device=cuda:1", *words, "--debug"])
        _, run_opts, overrides = sb.parse_arguments(words)
        assert plain_hparams(recipe, overrides)["weights"] == value
        assert run_opts.device == "cuda:1" and run_opts.debug


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("kernal_size: 501", r"--kernal_size.*did you mean --kernel_size\?"),
        ("kernel_size: many", "recipe.yaml: .*must be odd.*'many'"),
        ("kernel_size: [", r"options: 'kernel_size: \['"),
        ("weights: a\nweights: b", '(?s)options.*duplicate key "weights"'),
    ],
)
def test_mistakes_name_the_hparam(recipe, overrides, message):
    with pytest.raises(HparamError, match=message):
        load(recipe, overrides)


def test_overrides_reach_what_is_built_and_errors_keep_their_kind(recipe):
    assert load(recipe, "kernel_size: 501")["bank"].filters().shape == (8, 501)
    with pytest.raises(WeightsError, match="nowhere.pth"):
        load(recipe, "weights: nowhere.pth")


@pytest.fixture
def family(tmp_path):
    """A file that includes one that includes another, each with values of its own."""
    (tmp_path / "common.yaml").write_text(
        "data_folder: !PLACEHOLDER\nname: !PLACEHOLDER\nseed: 1\nfold: 0\n"
        "__run: !apply:os.getcwd\n"
        "folder: !ref results/<name>/<fold>\n"
        "modules: {model: !ref <model>}\nkept: [!ref <model>]\n"
    )
    (tmp_path / "model.yaml").write_text(
        "name: one\nsize: 3\nbase: !include:common.yaml\n"
        "    name: !ref <name>\n    model: !new:torch.nn.Linear\n"
        "        in_features: !ref <size>\n        out_features: 2\n"
    )
    (tmp_path / "variant.yaml").write_text(
        "base: !include:model.yaml\n    name: other\n    size: 5\n    base: {fold: 4}\n"
    )
    return tmp_path


def test_included_files_are_one_with_the_file(family):
    one = load(family / "model.yaml", "data_folder: x\nseed: 7\nsize: 4")
    assert (one["seed"], one["fold"], one["folder"]) == (7, 0, "results/one/0")
    assert one["model"].in_features == 4
    assert one["model"] is one["modules"]["model"] is one["kept"][0]
    assert "base" not in one and "__run" not in one
    other = load(family / "variant.yaml", "data_folder: x\nseed: 7")
    assert (other["folder"], other["seed"]) == ("results/other/4", 7)
    assert other["model"].in_features == 5
    other = load(family / "variant.yaml", "data_folder: x\nsize: 6\nfold: 2")
    assert other["folder"] == "results/other/2"


def test_mistakes_in_included_files_are_found(family):
    with pytest.raises(HparamError, match="--sead: no such .* did you mean --seed"):
        load(family / "variant.yaml", "data_folder: x\nsead: 7")
    with pytest.raises(HparamError, match="variant.yaml: data_folder is missing"):
        load(family / "variant.yaml")
    (family / "common.yaml").unlink()
    with pytest.raises(HparamError, match="common.yaml: no such hparams file"):
        load(family / "variant.yaml")


def test_plain_hparams_build_nothing(recipe, family):
    assert plain_hparams(recipe, "weights: nowhere.pth") == {
        "kernel_size": 251,
        "weights": "nowhere.pth",
        "bank": ("ms_sincresnet.SincFilterbank", {"n_filters": 8, "kernel_size": 251}),
        "embedding": ("ms_sincresnet.ResNetEmbedding", {"weights": "nowhere.pth"}),
    }
    plain = plain_hparams(family / "variant.yaml", "data_folder: x")
    with open_hparams(family / "variant.yaml", "data_folder: x") as (file, nested):
        saved = resolve_references(file, nested).read()  # as SpeechBrain does
    assert hparams.read_plainly(saved) == plain
    linear = ("torch.nn.Linear", {"in_features": 5, "out_features": 2})
    assert plain["model"] == linear and plain["folder"] == "results/other/4"
