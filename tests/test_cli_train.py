"""``ms-sincresnet train`` on tones: genres learned, splits, resume, bad input."""

import contextlib
import errno
import io
import shutil
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ms_sincresnet import GenreClassifier, SincNet
from ms_sincresnet.cli import main
from ms_sincresnet.errors import DataFolderError
from ms_sincresnet.pretrained.hub import describe
from ms_sincresnet.pretrained.model_folder import read_model_folder, save_model_folder
from ms_sincresnet.training import finetuning
from ms_sincresnet.training.brain import GenreBrain

from .sounds import set_tags, sine

TONES_HZ = {"A$AP low": 200.0, "high,er": 3000.0, "middle": 900.0}


def write_tone(path, hz, duration_s=3.2):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(round(hz)).standard_normal(round(16000 * duration_s))
    soundfile.write(path, sine(hz, 16000, duration_s) + 0.01 * noise, 16000)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Four songs of each genre, in folders, with the genre as a tag; and a csv."""
    root = tmp_path_factory.mktemp("train") / "my songs"
    rows = []
    for genre, hz in TONES_HZ.items():
        for n in range(4):
            path = f"{genre}/{n}.wav"
            write_tone(root / path, hz * (1 + n / 20))
            set_tags(root / path, genres=[genre])
            rows.append({"path": path, "genre": genre})
    pd.DataFrame(rows).to_csv(root / "l.csv", index=False)
    return root


@pytest.fixture(scope="module")
def train(tmp_path_factory, model_folder):
    """Trains from the tone model in few epochs, and returns the status."""
    hparams = tmp_path_factory.mktemp("hparams") / "short.yaml"
    text = finetuning.HPARAMS.read_text().replace("batch_size: 32", "batch_size: 6")
    hparams.write_text(text.replace("epochs: 30", "epochs: 6"))
    options = ["--hparams", hparams, "--from", model_folder, "--device", "cpu"]

    def run(output, *arguments):
        words = "train", "--output", output, *options, *arguments
        return main([*map(str, words)])

    return run


@pytest.fixture(scope="module")
def trained(songs, train, tmp_path_factory):
    """A model of the songs in the folder, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("trained") / "model", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert train(folder, songs) == 0
    return folder, printed.getvalue().splitlines()


def test_genres_are_learned(trained, tmp_path, model_folder):
    folder, out = trained
    assert out[0].startswith("validation songs by genre")
    assert [line.split("  ")[0] for line in out[3:6]] == [*TONES_HZ]
    assert "3 of 3 validation songs are right (100 %, 95 % interval 44" in out[6]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    classifier = GenreClassifier.from_pretrained(folder)
    for genre, hz in TONES_HZ.items():
        write_tone(tmp_path / "song.wav", hz * 1.07, 5)
        assert classifier.predict_song(tmp_path / "song.wav").genre == genre
    settings = describe(folder)["settings"]
    assert settings["hop_samples"] == 48000 and settings["temperature"] > 0
    about = settings["training"]["protocol"]
    assert "9 trained a classifier on model, 3 chose the epoch" in about
    assert f"my songs, {about}" in (folder / "README.md").read_text()
    old, new = (read_model_folder(x).state_dict() for x in (model_folder, folder))
    changed = {name for name in new if not torch.equal(old[name], new[name])}
    assert changed == {name for name in new if name.startswith("classifier")}


def test_unreadable_files_and_mistakes_are_listed(songs, train, tmp_path, capsys):
    root = tmp_path / "songs"
    shutil.copytree(songs, root)
    (root / "middle/bad.wav").write_text("no audio")
    for n in range(2):  # what validates cannot be known
        write_tone(root / f"deceptive/{n}.wav", 200.0 + 30 * n)
    assert train(tmp_path / "new", root, "--seed", 7) == 0
    out, err = capsys.readouterr()
    assert "left out middle.bad: " in err
    assert "deceptive: 2 songs are few; better 8" in err
    wrong = [line for line in out.splitlines() if line.startswith("wrong: ")]
    assert len(wrong) > 0 and f"{4 - len(wrong)} of 4 validation songs are right" in out
    assert wrong[0].startswith(f"wrong: {root}/") and ", predicted " in wrong[0]


