"""Models of the Hub: saved and loaded, trained on, and copied as before."""

import copy
import functools
import json
import pickle
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from hyperpyyaml import load_hyperpyyaml

from ms_sincresnet import GenreClassifier, MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.pretrained.card import Training
from ms_sincresnet.pretrained.model_folder import FILES, save_model_folder

MODELS = {
    MSSincResNet: {"n_filters": 8, "n_frames": 64, "kernel_sizes": (25, 51, 101)},
    MelResNet: {"n_mels": 32, "hidden_size": None},
    SincNet: {"n_filters": 8, "kernel_size": 51, "frame_samples": 800},
}
GENRES = ["jazz", "rock", "blues"]

each_model = pytest.mark.parametrize("model_class", MODELS)


@functools.cache
def built(model_class):
    torch.manual_seed(0)
    return model_class(n_genres=3, **MODELS[model_class]).eval()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def wavs():
    return torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))


@each_model
def test_a_saved_model_is_loaded_as_it_was(model_class, tmp_path, wavs, capsys):
    model = built(model_class)
    assert model.save_pretrained(tmp_path / "a") is None
    expected = model(wavs)  # which leaves nothing in the saved files
    model.save_pretrained(tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    loaded = model_class.from_pretrained(str(tmp_path / "a"))
    assert isinstance(loaded, PyTorchModelHubMixin)
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded(wavs).equal(expected)
    assert capsys.readouterr().out == ""
    names = {"format_version": 1, "system": model_class.__name__}
    assert json.loads(files["config.json"]) == names | model.config
    loaded.train()(wavs)[:, 0].sum().backward()
    for name, parameter in loaded.named_parameters():
        assert parameter.grad.ne(0).any(), name


def test_a_model_of_songs_is_loaded_trained_and_saved(tmp_path, wavs):
    clips = {"clip_samples": 8000, "hop_samples": 3000, "full_scale": 2.0}
    training = Training("GTZAN", "one split", None)
    folder, model = tmp_path / "a", built(SincNet)
    save_model_folder(folder, model, GENRES, voting="mean", training=training, **clips)
    (folder / "README.md").write_text("mine")
    loaded = SincNet.from_pretrained(folder)
    assert loaded.settings.pop("training") == training._asdict()
    assert loaded.settings == {"genres": GENRES, "voting": "mean", **clips}
    loaded.settings["genres"] = names = ["polka", "jazz", "rock"]
    loaded.settings["training"] = training._asdict()
    with torch.no_grad():
        for parameter in loaded.parameters():  # as if trained
            parameter.add_(0.01)
    loaded.save_pretrained(folder)
    assert contents(folder).keys() == {*FILES}
    assert (folder / "README.md").read_text() == "mine"
    again = SincNet.from_pretrained(folder)
    assert again.settings == {"genres": names, "voting": "mean", **clips}
    assert again(wavs).equal(loaded(wavs))
    assert not again(wavs).equal(model(wavs))
    for load in (GenreClassifier.from_pretrained, GenreClassifier.from_hparams):
        hparams = load(folder).hparams
        assert {name: getattr(hparams, name) for name in clips} == clips
        assert hparams.label_encoder.decode_ndim([0, 1, 2]) == names
    model.save_pretrained(folder)  # which has no genres
    assert contents(folder).keys() == {*FILES} - {"hyperparams.yaml"}


def test_files_that_are_half_replaced_are_no_model(tmp_path, monkeypatch):
    folder, model = tmp_path / "a", built(SincNet)
    model.save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    changed = SincNet(3, **MODELS[SincNet])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        killed = Mock(side_effect=[None, KeyboardInterrupt])
        patched.setattr("pathlib.Path.replace", killed)
        changed.save_pretrained(folder)
    assert "config.json" not in contents(folder)  # so it is no model
    model.save_pretrained(folder)
    assert contents(folder) == before
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # readable


def test_the_hyperparams_of_something_else_are_not_lost(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("of a run")
    with pytest.raises(ModelFolderError, match="does not belong to a model"):
        built(SincNet).save_pretrained(tmp_path)
    assert contents(tmp_path) == {"hyperparams.yaml": b"of a run"}


def test_the_card_says_how_to_install_and_load(tmp_path):
    built(SincNet).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    parts = ["`pip install .` in a clone", 'SincNet.from_pretrained("user/repository")']
    parts += ["16000 Hz", "3 classes", "no accuracy can be claimed", "10.1145/3460426"]
    assert [part for part in parts if part not in card.text] == []
    assert "pip install ms_sincresnet" not in card.text  # the name is another's on PyPI
    data = card.data
    assert (data.license, data.library_name) == ("apache-2.0", "ms_sincresnet")
    assert (data.pipeline_tag, data.eval_results) == ("audio-classification", None)


def test_weights_come_from_a_file_once_and_are_then_the_models(tmp_path):
    trunk = built(MelResNet).embedding.trunk
    torch.save(trunk.state_dict(), tmp_path / "trunk.pth")
    model = MelResNet(n_mels=32, weights=tmp_path / "trunk.pth")
    assert "weights" not in model.config
    model.save_pretrained(tmp_path / "a")
    (tmp_path / "trunk.pth").unlink()
    loaded = MelResNet.from_pretrained(tmp_path / "a")
    for name, value in loaded.embedding.trunk.state_dict().items():
        assert value.equal(trunk.state_dict()[name])


@each_model
def test_copies_pickles_and_yaml_rebuild_a_model(model_class, tmp_path, wavs):
    model = copy.deepcopy(built(model_class))
    model.settings = {"genres": ["a", "b", "c"]}
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    for other in (pickle.loads(pickle.dumps(model)), loaded):
        assert other(wavs).equal(built(model_class)(wavs))
        assert (other.config, other.settings) == (model.config, model.settings)
    text = (
        f"model: !new:ms_sincresnet.{model_class.__name__} {json.dumps(model.config)}"
    )
    built_by_yaml = load_hyperpyyaml(text)["model"]
    assert (built_by_yaml.config, built_by_yaml.settings) == (model.config, {})
