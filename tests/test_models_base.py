"""The models of Table 1: trained, moved, saved, loaded and rebuilt."""

import copy
import json
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch.func import functional_call

from ms_sincresnet import GenreClassifier, MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.models.hub import fetch
from ms_sincresnet.models.weights import build_on_meta
from ms_sincresnet.nnet.frontend import LogMelSpectrogram
from ms_sincresnet.pretrained.card import Training
from ms_sincresnet.pretrained.model_folder import FILES, save_model_folder

from .backends import white_noise
from .small_models import each_model, small

GENRES = ["jazz", "rock", "blues"]
WAVS = white_noise(2, 8000)

each_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@each_model
def test_a_saved_model_is_loaded_as_it_was(model_class, tmp_path):
    model = small(model_class)
    model.save_pretrained(tmp_path / "a")
    expected = model(WAVS)  # which leaves nothing in the saved files
    model.save_pretrained(tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    names = {"format_version": 1, "system": model_class.__name__}
    assert json.loads(files["config.json"]) == names | model.config
    loaded = model_class.from_pretrained(str(tmp_path / "a"))
    assert isinstance(loaded, PyTorchModelHubMixin)
    assert (loaded.training, loaded.config) == (False, model.config)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert loaded(WAVS).equal(expected)


def test_a_model_of_songs_is_loaded_trained_and_saved(tmp_path):
    clips = {"clip_samples": 8000, "hop_samples": 3000, "full_scale": 2.0}
    training = Training("GTZAN", "one split", None)
    folder, model = tmp_path / "a", small(SincNet)
    save_model_folder(folder, model, GENRES, voting="mean", training=training, **clips)
    (folder / "README.md").write_text("mine")
    loaded = SincNet.from_pretrained(folder)
    settings = {"genres": GENRES, "voting": "mean", **clips}
    assert loaded.settings == settings | {"training": training._asdict()}
    loaded.settings["genres"] = settings["genres"] = ["polka", "jazz", "rock"]
    with torch.no_grad():
        for parameter in loaded.parameters():  # as if trained
            parameter.add_(0.01)
    loaded.save_pretrained(folder)
    assert contents(folder).keys() == {*FILES}
    assert (folder / "README.md").read_text() == "mine"
    again = SincNet.from_pretrained(folder)
    assert again.settings == settings
    assert again(WAVS).equal(loaded(WAVS))
    hparams = GenreClassifier.from_hparams(folder).hparams
    assert {name: getattr(hparams, name) for name in clips} == clips
    assert hparams.label_encoder.decode_ndim([0, 1, 2]) == settings["genres"]
    model.save_pretrained(folder)  # which has no genres
    assert contents(folder).keys() == {*FILES} - {"hyperparams.yaml"}


def test_files_that_are_half_replaced_are_no_model(tmp_path, monkeypatch):
    folder, model = tmp_path / "a", small(SincNet)
    model.save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        killed = Mock(side_effect=[None, KeyboardInterrupt])
        patched.setattr("pathlib.Path.replace", killed)
        SincNet(3, n_filters=4).save_pretrained(folder)
    assert "config.json" not in contents(folder)  # so it is no model
    model.save_pretrained(folder)
    assert contents(folder) == before
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # readable


def test_the_hyperparams_of_something_else_are_not_lost(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("of a run")
    with pytest.raises(ModelFolderError, match="does not belong to a model"):
        small(SincNet).save_pretrained(tmp_path)
    assert contents(tmp_path) == {"hyperparams.yaml": b"of a run"}


def test_the_card_says_how_to_install_and_load(tmp_path):
    small(SincNet).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    parts = ["`pip install .` in a clone", 'SincNet.from_pretrained("user/repository")']
    parts += ["16000 Hz", "3 classes", "no accuracy can be claimed"]
    assert [part for part in parts if part not in card.text] == []
    assert card.data.library_name == "ms_sincresnet"


def test_a_folder_comes_before_a_repository_and_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "ms_sincresnet")
    download = Mock(return_value=tmp_path / "snapshots/0123/file")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch("user/songs@v2") == tmp_path / "snapshots/0123"
    # The weights come from the commit of config.json.
    assert [each.kwargs["revision"] for each in download.mock_calls] == ["v2", "0123"]
    (tmp_path / "user/songs").mkdir(parents=True)
    for source in ("user/songs", "./user/songs", tmp_path / "user/songs"):
        assert fetch(source) == Path(source)
    message = "user/songs: the folder here is taken, not the Hub's repository"
    assert caplog.messages == [message]
    assert download.call_count == 2


@each_model
@each_mode
def test_gradients_reach_every_parameter_and_silence_is_finite(model_class, training):
    model = copy.deepcopy(small(model_class)).train(training)
    model(WAVS)[:, 2].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.ne(0).any(), name
    model.zero_grad()
    log_posteriors = model(torch.zeros(2, 8000))
    log_posteriors[:, 2].sum().backward()
    gradients = (parameter.grad for parameter in model.parameters())
    for values in (log_posteriors, *model.buffers(), *gradients):
        assert values.isfinite().all()


@each_model
@each_mode
def test_it_computes_at_full_size_on_the_device_that_it_is_moved_to(
    training, model_class, fake_gpu
):
    model = build_on_meta(model_class, {}).train(training)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    with fake_gpu:
        moved = {
            name: torch.empty(x.shape, dtype=x.dtype, device="cuda")
            for name, x in state.items()
        }
        wavs = torch.empty(2, 48000, device="cuda")
        log_posteriors = functional_call(model, moved, wavs)
    assert log_posteriors.shape == (2, 10)
    assert log_posteriors.device.type == "cuda"


SONGS = {"n_genres": 6, "sample_rate": 8000}
RESNET = SONGS | {"arch": "resnet34", "hidden_size": None}
SCALES = {"n_filters": 4, "kernel_sizes": (101, 51, 25), "n_frames": 32}
SCALES |= {"init": "linear", "padding": "valid", "backend": "reference"}
SCALES |= {"pooling": "avg", "affine_samples": 4000, "parametrization": "relative"}
MEL = {"n_mels": 24, "window_samples": 256, "mel_hop": 100, "pooling": "spp"}
FRAMES = {"frame_samples": 400, "frame_hop": 100, "train_frames": 2}
FRAMES |= {"n_filters": 4, "kernel_size": 25, "init": "linear"}
OTHER = {
    MSSincResNet: RESNET | SCALES,
    MelResNet: RESNET | MEL,
    SincNet: SONGS | FRAMES,
}


@each_model
def test_the_config_holds_every_argument_and_rebuilds_the_model(model_class):
    model = build_on_meta(model_class, OTHER[model_class])
    assert model.config == json.loads(json.dumps(OTHER[model_class]))
    assert str(build_on_meta(model_class, model.config)) == str(model)


def test_every_argument_reaches_its_part():
    model = build_on_meta(MSSincResNet, OTHER[MSSincResNet])
    frontend = model.frontend
    assert {bank.sample_rate for bank in frontend.banks} == {8000}
    assert [bank.kernel_size for bank in frontend.banks] == [101, 51, 25]
    assert (frontend.padding, frontend.backend) == ("valid", "reference")
    assert (frontend.n_frames, frontend.clip_norm.weight.numel()) == (32, 4000)
    assert len(model.embedding.trunk.layer3) == 6  # two in ResNet-18
    assert model.embedding.embedding_size == 512
    mel = build_on_meta(MelResNet, OTHER[MelResNet])
    assert mel.frontend(WAVS[:, :1600]).shape == (2, 3, 24, 17)
    assert mel.frontend.bands.equal(LogMelSpectrogram(24, 256, 100, 8000).bands)
    assert mel.embedding.embedding_size == 2560
    sincnet = SincNet(**OTHER[SincNet])
    bank = sincnet.embedding.bank
    assert (bank.sample_rate, bank.kernel_size) == (8000, 25)
    torch.testing.assert_close(bank.band_hz_, bank.band_hz_[:1].expand(4, 1))
    frames = sum(map(len, sincnet.embedding.clip_maps(WAVS[0])))
    assert frames == 1 + (8000 - 400) // 100
    assert sincnet(WAVS).shape == (2, 6)
