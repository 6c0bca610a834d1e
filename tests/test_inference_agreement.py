"""A folder is not pushed whose two halves are different models."""

import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.pretrained.agreement import check_agreement
from ms_sincresnet.pretrained.model_folder import FILES


@pytest.fixture
def folder(tmp_path, model_folder):
    """A model folder to be changed."""
    return shutil.copytree(model_folder, tmp_path / "model")


def disagrees(folder):
    """The file that is told to hold another model."""
    with pytest.raises(ModelFolderError) as error:
        check_agreement(folder)
    told = re.fullmatch(r"(.*): another model in (.*) than in .*", str(error.value))
    assert told[1] == str(folder)
    return told[2]


def test_a_folder_as_it_is_written_agrees(model_folder):
    check_agreement(model_folder)
    check_agreement(str(model_folder))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"it lacks {name}"):
        check_agreement(folder)


@pytest.mark.parametrize("name", ["embedding_model.ckpt", "classifier.ckpt"])
def test_other_weights_disagree(folder, name):
    state = torch.load(folder / name, weights_only=True)
    last = next(reversed(state))
    state[last] = state[last] + 1
    torch.save(state, folder / name)
    assert disagrees(folder) == name
    torch.save({}, folder / name)
    with pytest.raises(WeightsError):
        check_agreement(folder)


def test_the_safe_half_may_be_the_one_that_changed(folder):
    path = folder / "model.safetensors"
    weights = {name: value + 1 for name, value in load_file(path).items()}
    weights["frontend.kernel_sizes"] -= 1
    save_file(weights, path)
    assert disagrees(folder) == "embedding_model.ckpt, classifier.ckpt"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hop_samples: 8000 ", "hop_samples: 4000 "),
        ("voting: majority", "voting: mean"),
        ("full_scale: 1.0", "full_scale: 2.0"),
        ("backend: auto", "backend: fft"),
        ("ms_sincresnet.MSSincResNet", "ms_sincresnet.SincNet"),
    ],
)
def test_hyperparams_that_say_something_else_disagree(folder, old, new):
    path = folder / "hyperparams.yaml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    assert disagrees(folder) == "hyperparams.yaml"


@pytest.mark.parametrize("content", ["", "no labels", "'a => 1\n===\n"])
def test_labels_that_say_something_else_disagree(folder, genres, content):
    path = folder / "label_encoder.ckpt"
    text = path.read_text()
    path.write_text(content)
    assert disagrees(folder) == "label_encoder.ckpt"
    path.write_text(text.replace(genres[0], "polka"))
    assert disagrees(folder) == "label_encoder.ckpt"


def test_code_in_the_other_half_is_not_run_by_the_check(folder, tmp_path):
    made = tmp_path / "made"
    with (folder / "hyperparams.yaml").open("a") as file:
        file.write(f"x: !apply:os.mkdir ['{made}']\n")
    check_agreement(folder)
    assert os.listdir(tmp_path) == ["model"]
