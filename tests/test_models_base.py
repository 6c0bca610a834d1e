"""Models of the Hub: saved and loaded, trained on, and copied as before."""

import copy
import json
import os
import pickle

import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from hyperpyyaml import load_hyperpyyaml

from ms_sincresnet import GenreClassifier, MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.pretrained.card import Training
from ms_sincresnet.pretrained.model_folder import FILES, save_model_folder

MODELS = {
    MSSincResNet: {"n_filters": 8, "n_frames": 64, "kernel_sizes": (25, 51, 101)},
    MelResNet: {"n_mels": 32, "hidden_size": None},
    SincNet: {"n_filters": 8, "kernel_size": 51, "frame_samples": 800},
}
GENRES = ["jazz", "rock", "blues"]

each_model = pytest.mark.parametrize("model_class", MODELS)


def build(model_class, **options):
    """A small model of three genres, in evaluation mode."""
    torch.manual_seed(0)
    return model_class(n_genres=3, **MODELS[model_class], **options).eval()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def wavs():
    return torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))


@each_model
def test_a_saved_model_is_loaded_as_it_was(model_class, tmp_path, wavs, capsys):
    model = build(model_class)
    expected = model(wavs)
    assert model.save_pretrained(tmp_path / "a") is None
    names = {"README.md", "config.json", "model.safetensors"}
    assert contents(tmp_path / "a").keys() == names
    for folder in (tmp_path / "a", str(tmp_path / "a")):
        loaded = model_class.from_pretrained(folder)
        assert isinstance(loaded, PyTorchModelHubMixin)
        assert not loaded.training
        assert loaded.config == model.config
        assert loaded(wavs).equal(expected)
    assert capsys.readouterr().out == ""
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    names = {"format_version": 1, "system": model_class.__name__}
    assert config == names | json.loads(json.dumps(model.config))
    for other in MODELS.keys() - {model_class}:
        message = f"system must be {other.__name__}; got '{model_class.__name__}'"
        with pytest.raises(ModelFolderError, match=message):
            other.from_pretrained(tmp_path / "a")


def test_a_subclass_is_saved_under_its_own_name(tmp_path, wavs):
    class Mine(SincNet):
        pass

    model = Mine(3, **MODELS[SincNet]).eval()
    model.save_pretrained(tmp_path)
    assert Mine.from_pretrained(tmp_path)(wavs).equal(model(wavs))
    with pytest.raises(ModelFolderError, match="system must be SincNet; got 'Mine'"):
        SincNet.from_pretrained(tmp_path)


def test_a_model_folder_is_loaded_trained_and_saved_with_its_settings(tmp_path, wavs):
    """From a model folder to further training to a new folder for whole songs."""
    clips = {"clip_samples": 8000, "hop_samples": 3000, "full_scale": 2.0}
    training = Training("GTZAN", "one split", None)
    model = build(SincNet)
    save_model_folder(
        tmp_path / "a", model, GENRES, voting="mean", training=training, **clips
    )
    loaded = SincNet.from_pretrained(tmp_path / "a")
    assert loaded.settings.pop("training") == training._asdict()
    assert loaded.settings == {"genres": GENRES, "voting": "mean", **clips}
    with torch.no_grad():
        for parameter in loaded.parameters():  # as if trained
            parameter.add_(0.01)
    loaded.save_pretrained(tmp_path / "b")
    again = SincNet.from_pretrained(tmp_path / "b")
    assert again.settings == loaded.settings
    assert again(wavs).equal(loaded(wavs))
    assert not again(wavs).equal(model(wavs))
    for load in (GenreClassifier.from_pretrained, GenreClassifier.from_hparams):
        hparams = load(tmp_path / "b").hparams
        assert {name: getattr(hparams, name) for name in clips} == clips
        assert hparams.label_encoder.decode_ndim([0, 1, 2]) == GENRES


def test_a_model_is_saved_into_a_model_folder(tmp_path):
    """Files rendered from the configuration follow it; the card is the user's."""
    folder = tmp_path / "a"
    training = Training("GTZAN", "one split", None)
    save_model_folder(folder, build(SincNet), GENRES, training=training)
    (folder / "README.md").write_text("mine")
    model = SincNet.from_pretrained(folder)
    model.settings["genres"] = ["polka", "jazz", "rock"]
    model.save_pretrained(folder)
    assert contents(folder).keys() == {*FILES}
    assert (folder / "README.md").read_text() == "mine"
    assert "training" not in (folder / "config.json").read_text()  # it may be another
    for load in (GenreClassifier.from_pretrained, GenreClassifier.from_hparams):
        assert load(folder).hparams.label_encoder.decode_ndim([0]) == ["polka"]
    build(SincNet).save_pretrained(folder)  # which has no genres
    assert contents(folder).keys() == {*FILES} - {"hyperparams.yaml"}


