"""Model folders: one model by every loader, written whole, refused when incomplete."""

import json
import os
import shutil
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import FetchConfig

from ms_sincresnet import GenreClassifier, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.pretrained.model_folder import (
    FILES,
    check_model_folder,
    is_model_folder,
    read_model_folder,
    save_model_folder,
)

CPU = {"device": "cpu"}
SMALL = {"n_filters": 4, "frame_samples": 800, "kernel_size": 51}


@pytest.fixture
def folder(tmp_path, model_folder):
    """A model folder to be changed; its files are links until ``replace`` is called."""
    return shutil.copytree(model_folder, tmp_path / "model", copy_function=os.link)


@pytest.fixture(scope="module")
def sincnet():
    torch.manual_seed(0)
    return SincNet(2, **SMALL).eval()


def replace(path, content):
    path.unlink(missing_ok=True)
    path.write_text(content)


def load(kind, folder, **options):
    return kind.from_hparams(source=str(folder), run_opts=CPU, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def songs():
    return torch.randn(2, 80000, generator=torch.Generator().manual_seed(0))


def test_the_folder_holds_the_weights_once(model_folder, tone_model, genres):
    assert sorted(os.listdir(model_folder)) == sorted(FILES)
    assert json.loads((model_folder / "config.json").read_text()) == {
        **{"format_version": 1, "system": "MSSincResNet"},
        "speechbrain_interface": "EncoderClassifier",  # the Hub shows its snippet
        **{"genres": genres, "clip_samples": 48000, "hop_samples": 8000},
        **{"voting": "majority", "full_scale": 1.0, **tone_model.config},
    }


ODD = {"n_filters": 6, "kernel_sizes": [101, 51, 31], "n_frames": 256, "init": "linear"}
ODD |= {"sample_rate": 8000, "padding": "valid", "pooling": "avg", "hidden_size": None}
NAMES = ["hip-hop", 'l\'été: # [1] "x" \\ $y', "0o7", "no"]


@pytest.mark.parametrize(
    ("model_class", "arguments"),
    [(MSSincResNet, ODD), (SincNet, SMALL)],
)
def test_songs_are_heard_as_the_folder_says(tmp_path, model_class, arguments):
    settings = {"clip_samples": 8000, "hop_samples": 4000, "voting": "mean"}
    model = model_class(4, **arguments).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match=f"no genres.*{model_class.__name__}.fr"):
        read_model_folder(tmp_path)
    save_model_folder(tmp_path / "model", model, NAMES, **settings)
    song = songs()[:1, :20000]
    with torch.no_grad():
        posteriors = model(song[0].unfold(0, 8000, 4000)).exp().mean(0)
    for load_it in (GenreClassifier.from_pretrained, EncoderClassifier.from_hparams):
        classifier = load_it(str(tmp_path / "model"), run_opts=CPU)
        assert classifier.hparams.model.config == model.config
        assert classifier.audio_normalizer.sample_rate == model.config["sample_rate"]
        found, _, _, genre = classifier.classify_batch(song)
        torch.testing.assert_close(found[0].exp(), posteriors, rtol=0, atol=1e-4)
        assert genre == [NAMES[posteriors.argmax()]]


def test_nothing_in_a_folder_that_is_loaded_as_data_is_run(tmp_path, folder):
    made = tmp_path / "made"
    command = f"SafetensorsPretrainer: !apply:os.mkdir ['{made}']\n"
    replace(folder / "hyperparams.yaml", command)
    for name in ("app.py", "custom_interface.py", "label_encoder.ckpt"):
        replace(folder / name, f"import os\nos.mkdir('{made}')\n")
    loaders = GenreClassifier.from_pretrained, MSSincResNet.from_pretrained
    for load_safely in (*loaders, read_model_folder, check_model_folder):
        load_safely(folder)
    (folder / "config.json").rename(folder / "kept")
    for load_safely in loaders:
        with pytest.raises(ModelFolderError, match=r"config\.json is missing"):
            load_safely(folder)
    assert not made.exists()
    (folder / "kept").rename(folder / "config.json")
    with pytest.raises(ModelFolderError):  # the trap works: this loader springs it
        GenreClassifier.from_hparams(folder)
    assert made.exists()


