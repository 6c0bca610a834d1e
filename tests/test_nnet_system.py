"""Systems as models of the Hub: saved, loaded, trained on, and copied as before."""

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
from ms_sincresnet.pretrained.model_folder import save_model_folder

MODELS = {
    MSSincResNet: {"n_filters": 8, "n_frames": 64, "kernel_sizes": (25, 51, 101)},
    MelResNet: {"n_mels": 32, "hidden_size": None},
    SincNet: {"n_filters": 8, "kernel_size": 51, "frame_samples": 800},
}
FILES = ["README.md", "config.json", "model.safetensors"]

each_system = pytest.mark.parametrize("system", MODELS)


def build(system, **options):
    """A small network of three genres, in evaluation mode."""
    torch.manual_seed(0)
    return system(n_genres=3, **MODELS[system], **options).eval()


@pytest.fixture
def wavs():
    return torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))


@each_system
def test_what_is_saved_is_what_is_loaded(system, tmp_path, wavs, capsys):
    model = build(system)
    expected = model(wavs)
    assert model.save_pretrained(tmp_path / "a") is None
    assert sorted(os.listdir(tmp_path / "a")) == FILES
    for folder in (tmp_path / "a", str(tmp_path / "a")):
        loaded = system.from_pretrained(folder)
        assert isinstance(loaded, PyTorchModelHubMixin)
        assert not loaded.training
        assert loaded.config == model.config
        assert loaded(wavs).equal(expected)
    assert capsys.readouterr().out == ""
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    names = {"format_version": 1, "system": system.__name__}
    assert config == names | json.loads(json.dumps(model.config))


@each_system
def test_another_system_is_refused_and_named(system, tmp_path):
    build(system).save_pretrained(tmp_path)
    for other in MODELS.keys() - {system}:
        told = f"system is '{system.__name__}', expected {other.__name__}"
        with pytest.raises(ModelFolderError, match=told):
            other.from_pretrained(tmp_path)


def test_a_class_of_ones_own_is_saved_under_its_name(tmp_path, wavs):
    class Mine(SincNet):
        pass

    model = Mine(3, **MODELS[SincNet]).eval()
    model.save_pretrained(tmp_path)
    assert Mine.from_pretrained(tmp_path)(wavs).equal(model(wavs))
    with pytest.raises(ModelFolderError, match="system is 'Mine', expected SincNet"):
        SincNet.from_pretrained(tmp_path)


def test_a_model_folder_is_a_network_too_and_keeps_its_settings(tmp_path, wavs):
    """From a model folder to further training to a new folder for whole songs."""
    model, genres = build(SincNet), ["jazz", "rock", "blues"]
    cut = {"clip_samples": 8000, "hop_samples": 3000, "full_scale": 2.0}
    save_model_folder(tmp_path / "a", model, genres, voting="mean", **cut)
    loaded = SincNet.from_pretrained(tmp_path / "a")
    assert loaded.settings == {"genres": genres, "voting": "mean", **cut}
    with torch.no_grad():
        for parameter in loaded.parameters():  # as if trained
            parameter.add_(0.01)
    loaded.save_pretrained(tmp_path / "b")
    again = SincNet.from_pretrained(tmp_path / "b")
    assert again.settings == loaded.settings
    assert again(wavs).equal(loaded(wavs))
    assert not again(wavs).equal(model(wavs))
    hparams = GenreClassifier.from_pretrained(tmp_path / "b").hparams
    assert {name: getattr(hparams, name) for name in cut} == cut
    assert hparams.label_encoder.decode_ndim([0, 1, 2]) == genres
    assert "speechbrain_interface" not in (tmp_path / "b" / "config.json").read_text()


def test_a_loaded_network_can_be_trained(tmp_path, wavs):
    build(MelResNet).save_pretrained(tmp_path)
    model = MelResNet.from_pretrained(tmp_path).train()
    model(wavs)[:, 0].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.ne(0).any(), name


def test_evaluation_leaves_nothing_in_what_is_saved(tmp_path, wavs):
    """In evaluation the batch norms are folded into a copy of the trunk."""
    model = build(MSSincResNet)
    model.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        model(wavs)
    model.save_pretrained(tmp_path / "after")
    before, after = (
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("before", "after")
    )
    assert before == after


def test_a_model_folder_is_not_made_to_disagree(tmp_path):
    model = build(SincNet)
    save_model_folder(tmp_path / "a", model, ["jazz", "rock", "blues"])
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ModelFolderError, match=r"hyperparams\.yaml and checkpoints"):
        model.save_pretrained(tmp_path / "a")
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert os.listdir(tmp_path) == ["a"]


def test_nothing_half_written_stays_behind(tmp_path, monkeypatch):
    model = build(SincNet)

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    model.save_pretrained(tmp_path / "old")
    before = {path: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    monkeypatch.setattr("ms_sincresnet.models.weights.save", fail)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="no space"):
            model.save_pretrained(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    assert {path: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


def test_the_card_says_how_to_install_and_load(tmp_path):
    build(SincNet).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.text.split()[:4] == ["```sh", "pip", "install", "ms_sincresnet"]
    assert 'SincNet.from_pretrained("user/repository")' in card.text
    assert (card.data.license, card.data.library_name) == (
        "apache-2.0",
        "ms_sincresnet",
    )
    (tmp_path / "README.md").write_text("mine")
    build(SincNet).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_weights_start_from_a_file_once_and_are_then_the_networks(tmp_path):
    trunk = build(MelResNet).embedding.trunk
    torch.save(trunk.state_dict(), tmp_path / "trunk.pth")
    model = build(MelResNet, weights=tmp_path / "trunk.pth")
    model.save_pretrained(tmp_path / "a")
    (tmp_path / "trunk.pth").unlink()
    loaded = MelResNet.from_pretrained(tmp_path / "a")
    assert loaded.embedding.trunk.conv1.weight.equal(trunk.conv1.weight)


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


@each_system
def test_copies_files_and_yaml_build_it_as_before(system, tmp_path, wavs):
    model = build(system)
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
    text = f"model: !new:ms_sincresnet.{system.__name__}\n" + "\n".join(lines)
    built = load_hyperpyyaml(text)["model"]
    assert built.config == model.config
    assert built.settings == {}


def test_no_folder_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "nowhere", "nowhere", "./no/where", "~nobody/model"):
        with pytest.raises(ModelFolderError, match="no such model folder"):
            SincNet.from_pretrained(path)
    with pytest.raises(ModelFolderError, match=r"no config\.json there"):
        SincNet.from_pretrained(tmp_path)