def test_the_hyperparams_of_something_else_are_not_lost(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("of a run")
    with pytest.raises(ModelFolderError, match="does not belong to a model"):
        build(SincNet).save_pretrained(tmp_path)
    assert contents(tmp_path) == {"hyperparams.yaml": b"of a run"}


def test_a_loaded_model_can_be_trained(tmp_path, wavs):
    build(MelResNet).save_pretrained(tmp_path)
    model = MelResNet.from_pretrained(tmp_path).train()
    model(wavs)[:, 0].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.ne(0).any(), name


def test_evaluation_leaves_nothing_in_the_saved_files(tmp_path, wavs):
    """Batch norms are folded, if they are, into a copy of the trunk."""
    model = build(MSSincResNet)
    model.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        model(wavs)
    model.save_pretrained(tmp_path / "after")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_nothing_half_written_stays_behind(tmp_path, monkeypatch):
    model = build(SincNet)

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    model.save_pretrained(tmp_path / "old")
    before = contents(tmp_path / "old")
    monkeypatch.setattr("ms_sincresnet.models.weights.save", fail)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="no space"):
            model.save_pretrained(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    assert contents(tmp_path / "old") == before


def test_the_card_says_how_to_install_and_load(tmp_path):
    build(SincNet).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    for part in (
        "`pip install .` in a clone",
        'SincNet.from_pretrained("user/repository")',
        "16000 Hz",
        "3 classes",
        "no accuracy can be claimed",
        "10.1145/3460426.3463619",
    ):
        assert part in card.text
    assert "pip install ms_sincresnet" not in card.text  # the name is another's on PyPI
    data = card.data
    assert (data.license, data.library_name) == ("apache-2.0", "ms_sincresnet")
    assert data.pipeline_tag == "audio-classification"
    assert data.eval_results is None
    (tmp_path / "README.md").write_text("mine")
    build(SincNet).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_weights_come_from_a_file_once_and_are_then_the_models(tmp_path):
    trunk = build(MelResNet).embedding.trunk
    torch.save(trunk.state_dict(), tmp_path / "trunk.pth")
    torch.manual_seed(1)
    model = MelResNet(n_mels=32, weights=tmp_path / "trunk.pth")
    for name, value in model.embedding.trunk.state_dict().items():
        assert value.equal(trunk.state_dict()[name])
    assert "weights" not in model.config
    model.save_pretrained(tmp_path / "a")
    (tmp_path / "trunk.pth").unlink()
    loaded = MelResNet.from_pretrained(tmp_path / "a")
    assert loaded.embedding.trunk[0].weight.equal(trunk[0].weight)


def test_a_poisoned_file_of_weights_runs_nothing(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"conv1.weight": Malicious()}, tmp_path / "trunk.pth")
    with pytest.raises(WeightsError, match="not a file of weights"):
        build(MelResNet, weights=tmp_path / "trunk.pth")
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "trunk.pth", weights_only=False)  # the trap works
    assert (tmp_path / "made").exists()


@each_model
def test_copies_pickles_and_yaml_rebuild_a_model(model_class, tmp_path, wavs):
    model = build(model_class)
    model.settings = {"genres": ["a", "b", "c"]}
    torch.save(model, tmp_path / "model.pt")
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(tmp_path / "model.pt", weights_only=False),
    ):
        assert other(wavs).equal(model(wavs))
        assert (other.config, other.settings) == (model.config, model.settings)
    lines = [f"    {name}: {json.dumps(value)}" for name, value in model.config.items()]
    text = f"model: !new:ms_sincresnet.{model_class.__name__}\n" + "\n".join(lines)
    built = load_hyperpyyaml(text)["model"]
    assert built.config == model.config
    assert built.settings == {}


def test_a_missing_folder_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "nowhere", "nowhere", "./no/where", "~nobody/model"):
        with pytest.raises(ModelFolderError, match="no such model folder"):
            SincNet.from_pretrained(path)
    with pytest.raises(ModelFolderError, match=r"config\.json is missing"):
        SincNet.from_pretrained(tmp_path)
