"""Odd inputs to ``classify``: each has its genre or its error, none a traceback."""

import io
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from ms_sincresnet import GenreClassifier

from .sounds import read_results


@pytest.fixture
def classify(tmp_path, monkeypatch, command, classifier):
    """Runs ``classify`` in an empty folder: exit status, rows, and error output."""
    monkeypatch.setattr(classifier.hparams, "voting", "majority")
    load = Mock(return_value=classifier)
    monkeypatch.setattr(GenreClassifier, "from_pretrained", load)
    (tmp_path / "songs").mkdir()
    monkeypatch.chdir(tmp_path / "songs")

    def run(*argv):
        shown = not {"--format", "--output"} & {*argv}
        argv = "--model=m", *(["--format=jsonl"] if shown else []), *argv
        status, out, err = command("classify", "--device=cpu", *argv)
        rows = [json.loads(line) for line in out.split("\n")[:-1]] if shown else out
        return status, rows, err

    return run


# Of each file: its bytes, or how a song was written to it; its genre or error.
FILES = {
    "no bytes.wav": (b"", "empty (0 bytes)"),
    "text.wav": (b"This is no audio. " * 99, "not readable"),
    "192 kHz.wav": ({"rate": 192000, "channels": 8}, "jazz"),
    "flac in truth.wav": ({"format": "FLAC"}, "jazz"),
    'it\'s 100% "quoted", #1 & $HOME?.wav': ({}, "jazz"),
    "two\nlines\ttab \x1b[31mred\x07 ünï 音楽 🎵.wav": ({}, "jazz"),
    os.fsdecode(b"caf\xe9.wav"): ({}, "jazz"),
    "s" * 300 + ".wav": (None, "File name too long"),
    "no/such/folder.wav": (None, "no such file"),
    "": (None, "found a folder"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gets_its_genre_or_its_error(classify, write_song, name):
    content, expected = FILES[name]
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    elif content is not None:
        shutil.move(write_song("plain.wav", ("jazz", 4.0), **content), name)
    status, (row,), err = classify("--", name)
    assert row["file"] == name.encode("utf-8", "backslashreplace").decode()
    if row["error"] is None:
        assert status == 0
        assert row["genre"] == expected == row["top"][0]["genre"]
    else:
        assert status == 3
        assert expected in row["error"]
        assert row["error"] in err or not row["error"].isprintable()
        assert "0 of 1 songs have a genre" in err


def test_neither_a_folder_nor_a_list_has_songs(classify):
    Path("empty").mkdir()
    Path("list").touch()
    Path("notes.txt").write_text("This is no audio.")
    status, _, err = classify("empty", ".")
    assert status == 1 and "warning: empty: no audio found in this folder" in err
    assert "error: no audio found; name songs, or folders with songs" in err
    assert classify("--files-from", "list")[0] == 1


@pytest.mark.parametrize(
    ("path", "text", "encoding"),
    [
        ("list", "\ufefflists/é.wav\r\n\nlists/sub/b.wav\nlists/é.wav", "utf-8"),
        ("lists/set.m3u", "#EXTM3U\n#EXTINF:9,A\né.wav\n\nsub\\b.wav\n", "cp1252"),
        ("lists/set.M3U8", "\ufeffé.wav\r\nsub/b.wav\r\n", "utf-8"),
        ("lists/set.pls", "[playlist]\nFile1=é.wav\nFile2=sub/b.wav", "utf-8"),
    ],
)
def test_songs_are_listed_in_a_file(classify, write_song, path, text, encoding):
    Path("lists/sub").mkdir(parents=True)
    songs = ["a.wav", "lists/é.wav", "lists/sub/b.wav"]
    for song in songs:
        write_song(song, ("jazz", 4.0))
    Path(path).write_text(text, encoding, newline="")
    status, rows, _ = classify("a.wav", "--files-from", path)
    assert (status, [row["file"] for row in rows]) == (0, songs)


def test_addresses_in_a_playlist(classify, write_song):
    address = Path(write_song("b.wav", ("rock", 4.0))).absolute().as_uri()
    Path("set.m3u").write_text(f"#EXTM3U\n{address}\nset.m3u\nhttp://radio/a.mp3\n")
    status, (local, remote), _ = classify("set.m3u")
    assert status == 3 and local["genre"] == "rock"
    assert "Download it first" in remote["error"]


def test_an_output_is_resumed(classify, write_song, results, decoded):
    output = Path("new folder", results)
    run = partial(classify, "--output", output, "--playlists", "a/b")
    write_song("1.wav", ("jazz", 4.0))
    os.truncate(write_song("2.wav", ("rock", 8.0)), 128000)
    assert run("1.wav", "3.wav")[0] == 3
    write_song("3.wav", ("metal", 4.0))
    decoded.clear()
    status, out, err = run(".")
    damage, count = err.splitlines()
    assert (status, out, count) == (0, "", f"{output}: 3 of 3 songs have a genre")
    assert damage.startswith("warning: ./2.wav: damaged or cut short (")
    assert decoded == ["./2.wav", "./3.wav"]
    table = read_results(output)
    assert table.file.tolist() == ["1.wav", "./2.wav", "./3.wav"]
    assert table.genre.tolist() == ["jazz", "rock", "metal"]
    assert table["size"].tolist() == [os.path.getsize(name) for name in table.file]
    assert table.warning.isna().tolist() == [True, False, True]
    assert table.warning[1] in damage
    lists = {path.name: path.read_text() for path in Path("a/b").iterdir()}
    assert sorted(lists) == ["jazz.m3u8", "metal.m3u8", "rock.m3u8"]
    assert "../../1.wav" in lists["jazz.m3u8"]  # of the first run

    write_song("1.wav", ("metal", 4.0))  # of the same size
    os.utime("2.wav", ns=(0, 0))
    decoded.clear()
    assert run("1.wav", "2.wav", "3.wav")[0] == 0 and decoded == ["1.wav", "2.wav"]
    table = read_results(output).set_index("file")
    assert table.genre[["1.wav", "2.wav"]].tolist() == ["metal", "rock"]
    assert str(table.modified["2.wav"])[:10] == "1970-01-01"
    before = output.read_bytes()
    assert run(".")[0] == 0 and len(decoded) == 2
    status, _, err = run(".", "--voting=mean")
    assert status == 1 and "cannot resume from this file" in err
    assert output.read_bytes() == before


def test_a_damaged_model_and_a_missing_device(command, tmp_path, model_folder):
    model = shutil.copytree(model_folder, tmp_path / "model")
    output = tmp_path / "rows.jsonl"
    run = partial(command, "classify", "song.wav", "--output", output, "--model")
    status, out, err = run(model_folder, "--device", "cuda:99")
    assert (status, out) == (1, "")
    assert err.startswith("error: --device cuda:99: cannot be used (")
    os.truncate(model / "model.safetensors", 100000)
    status, out, err = run(model, "--device=cpu")
    assert (status, out) == (1, "") and not output.exists()
    assert err.startswith(f"error: {model}") and "model.safetensors" in err


def test_the_table_of_a_terminal(classify, write_song):
    write_song("a.wav", ("rock", 12.0), ("jazz", 8.0))
    status, out, err = classify("a.wav", "b.wav", "--format", "table")
    assert (status, err) == (3, "1 of 2 songs have a genre\n")
    head, song, error = out.splitlines()
    assert head.split() == ["file", "genre", "share", "next"]
    assert song.split()[:2] == ["a.wav", "rock"] and "jazz" in song.split("%")[1]
    assert error.startswith("b.wav  error: no such file")


def test_options_that_change_the_rows(classify, write_song):
    write_song("song.wav", ("rock", 9.0), ("jazz", 6.0))
    _, (row,), _ = classify("song.wav", "--top", "2", "--jobs", "9")
    assert [best["genre"] for best in row["top"]] == ["rock", "jazz"]
    assert row["model"].endswith("-majority") and row["clips"] == 25
    _, (mean,), _ = classify("song.wav", "--voting", "mean", "--timeline")
    assert mean["model"] == row["model"].replace("majority", "mean")
    assert len(mean["timeline"]) == 25 and len(mean["top"]) == 3
    assert mean["timeline"][0]["genre"] == "rock"
    classify("song.wav", "--fuse", "a", "--fuse", "b")
    assert GenreClassifier.from_pretrained.call_args.args == (["m", "a", "b"],)


def test_all_that_has_audio_is_found_and_the_rest_is_counted(classify, write_song):
    for name in ("a.MPGA", "b.mkv"):
        write_song(name, ("jazz", 4.0), format="OGG")  # found by name, read by content
    for name in ("._a.mp3", "notes.txt", "code.ts"):
        Path(name).write_text("const text = 1;\n" * 50)
    status, rows, err = classify(".")
    assert (status, [row["file"] for row in rows]) == (0, ["./a.MPGA", "./b.mkv"])
    assert "1 files in the folders hold no audio\n" in err
    Path("x.mp3").write_text("an error page")
    assert classify(".")[0] == 3  # this should have been audio
    os.remove("x.mp3")
    status, (row,), _ = classify("code.ts")  # asked for by name
    assert status == 3 and "not readable as audio" in row["error"]


def test_one_song_is_read_from_the_standard_input(classify, write_song, monkeypatch):
    write_song("a.wav", ("rock", 4.0), format="FLAC")
    with open("a.wav", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        status, (row,), _ = classify("--top", "1", "-")
    assert (status, row["file"], row["genre"]) == (0, "-", "rock")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no audio")))
    status, (row,), err = classify("-")
    assert status == 3 and row["error"].startswith("not readable") and "/tmp" not in err


def test_playlists_without_an_output_hold_the_songs_of_the_run(classify, write_song):
    run = partial(classify, "--playlists", "lists")
    for genre in ("jazz", "rock", "metal"):
        write_song(f"{genre}.wav", (genre, 4.0))
    assert run("jazz.wav", "gone.wav")[0] == 3
    assert os.listdir("lists") == ["jazz.m3u8"]
    assert run("rock.wav", "metal.wav")[0] == 0
    lists = {path.stem: path.read_text() for path in Path("lists").iterdir()}
    assert lists["rock"] == "#EXTM3U\n#EXTINF:4,rock\n../rock.wav\n"
    assert "jazz.wav" not in lists["jazz"]
    assert run("--min-posterior=1", "--playlists=none", "rock.wav")[0] == 0
    assert not Path("none").exists()