def test_refusals(songs, train, tmp_path):
    save_model_folder(tmp_path / "sincnet", SincNet(2, n_filters=8), ["a", "b"])
    for path in ("one genre/a/1.wav", "one genre/a/2.wav", "lone song/b/3.wav"):
        write_tone(tmp_path / path, 200.0)
    shutil.copytree(tmp_path / "one genre", tmp_path / "lone song", dirs_exist_ok=True)
    for path in ("empty", "taken/thesis", "new.training/thesis"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "lost.csv").write_text("path,genre\nnowhere.wav,jazz\n")
    (tmp_path / "half.yaml").write_text("seed: 1\noutput_folder: a\n")
    for output, arguments, message in [
        ("m", [tmp_path / "empty"], "expected songs in a folder for each genre"),
        ("m", [tmp_path / "one genre"], "expected two genres or more"),
        ("m", [tmp_path / "lone song"], "found one song of 'b'"),
        ("m", ["--labels", tmp_path / "lost.csv"], "1 of 1 paths do not exist"),
        ("m", [songs, "--from", tmp_path / "sincnet"], "a SincNet has no ResNet"),
        ("m", [songs, "--hparams", tmp_path / "half.yaml"], "batch_size, checkpoint"),
        ("m", [songs, "--device", "cuda:99"], "not available on this machine"),
        ("taken", [songs], "holds something other than a model"),
        ("new", [songs], "holds something other than a training"),
    ]:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit, match=f"^error: .*{message}.*$"):
            train(tmp_path / output, *arguments)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "home", "name", "resumed"),
    [
        (["--labels", "l.csv"], finetuning, "_embeddings", (7, 1)),
        ([".", "--from-tags"], GenreBrain, "on_stage_end", (0, 3)),
    ],
    ids=["csv, while listening", "tags, while training"],
)
def test_other_sources_and_an_interruption_give_the_same_model(
    source, home, name, resumed, songs, train, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(songs)
    function, calls = getattr(home, name), iter(range(5))

    def interrupt(*values):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*values)

    with monkeypatch.context() as patch:
        patch.setattr(home, name, interrupt)
        assert train(tmp_path / "new", *source) == 130
    assert capsys.readouterr().err.endswith("run the same command again to resume\n")
    assert not (tmp_path / "new").exists()
    save, start, heard, epochs = np.save, GenreBrain.on_stage_start, [], []

    def on_stage_start(self, stage, epoch=None):
        epochs.append(epoch)
        start(self, stage, epoch)

    monkeypatch.setattr(GenreBrain, "on_stage_start", on_stage_start)
    monkeypatch.setattr(np, "save", lambda *x: heard.append(save(*x)))
    assert train(tmp_path / "new", *source) == 0
    assert (len(heard), epochs[0]) == resumed
    new, old = (x / "model.safetensors" for x in (tmp_path / "new", trained[0]))
    assert new.read_bytes() == old.read_bytes()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, ""), RuntimeError])
def test_a_full_disk_ends_in_a_sentence(error, songs, train, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "save", Mock(side_effect=error))
    if error is RuntimeError:  # as of libsndfile and PyTorch
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SystemExit, match="new: .*run the same command again"):
        train(tmp_path / "new", songs)
    assert not (tmp_path / "new").exists()


def parts_of(rows, seed=1):
    """Tracks, given as genre, recording and album, and the part of each."""
    tracks = pd.DataFrame(rows, columns=["genre", "recording", "album"])
    hparams = {"seed": seed, "valid_fraction": 0.2}
    tracks["part"] = finetuning._assign_parts(hparams, tracks.assign(ID=tracks.index))
    return tracks


@pytest.mark.parametrize("seed", range(3))
def test_twins_and_albums_stay_together(seed, caplog):
    rows = [("a", f"a{n // 2}", "") for n in range(20)]  # pairs of twins
    rows += [("b", f"b{n}", f"album {n // 4}") for n in range(20)]
    rows += [("c", f"c{n}", "") for n in range(5)] + [("c", "c0", "album 0")]
    rows += [("one", f"one{n}", "only album") for n in range(9)]
    tracks = parts_of(rows, seed)
    assert (tracks.groupby("recording").part.nunique() == 1).all()
    assert (tracks[tracks.album != ""].groupby("album").part.nunique() == 1).all()
    joined = (tracks.recording == "c0") | (tracks.album == "album 0")
    assert tracks.part[joined].nunique() == 1
    n_valid = tracks[tracks.part == "valid"].genre.value_counts()
    assert n_valid["a"] == 4 and n_valid["b"] == 4 and 1 <= n_valid["c"] <= 3
    assert "one: a single album or recording, so none validates" in caplog.text


def test_every_genre_validates_if_it_can():
    rows = [(f"g{n}", f"{n}.{m}", "") for n in range(12) for m in range(2 + n % 3)]
    assert (parts_of(rows).groupby("genre").part.nunique() == 2).all()
    with pytest.raises(DataFolderError, match="no song can validate"):
        parts_of([("a", "1", "x"), ("a", "2", "x"), ("b", "3", "y"), ("b", "4", "y")])
