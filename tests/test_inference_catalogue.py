"""Finding songs, decoding ahead of the network, and rows of what was found."""

import copy
import io
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ms_sincresnet import GenreClassifier
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.inference.batch import (
    classify_songs,
    find_songs,
    is_audio,
    model_identity,
    read_list,
    song_row,
)
from ms_sincresnet.inference.predictions import ClipPrediction, SongPrediction
from ms_sincresnet.pretrained.model_folder import save_model_folder

CPU = {"device": "cpu"}


@pytest.fixture
def touch(tmp_path, monkeypatch):
    """Makes empty files by their names in the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


def test_folders_are_searched_in_natural_order(touch):
    touch("m/10.wav", "m/9.wav", "m/B.mp3", "m/a.MP3", "m/2/10.ogg", "m/2/9.ogg")
    touch("m/10/1.flac", "m/1²/x.wav", "m/cover.jpg", "m/.hidden.wav", "m/._a.wav")
    touch("m/.trash/a.wav", "m/no suffix", "m/video.m4a", "m/2/notes.txt")
    files = ["9.wav", "10.wav", "a.MP3", "B.mp3", "video.m4a"]
    files += ["1²/x.wav", "2/9.ogg", "2/10.ogg", "10/1.flac"]
    assert find_songs(["m"]) == [f"m/{name}" for name in files]
    assert find_songs([Path("m/2")]) == ["m/2/9.ogg", "m/2/10.ogg"]


def test_files_are_taken_as_they_are_named(touch):
    touch("b", ".hidden.wav", "notes.txt", "c/1.wav")
    named = ["notes.txt", "b", "nowhere.wav", "c/../b", ".hidden.wav", "./c", "b"]
    expected = ["notes.txt", "b", "nowhere.wav", ".hidden.wav", "./c/1.wav"]
    assert find_songs(named) == expected


def test_no_file_is_taken_twice(touch, tmp_path):
    touch("m/a/1.wav", "m/a/2.wav", "m/b/1.wav")
    found = find_songs(["m/a/2.wav", "m", "m/a", f"{tmp_path}/m/b/1.wav", "./m/b"])
    assert found == ["m/a/2.wav", "m/a/1.wav", "m/b/1.wav"]


def test_links_may_make_a_loop(touch):
    touch("m/a/1.wav", "elsewhere/2.wav")
    os.symlink("..", "m/a/up")
    os.symlink("../elsewhere", "m/there")
    os.symlink("../elsewhere/2.wav", "m/link.wav")
    os.symlink("gone.wav", "m/broken.wav")
    os.symlink("self.wav", "m/self.wav")
    os.symlink("self", "m/self")
    names = ["broken.wav", "link.wav", "self.wav", "a/1.wav", "there/2.wav"]
    assert find_songs(["m"]) == [f"m/{name}" for name in names]


def test_a_folder_whose_name_is_one_of_audio(touch):
    touch("m/x.wav/1.wav")
    assert find_songs(["m"]) == find_songs(["m/x.wav"]) == ["m/x.wav/1.wav"]


def test_a_folder_without_audio_is_told(touch, caplog):
    touch("empty/notes.txt", "m/1.wav")
    assert find_songs(["empty", "m", "m"]) == ["m/1.wav"]
    assert caplog.messages == ["empty: no audio found in this folder"]


def test_names_of_audio():
    assert is_audio("a.wav") and is_audio(Path("b/A.M4A")) and is_audio("s3://c/d.ogg")
    assert not any(map(is_audio, ("wav", "a.txt", "b/.wav", "b/.a.wav", "._c.mp3")))


def test_lists_of_paths(tmp_path, monkeypatch):
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfa.wav\r\n\n b c .wav \n-x\ncaf\xe9.wav\n#1.wav")
    expected = ["a.wav", " b c .wav ", "-x", os.fsdecode(b"caf\xe9.wav"), "#1.wav"]
    assert read_list(path) == expected
    stdin = io.TextIOWrapper(io.BytesIO(path.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read_list("-") == expected
    for nothing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=f"{nothing}: cannot be read"):
            read_list(nothing)


@pytest.fixture
def songs(tmp_path, write_song):
    """Songs of two genres, and between them what is none: paths of files."""
    (tmp_path / "text.wav").write_text("This is no audio. " * 100)
    return [
        write_song(tmp_path / "1.wav", ("jazz", 4.0)),
        tmp_path / "nowhere.wav",
        write_song(tmp_path / "2.flac", ("rock", 6.0), ("metal", 2.0), rate=44100),
        tmp_path / "text.wav",
        write_song(tmp_path / "3.wav", ("blues", 0.5)),
        write_song(tmp_path / "4.ogg", ("metal", 33.0)),
    ]


@pytest.mark.parametrize("jobs", [1, 3, 20])
def test_songs_are_named_in_order_and_as_they_are_alone(classifier, songs, jobs):
    found = list(classify_songs(classifier, songs, jobs=jobs))
    assert [file for file, _ in found] == songs
    for file, prediction in found:
        if file.name in ("nowhere.wav", "text.wav"):
            assert isinstance(prediction, AudioFileError)
            assert str(file) in str(prediction)
            continue
        alone = classifier.predict_song(file)
        assert prediction.genre == alone.genre
        assert prediction.shares == alone.shares
        assert prediction.posteriors == pytest.approx(alone.posteriors, abs=1e-5)
        assert prediction.duration == alone.duration


@pytest.fixture
def decoder(monkeypatch):
    """Stands for ``read_blocks``: songs are numbers of seconds, and are noted."""

    def read(seconds, rate):
        generator = np.random.default_rng(int(seconds))
        for _ in range(int(seconds)):
            read.seconds += 1
            read.threads.add(threading.get_ident())
            yield generator.standard_normal(rate, dtype=np.float32) / 8
        read.files += 1

    read.seconds = read.files = 0
    read.threads = set()
    monkeypatch.setattr(batch, "read_blocks", read)
    return read


def settle(decoder):
    """Waits until nothing more is decoded."""
    seconds = None
    while seconds != decoder.seconds:
        seconds = decoder.seconds
        time.sleep(0.2)


def test_no_more_files_are_decoded_ahead_than_jobs(classifier, decoder):
    results = classify_songs(classifier, ["14"] * 40, jobs=3)
    assert next(results)[1].duration == 14
    settle(decoder)
    # A batch is of 32 clips, which two songs and a part of the third have.
    assert 5 <= decoder.files <= 3 + 3 + 1
    assert 1 <= len(decoder.threads) <= 3
    assert threading.get_ident() not in decoder.threads
    results.close()
    settle(decoder)
    assert decoder.files < 10


def test_a_long_file_is_not_decoded_far_ahead(classifier, decoder):
    batches = []
    embedding = classifier.mods.embedding_model.embedding

    def note(*_):
        batches.append(decoder.seconds)

    hook = embedding.register_forward_hook(note)
    try:
        ((_, song),) = classify_songs(classifier, ["130"], jobs=4)
    finally:
        hook.remove()
    assert song.duration == 130 and len(song.clips) == 255
    assert len(batches) == 8
    # When the n-th batch of 16 s is through, two chunks of 30 s may be there at most.
    for number, seconds in enumerate(batches):
        assert seconds <= 16 * (number + 1) + 2.5 + 2 * 30


def test_whatever_a_decoder_raises_is_told_of_its_file(classifier, monkeypatch, songs):
    decode = batch.read_blocks

    def fragile(file, rate):
        if file == songs[2]:
            raise MemoryError("no room")
        return decode(file, rate)

    monkeypatch.setattr(batch, "read_blocks", fragile)
    found = dict(classify_songs(classifier, songs))
    assert isinstance(found[songs[2]], AudioFileError)
    told = f"{songs[2]}: cannot be decoded (MemoryError: no room)"
    assert str(found[songs[2]]).startswith(told)
    assert found[songs[0]].genre == "jazz"


CLIPS = [
    ClipPrediction(0.0, 3.0, "rock", 0.75, {}),
    ClipPrediction(0.5, 3.5, None, 0.0, {}),
    ClipPrediction(1.0, 3.71234, "jazz", 1 / 3, {}),
]


def test_a_row_of_a_song():
    song = SongPrediction(
        "rock",
        {"pop": 0.0, "jazz": 0.5, "rock": 0.5, "folk": 0.0},
        {"pop": 0.1, "jazz": 1 / 3, "rock": 1 / 3, "folk": 0.2333333},
        CLIPS,
        3.71234,
    )
    row = song_row(Path("m/a.wav"), song, top=3)
    assert row == {
        "file": "m/a.wav",
        "genre": "rock",
        "duration": 3.712,
        "clips": 2,
        "top": [
            {"genre": "rock", "share": 0.5, "posterior": 0.333333},
            {"genre": "jazz", "share": 0.5, "posterior": 0.333333},
            {"genre": "folk", "share": 0.0, "posterior": 0.233333},
        ],
        "error": None,
    }
    assert list(row) == ["file", "genre", "duration", "clips", "top", "error"]
    assert [best["genre"] for best in song_row("a", song, top=9)["top"]] == [
        *("rock", "jazz", "folk", "pop")
    ]
    timeline = [
        {"start_s": 0.0, "end_s": 3.0, "genre": "rock", "posterior": 0.75},
        {"start_s": 0.5, "end_s": 3.5, "genre": None, "posterior": 0.0},
        {"start_s": 1.0, "end_s": 3.712, "genre": "jazz", "posterior": 0.333333},
    ]
    name = os.fsdecode(b"caf\xe9.wav")
    assert song_row(name, song)["file"] == "caf\\udce9.wav"
    with_timeline = song_row("m/a.wav", song, top=3, timeline=True)
    assert with_timeline == {**row, "timeline": timeline}


@pytest.mark.parametrize("file", ["a.wav", "./a.wav", Path("a.wav"), "=a: b.wav"])
def test_a_row_of_an_error(file):
    error = AudioFileError(f"{Path(file)}: the file is empty (0 bytes)")
    assert song_row(file, error, timeline=True) == {
        "file": str(file),
        "genre": None,
        "duration": None,
        "clips": 0,
        "top": [],
        "error": "the file is empty (0 bytes)",
        "timeline": [],
    }


def test_what_a_model_is_told_by(
    tmp_path, classifier, model_folder, tone_model, genres
):
    def identity(folder, **overrides):
        model = GenreClassifier.from_hparams(
            folder, run_opts=CPU, overrides=overrides or None
        )
        return model_identity(model)

    expected = identity(model_folder)
    assert expected == model_identity(classifier)
    loaded = GenreClassifier.from_pretrained(model_folder, run_opts=CPU)
    assert model_identity(loaded) == expected
    assert expected.endswith("-majority") and len(expected) == 12 + len("-majority")

    others = [
        identity(model_folder, voting="mean"),
        identity(model_folder, hop_samples=4000),
        model_identity(
            GenreClassifier.from_hparams([model_folder, model_folder], run_opts=CPU)
        ),
    ]
    save_model_folder(tmp_path / "renamed", tone_model, genres[::-1])
    others.append(identity(tmp_path / "renamed"))
    other_model = copy.deepcopy(tone_model)
    other_model.classifier.layers[2].bias[0] += 1e-6
    save_model_folder(tmp_path / "other", other_model, genres)
    others.append(identity(tmp_path / "other"))
    assert others[0][:12] == expected[:12]
    assert len({expected, *others}) == 6
