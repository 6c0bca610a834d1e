"""``evaluate``: scores that can be checked by hand, and labels that do not fit."""

import json

import pytest
from mediafile import MediaFile
from scipy.stats import binomtest

from ms_sincresnet import GenreClassifier
from ms_sincresnet.nnet.calibration import calibration_error

# Songs of tones: the genre of the folder, of the tone, and the length in s.
SONGS = [("rock", "rock"), ("rock", "metal"), ("jazz", "jazz"), ("blues", "jazz")]


@pytest.fixture
def songs(tmp_path, write_song):
    """Four songs, of which two have the tone of their folder."""
    for number, (genre, tone) in enumerate(SONGS):
        (tmp_path / "songs" / genre).mkdir(parents=True, exist_ok=True)
        write_song(tmp_path / "songs" / genre / f"{number}.wav", (tone, 3.5))
    return tmp_path / "songs"


@pytest.fixture
def evaluate(command, monkeypatch, classifier):
    """Runs ``evaluate``: exit status, output, and error output."""
    monkeypatch.setattr(classifier.hparams, "voting", "majority")
    monkeypatch.setattr(GenreClassifier, "from_pretrained", lambda *_, **__: classifier)
    return lambda *argv: command("evaluate", *argv, "--device", "cpu")


def test_scores_of_a_folder(evaluate, songs, classifier, tmp_path):
    status, out, _ = evaluate(songs, "--json", "--figures", tmp_path / "new/figures")
    scores = json.loads(out)
    assert (status, scores["accuracy"]) == (0, 0.5)
    interval = binomtest(2, 4).proportion_ci(method="wilson")
    assert scores["interval"] == pytest.approx([interval.low, interval.high])
    both = {"f1-score": pytest.approx(2 / 3)}
    none = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0}
    assert scores["genres"] == {
        "blues": none | {"support": 1},
        "jazz": both | {"precision": 0.5, "recall": 1.0, "support": 1},
        "metal": none | {"support": 0},
        "rock": both | {"precision": 1.0, "recall": 0.5, "support": 2},
    }
    confusion = scores["confusion"]
    assert all(confusion[genre][guess] == 1 for genre, guess in SONGS)
    assert sum(sum(guesses.values()) for guesses in confusion.values()) == 4
    rows = scores["songs"]
    assert {(row["genre"], row["predicted"]) for row in rows} == {*SONGS}
    (song,) = (row for row in rows if row["file"] == f"{songs}/blues/3.wav")
    posteriors = classifier.predict_song(songs / "blues/3.wav").posteriors
    assert song["posterior"] == pytest.approx(posteriors["jazz"], abs=1e-5)
    right = [row["genre"] == row["predicted"] for row in rows]
    error = calibration_error([row["posterior"] for row in rows], right)
    assert scores["calibration_error"] == pytest.approx(error)
    wrong = [row["posterior"] for row in scores["mistakes"]]
    assert len(wrong) == 2 and wrong == sorted(wrong, reverse=True)
    figures = {path.name for path in (tmp_path / "new/figures").iterdir()}
    assert figures == {"confusion_matrix.png", "reliability.png"}


def test_scores_for_the_eye(evaluate, songs, tmp_path):
    csv = tmp_path / "labels.csv"
    lines = [f"songs/{genre}/{n}.wav,{genre}\n" for n, (genre, _) in enumerate(SONGS)]
    csv.write_text("path,genre\n" + "".join(lines))
    status, out, _ = evaluate("--labels", csv)
    assert status == 0
    assert out.startswith("4 songs, 50.0% correct\n")
    assert "95 % interval of this accuracy 15.0% to 85.0%\n" in out
    assert f"{songs}/blues/3.wav: blues, predicted jazz\n" in out


def test_genres_of_the_tags(evaluate, songs):
    for name, genre in {"rock/1.wav": "Metal", "jazz/2.wav": "Polka"}.items():
        song = MediaFile(songs / name)
        song.genres = [genre]
        song.save()
    status, out, err = evaluate(songs, "--from-tags")
    assert status == 0
    assert out.startswith("1 songs, 100.0% correct\n")
    assert "expected songs with a genre tag; left out 2 without one" in err
    assert "left out genres that the model does not know: Polka (1)" in err


def test_genres_of_other_names(evaluate, songs, tmp_path):
    for old, new in {"jazz": "Be-Bop", "rock": "R o_C-k", "blues": "Cool"}.items():
        (songs / old).rename(songs / new)
    path = tmp_path / "map.yaml"
    path.write_text("Jazz: [bebop, COOL]")
    status, out, err = evaluate(songs, "--genre-map", path, "--json")
    assert (status, json.loads(out)["accuracy"]) == (0, 0.75)
    assert "left out" not in err
    expected = "left out genres that the model does not know: Be-Bop (1), Cool (1)"
    assert expected in evaluate(songs)[2]


def test_unreadable_songs(evaluate, songs):
    for path in songs.glob("*/[012].wav"):
        path.write_bytes(b"no audio")
    status, out, err = evaluate(songs, "--json")
    unreadable = json.loads(out)["unreadable"]
    assert (status, len(unreadable)) == (3, 3)
    for song in unreadable:
        assert f"error: {song['error']}" in err
        assert song["error"].startswith(song["file"])
    (songs / "blues/3.wav").write_bytes(b"")
    status, out, err = evaluate(songs)
    assert (status, out) == (1, "")
    assert f"no song can be read, as the first: {songs}/blues/3.wav: " in err


def test_refused_input(evaluate, songs, tmp_path):
    text = {"map": "polka: jazz", "same": "rock: hum\njazz: HUM", "file": ""}
    for name, content in text.items():
        (tmp_path / name).write_text(content)
    for argv, message in [
        ([tmp_path / "nowhere"], "nowhere: no such folder of songs"),
        ([songs, "--genre-map", tmp_path / "map"], "rock, blues, metal, jazz, and"),
        ([songs, "--genre-map", tmp_path / "same"], "got jazz: ['HUM']"),
        ([songs / "..", "--genre-map", tmp_path / "nowhere"], "No such file"),
        ([songs / ".."], "are songs; the model's are rock, blues, metal, jazz; name"),
        ([songs, "--figures", tmp_path / "file"], "file/confusion_matrix.png: cannot"),
    ]:
        status, _, err = evaluate(*argv)
        assert (status, message in err) == (1, True), err
