"""Model folders: whole or not written, and refused when a part is missing or wrong."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from speechbrain.inference.classifiers import EncoderClassifier

from ms_sincresnet import GenreClassifier, MSSincResNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.pretrained.card import Training
from ms_sincresnet.pretrained.model_folder import (
    FILES,
    SPEECHBRAIN_FILES,
    check_model_folder,
    read_model_folder,
    save_model_folder,
)

CPU = {"device": "cpu"}
WEIGHTS = ("embedding_model.ckpt", "classifier.ckpt")
both_classes = pytest.mark.parametrize("kind", [GenreClassifier, EncoderClassifier])
both_files = pytest.mark.parametrize("name", WEIGHTS)


@pytest.fixture
def folder(tmp_path, model_folder):
    """A model folder to be changed; its files are links until ``replace`` is called."""
    return shutil.copytree(model_folder, tmp_path / "model", copy_function=os.link)


def replace(path, content):
    """Replaces a file by text, bytes or what torch.save writes."""
    path.unlink()
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


def edit(path, old, new):
    """Replaces text in a file."""
    text = path.read_text()
    assert text.count(old) == 1
    replace(path, text.replace(old, new))


def load(kind, folder):
    """Loads a folder with one of the classes."""
    return kind.from_hparams(source=str(folder), run_opts=CPU)


def refused(folder):
    """The one error about a folder that cannot be loaded."""
    with pytest.raises(ModelFolderError) as error:
        load(GenreClassifier, folder)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_the_folder_holds_the_models_weights(model_folder, tone_model):
    assert sorted(os.listdir(model_folder)) == sorted(FILES)
    saved = {}
    for name in WEIGHTS:
        saved |= torch.load(model_folder / name, weights_only=True)
    expected = tone_model.state_dict()
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        assert saved[name].equal(value), name
    assert load_file(model_folder / "model.safetensors").keys() == expected.keys()


def test_the_configuration_is_flat_and_shows_the_hub_its_snippet(
    model_folder, tone_model, genres
):
    text = (model_folder / "config.json").read_text()
    assert json.loads(text) == {
        "format_version": 1,
        "speechbrain_interface": "EncoderClassifier",
        "system": "MSSincResNet",
        "genres": genres,
        "clip_samples": 48000,
        "hop_samples": 8000,
        "voting": "majority",
        "full_scale": 1.0,
        **tone_model.config,
    }


def test_the_folder_is_a_space(model_folder, tmp_path):
    """app.py builds the demo of its own folder, from wherever it is started."""
    assert (model_folder / "requirements.txt").read_text() == "ms_sincresnet[demo]\n"
    script = (
        "import runpy, sys, types; demo = types.ModuleType('demo');"
        "demo.build_demo = print; sys.modules['ms_sincresnet.inference.demo'] = demo;"
        f"runpy.run_path({str(model_folder / 'app.py')!r})"
    )
    printed = subprocess.check_output(
        [sys.executable, "-c", script], cwd=tmp_path, text=True
    )
    assert printed == f"{model_folder}\n"


def test_three_loaders_give_the_same_posteriors(
    tmp_path, tone_model, genres, write_song
):
    settings = {"clip_samples": 32000, "hop_samples": 16000, "full_scale": 32768.0}
    save_model_folder(tmp_path / "model", tone_model, genres, **settings)
    songs = torch.randn(2, 80000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([1.0, 0.6])
    safe = GenreClassifier.from_pretrained(tmp_path / "model", run_opts=CPU)
    expected = safe.classify_batch(songs, lengths)
    path = write_song(tmp_path / "song.wav", ("jazz", 3.0), ("rock", 2.0))
    for kind in (GenreClassifier, EncoderClassifier):
        other = load(kind, tmp_path / "model")
        found = other.classify_batch(songs, lengths)
        assert all(found[part].equal(expected[part]) for part in range(3))
        assert found[3] == expected[3]
        on_file = other.classify_file(str(path))
        assert on_file[0].equal(safe.classify_file(path)[0])
        if kind is GenreClassifier:
            assert other.predict_song(path) == safe.predict_song(path)
    assert safe.mods.embedding_model.full_scale == 32768.0


def test_the_safe_loader_has_the_hparams_of_the_other(model_folder, classifier):
    safe = GenreClassifier.from_pretrained(model_folder, run_opts=CPU)
    parts = {"pretrainer", "number_of_labels", "savedir", "modules", *safe.mods}
    expected = vars(classifier.hparams).keys() - parts
    assert vars(safe.hparams).keys() == expected
    for name in expected - {"model", "audio_normalizer", "label_encoder"}:
        assert getattr(safe.hparams, name) == getattr(classifier.hparams, name)
    encoders = safe.hparams.label_encoder, classifier.hparams.label_encoder
    assert encoders[0].lab2ind == encoders[1].lab2ind
    assert not any(p.requires_grad for p in safe.mods.parameters())


def test_several_models_are_fused_alike(model_folder):
    both = [model_folder, str(model_folder)]
    song = torch.randn(1, 64000, generator=torch.Generator().manual_seed(0))
    safe = GenreClassifier.from_pretrained(both, run_opts=CPU)
    expected = GenreClassifier.from_hparams(both, run_opts=CPU)
    assert safe.classify_batch(song)[0].equal(expected.classify_batch(song)[0])
    with pytest.raises(ModelFolderError, match="no model to fuse"):
        GenreClassifier.from_pretrained([])


def poison(folder, made):
    """Makes all files that are run when they are loaded leave a file behind."""
    command = f"x: !apply:os.mkdir ['{made}']\nmodules: 1\npretrainer: 2\n"
    replace(folder / "hyperparams.yaml", command)
    for name in WEIGHTS:
        replace(folder / name, pickle.dumps(Malicious(made), protocol=2))
    replace(folder / "label_encoder.ckpt", "__import__('os').mkdir('x') => 0\n===\n")
    (folder / "app.py").write_text(f"import os\nos.mkdir('{made}')\n")
    (folder / "custom_interface.py").write_text(f"import os\nos.mkdir('{made}')\n")


def test_nothing_is_run_of_a_folder_that_is_loaded_as_data(
    tmp_path, folder, model_folder
):
    made = tmp_path / "made"
    (folder / "app.py").unlink()
    poison(folder, made)
    safe = GenreClassifier.from_pretrained(folder, run_opts=CPU)
    loaded = MSSincResNet.from_pretrained(folder)
    song = torch.randn(1, 48000)
    expected = GenreClassifier.from_pretrained(model_folder, run_opts=CPU)
    assert safe.classify_batch(song)[0].equal(expected.classify_batch(song)[0])
    assert (
        loaded.settings["genres"]
        == json.loads((folder / "config.json").read_text())["genres"]
    )
    assert not made.exists()
    with pytest.raises(ModelFolderError):  # the trap works: this loader springs it
        GenreClassifier.from_hparams(folder)
    assert made.exists()


def test_a_folder_with_nothing_but_code_is_refused(tmp_path, folder):
    made = tmp_path / "made"
    (folder / "app.py").unlink()
    poison(folder, made)
    (folder / "config.json").unlink()
    for load_safely in (GenreClassifier.from_pretrained, MSSincResNet.from_pretrained):
        with pytest.raises(ModelFolderError, match=r"no config\.json there.*export it"):
            load_safely(folder)
    assert not made.exists()


def test_a_network_alone_has_no_names_for_genres(tmp_path, tone_model):
    tone_model.save_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match="network alone.*MSSincResNet.from_pret"):
        read_model_folder(tmp_path)


def test_a_folder_of_an_earlier_version_is_loaded_and_replaced(
    folder, tone_model, genres
):
    """These held the four files, and full_scale was not thought of."""
    for name in set(FILES) - set(SPEECHBRAIN_FILES):
        (folder / name).unlink()
    path = folder / "hyperparams.yaml"
    lines = path.read_text().splitlines(keepends=True)
    replace(path, "".join(line for line in lines if "full_scale" not in line))
    check_model_folder(folder)
    for kind in (GenreClassifier, EncoderClassifier):
        assert load(kind, folder).mods.embedding_model.full_scale == 1.0
    with pytest.raises(ModelFolderError, match="export it again"):
        GenreClassifier.from_pretrained(folder)
    save_model_folder(folder, tone_model, genres)
    assert sorted(os.listdir(folder)) == sorted(FILES)


def test_the_card_has_what_is_known_of_the_training(tmp_path, tone_model, genres):
    figures = {"song_accuracy": 0.75, "clip_accuracy": 0.5, "tracks": 4, "clips": 40}
    training = Training("tones", "one split", figures | {"epoch": 3})
    save_model_folder(tmp_path / "model", tone_model, genres, training=training)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "name: tones, one split; 4 test tracks" in card
    assert "**75.0%** of 4 tracks" in card


@both_classes
def test_a_loaded_model_is_the_model_that_was_saved(model_folder, tone_model, kind):
    loaded = load(kind, model_folder).mods
    state = loaded["embedding_model"].state_dict() | loaded["classifier"].state_dict()
    for name, value in tone_model.state_dict().items():
        assert state[name].equal(value), name


@both_classes
def test_a_folder_is_loaded_as_it_was_cut_and_voted_on(
    tmp_path, tone_model, genres, write_song, kind
):
    settings = {"clip_samples": 32000, "hop_samples": 16000, "voting": "mean"}
    save_model_folder(tmp_path / "model", tone_model, genres, **settings)
    classifier = load(kind, tmp_path / "model")
    path = write_song(tmp_path / "song.wav", ("jazz", 3.0), ("rock", 2.0))
    wav = classifier.load_audio(str(path))
    clips = [wav[start : start + 32000] for start in (0, 16000, 32000, 48000)]
    posteriors = tone_model(torch.stack(clips)).exp()
    found = classifier.classify_file(str(path))[0][0].exp()
    torch.testing.assert_close(found, posteriors.mean(0), rtol=0, atol=1e-4)
    if kind is GenreClassifier:
        song = classifier.predict_song(path)
        times = [clip[:2] for clip in song.clips]
        assert times == [(0, 2), (1, 3), (2, 4), (3, 5)]
        assert song.shares == pytest.approx(song.posteriors, abs=1e-6)


def test_each_argument_of_the_model_comes_back(tmp_path):
    config = {
        "n_genres": 2,
        "n_filters": 6,
        "kernel_sizes": [101, 51, 31],
        "pooling": "avg",
        "n_frames": 256,
        "sample_rate": 8000,
        "init": "mel",
        "padding": "valid",
        "backend": "reference",
        "arch": "resnet18",
        "hidden_size": None,
        "affine_samples": None,
    }
    model = MSSincResNet(**config).eval()
    save_model_folder(tmp_path / "model", model, ["hip-hop", "l'été: # [1]"])
    classifier = load(GenreClassifier, tmp_path / "model")
    assert classifier.hparams.model.config == model.config == config
    assert classifier.audio_normalizer.sample_rate == 8000
    song = torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        best = model(song).argmax().item()
    assert classifier.classify_batch(song)[3] == [["hip-hop", "l'été: # [1]"][best]]


def test_a_folder_is_replaced_as_a_whole(folder, tone_model, genres, model_folder):
    replace(folder / "README.md", "of the old model")
    (folder / "notes.txt").write_text("of the old model")
    save_model_folder(folder, tone_model, genres, hop_samples=4000)
    assert sorted(os.listdir(folder)) == sorted(FILES)
    assert "0.25 s" in (folder / "README.md").read_text()
    assert load(GenreClassifier, folder).hparams.hop_samples == 4000
    assert load(GenreClassifier, model_folder).hparams.hop_samples == 8000
    assert os.listdir(folder.parent) == ["model"]


def test_a_folder_is_as_readable_as_others(tmp_path, tone_model, genres):
    folder = tmp_path / "runs" / "1" / "model"
    save_model_folder(folder, tone_model, genres)
    assert folder.stat().st_mode == folder.parent.stat().st_mode


@pytest.mark.parametrize("there", [True, False])
def test_nothing_half_written_stays_behind(
    folder, tone_model, genres, monkeypatch, there
):
    def break_off(state, path):
        path.write_bytes(b"PK")
        if path.name == "classifier.ckpt":
            raise OSError("no space left on device")

    if not there:
        shutil.rmtree(folder)
    before = {path: path.stat() for path in folder.parent.rglob("*")}
    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(OSError, match="no space"):
        save_model_folder(folder, tone_model, genres, hop_samples=4000)
    after = {path: path.stat() for path in folder.parent.rglob("*")}
    assert after.keys() == before.keys()
    for path, stat in after.items():
        assert stat.st_ino == before[path].st_ino


@pytest.mark.parametrize("content", ["photo.jpg", "hyperparams.yaml"])
def test_what_is_no_model_folder_is_never_replaced(
    tmp_path, tone_model, genres, content, monkeypatch
):
    (tmp_path / "mine/kept").mkdir(parents=True)
    (tmp_path / "mine" / content).write_text("dear to me")
    monkeypatch.chdir(tmp_path)
    told = f"{tmp_path / 'mine'}: .*something else than a model folder"
    for folder in ("mine", tmp_path / "mine", tmp_path / "mine" / "kept" / ".."):
        with pytest.raises(ModelFolderError, match=told):
            save_model_folder(folder, tone_model, genres)
    with pytest.raises(ModelFolderError, match=content):
        save_model_folder(tmp_path / "mine" / content, tone_model, genres)
    assert os.listdir(tmp_path) == ["mine"]
    assert sorted(os.listdir("mine")) == sorted(["kept", content])
    assert (tmp_path / "mine" / content).read_text() == "dear to me"


def test_an_empty_folder_and_a_link_are_filled(tmp_path, tone_model, genres):
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to("disk")
    for _ in range(2):  # at first empty, then the model folder
        save_model_folder(tmp_path / "model", tone_model, genres)
        assert sorted(os.listdir(tmp_path / "disk")) == sorted(FILES)
        assert (tmp_path / "model").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["disk", "model"]


@pytest.mark.parametrize("names", [["jazz"] * 4, ["jazz", "rock"]])
def test_as_many_genres_as_outputs(tmp_path, tone_model, names):
    with pytest.raises(ValueError, match="expected 4 genres"):
        save_model_folder(tmp_path / "model", tone_model, names)
    assert os.listdir(tmp_path) == []


def test_a_complete_folder_passes_the_check(model_folder):
    check_model_folder(model_folder)
    check_model_folder(str(model_folder))


@pytest.mark.parametrize("name", SPEECHBRAIN_FILES)
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    told = refused(folder)
    assert f"it lacks {name};" in told


def test_all_files_that_are_missing_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"it lacks {', '.join(SPEECHBRAIN_FILES)};" in refused(tmp_path / "empty")


def test_a_file_is_no_model_folder(folder):
    assert "no such model folder" in refused(folder / "hyperparams.yaml")


def change_keys(state, change):
    """Takes away, adds or renames an entry of a state dict; its name."""
    first = next(iter(state))
    if change == "missing":
        del state[first]
        return first
    value = state.pop(first) if change == "renamed" else state[first]
    state["unheard.of"] = value
    return "unheard.of"


@both_files
@pytest.mark.parametrize("change", ["missing", "added", "renamed"])
def test_weights_with_other_names_are_refused(folder, name, change):
    state = torch.load(folder / name, weights_only=True)
    wrong = change_keys(state, change)
    replace(folder / name, state)
    for kind in (GenreClassifier, EncoderClassifier):
        with pytest.raises(WeightsError) as error:
            load(kind, folder)
        assert f"{folder / name}: these weights do not fit" in str(error.value)
        assert wrong in str(error.value)


@both_files
def test_weights_of_other_shapes_are_refused(folder, name):
    state = torch.load(folder / name, weights_only=True)
    wrong = next(key for key, value in state.items() if value.ndim == 2)
    state[wrong] = torch.zeros(7, 7)
    replace(folder / name, state)
    for kind in (GenreClassifier, EncoderClassifier):
        with pytest.raises(WeightsError, match=r"\[7, 7\]") as error:
            load(kind, folder)
        assert str(folder / name) in str(error.value)
        assert wrong in str(error.value)


@both_classes
def test_weights_for_other_kernel_lengths_are_refused(folder, kind):
    edit(folder / "hyperparams.yaml", "[251, 501, 1001]", "[251, 501, 801]")
    with pytest.raises(WeightsError) as error:
        load(kind, folder)
    for part in ("embedding_model.ckpt", "[251, 501, 1001]", "[251, 501, 801]"):
        assert part in str(error.value)


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@both_classes
@both_files
@pytest.mark.parametrize(
    "content", ["cut short", "text", "empty", "list", "no tensors", "pickle", "code"]
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, folder, kind, name, content):
    made = tmp_path / "made by a pickle"
    path = folder / name
    content = {
        "cut short": path.read_bytes()[:4000],
        "text": "These are no weights.",
        "empty": b"",
        "list": [torch.zeros(1)],
        "no tensors": dict.fromkeys(torch.load(path, weights_only=True), "text"),
        "pickle": pickle.dumps(Malicious(made), protocol=2),
        "code": torch.load(path, weights_only=True) | {"more": Malicious(made)},
    }[content]
    replace(path, content)
    with pytest.raises(WeightsError) as error:
        load(kind, folder)
    assert str(path) in str(error.value)
    assert not made.exists()


LABELS = """\
'rock' => 0
'blues' => 1
'metal' => 2
'jazz' => 3
================
'starting_index' => 0
"""


def test_the_names_of_the_genres_are_speechbrains_text(folder):
    assert (folder / "label_encoder.ckpt").read_text() == LABELS


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (LABELS.replace("'jazz' => 3\n", ""), r"names 3 genres.*model's 4 outputs"),
        (LABELS.replace("=> 3", "=> 4"), r"numbered \[0, 1, 2, 4\]"),
        (LABELS.replace("=> 3", "=> 2"), r"numbered \[0, 1, 2\]"),
        ("These are no labels.", "label_encoder.ckpt names 0 genres"),
        ("", "cannot be loaded"),
    ],
)
def test_a_label_encoder_that_does_not_fit_is_refused(folder, labels, told):
    replace(folder / "label_encoder.ckpt", labels)
    with pytest.raises(ModelFolderError, match=told) as error:
        load(GenreClassifier, folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("\nmodules:", "\nmodlues:", "hyperparams.yaml: it lacks modules"),
        ("\npretrainer:", "\npretrain:", "hyperparams.yaml: it lacks pretrainer"),
        ("voting: majority", "vote: majority", 'reference "voting" is not valid'),
        ("n_genres: 4\n\n", "\n", r"n_genres"),
        ("    classifier: !ref <classifier>\n\n", "\n", "lacks the modules classifier"),
        ("nres: 4\n\nmodel: ", "nres: 4\n\nmodel: ][", r"hyperparams.yaml: not yaml"),
        ("!new:ms_sincresnet.MSS", "!new:ms_sincresnet.NoS", "NoSincResNet"),
        ("n_frames: 1024", "n_framez: 1024", "n_framez"),
        ("[251, 501, 1001]", "[250, 501, 1001]", "must be odd.*250"),
        ("[251, 501, 1001]", "[251, 501]", r"must be three.*\[251, 501\]"),
        ("arch: resnet18", "arch: resnet17", "resnet17"),
    ],
)
def test_hyperparams_that_build_no_model_are_refused(folder, old, new, told):
    edit(folder / "hyperparams.yaml", old, new)
    with pytest.raises(ModelFolderError, match=f"(?s){told}") as error:
        load(GenreClassifier, folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "sample_rate",
        "clip_samples",
        "hop_samples",
        "voting",
        "n_genres",
        "label_encoder",
    ],
)
def test_hyperparams_that_the_classifier_reads_are_named(folder, name):
    text = (folder / "hyperparams.yaml").read_text()
    line = re.search(rf"^{name}: (\S+).*\n", text, re.MULTILINE)
    text = text.replace(line[0], "", 1).replace(f"!ref <{name}>", line[1])
    replace(folder / "hyperparams.yaml", text)
    assert f"Need hparams['{name}']" in refused(folder)


@pytest.mark.parametrize("content", ["", "no mapping", "- a\n- list\n", b"\xff\xfe\0"])
def test_what_is_no_file_of_hyperparams_is_refused(folder, content):
    replace(folder / "hyperparams.yaml", content)
    assert f"{folder / 'hyperparams.yaml'}: " in refused(folder)


def test_the_stock_class_need_not_guess_the_number_of_genres(model_folder, caplog):
    stock = EncoderClassifier.from_hparams(str(model_folder))
    stock.classify_batch(torch.zeros(1, 48000))
    assert not [text for text in caplog.messages if "expect_len" in text]