def test_a_folder_of_an_earlier_version_is_loaded_as_data_alone(folder, tone_model):
    path = folder / "hyperparams.yaml"
    ours = "ms_sincresnet.pretrained.pretrainer.SafetensorsPretrainer"
    stock = "speechbrain.utils.parameter_transfer.Pretrainer"
    replace(path, path.read_text().replace(ours, stock))
    with pytest.raises(ModelFolderError, match="earlier version.*from_pretrained"):
        GenreClassifier.from_hparams(folder)
    with torch.no_grad():
        assert read_model_folder(folder)(songs()).equal(tone_model(songs()))


def test_a_folder_is_filled_and_replaced_as_a_whole(tmp_path, sincnet, monkeypatch):
    folder, runs = tmp_path / "model", tmp_path / "runs"
    (runs / "disk").mkdir(parents=True)
    folder.symlink_to("runs/disk")
    save_model_folder(folder, sincnet, ["a", "b"])
    assert folder.stat().st_mode == runs.stat().st_mode  # as readable
    for name in ("README.md", "notes.txt"):
        replace(folder / name, "of the old model")
    save_model_folder(folder, sincnet, ["a", "b"], hop_samples=4000)
    assert sorted(os.listdir(folder)) == sorted(FILES)
    assert "0.25 s" in (folder / "README.md").read_text()

    before, no_space = contents(folder), Mock(side_effect=OSError("no space left"))
    monkeypatch.setattr("ms_sincresnet.pretrained.model_folder.song_card", no_space)
    for place in (folder, runs / "new"):
        with pytest.raises(OSError, match="no space"):
            save_model_folder(place, sincnet, ["c", "d"])
    assert contents(folder) == before
    assert os.listdir(runs) == ["disk"]
    assert folder.is_symlink()


def test_a_folder_of_something_else_is_never_replaced(tmp_path, sincnet):
    (tmp_path / "mine/kept").mkdir(parents=True)
    file = tmp_path / "mine/hyperparams.yaml"
    file.write_text("dear to me")
    for folder in (file.parent, file):
        with pytest.raises(ModelFolderError, match=f"{folder}: holds something other"):
            save_model_folder(folder, sincnet, ["a", "b"])
    assert sorted(tmp_path.rglob("*")) == [file.parent, file, file.with_name("kept")]
    assert file.read_text() == "dear to me"


def test_an_incomplete_folder_is_refused_by_name(folder):
    assert is_model_folder(str(folder))
    needed = [name for name in FILES if name != "README.md"]
    for name in reversed(needed):
        (folder / name).unlink()
        for check in (check_model_folder, GenreClassifier.from_hparams):
            with pytest.raises(ModelFolderError, match=f"{folder}: .*{name}"):
                check(folder)
    assert not is_model_folder(folder)
    with pytest.raises(ModelFolderError, match="no such model folder"):
        check_model_folder(folder / "README.md")


def test_weights_that_do_not_fit_are_refused_by_the_stock_class(folder):
    path = folder / "model.safetensors"
    state = load_file(path) | {"frontend.kernel_sizes": torch.tensor([251, 501, 801])}
    path.unlink()
    save_file(state, path)
    with pytest.raises(WeightsError, match=rf"{path}: .*\[251, 501, 801\]"):
        load(EncoderClassifier, folder)


def test_a_savedir_of_another_model_is_refused(tmp_path, sincnet):
    """SpeechBrain alone would give the first model under the name of the second."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, model in ((first, sincnet), (second, SincNet(2, **SMALL))):
        save_model_folder(folder, model, ["jazz", "rock"], clip_samples=4000)

    def posteriors(folder, **options):
        return load(EncoderClassifier, folder, **options).classify_batch(song)[0]

    song, before = songs()[:1, :8000], contents(second)
    expected = posteriors(second)
    options = {"savedir": tmp_path / "savedir"}
    for _ in range(2):  # the second time from there
        assert not posteriors(first, **options).equal(expected)
    with pytest.raises(ModelFolderError, match="savedir .*/savedir holds"):
        posteriors(second, **options)
    fresh = FetchConfig(overwrite=True)
    assert posteriors(second, fetch_config=fresh, **options).equal(expected)
    assert posteriors(second, savedir=second).equal(expected)
    assert contents(second) == before
