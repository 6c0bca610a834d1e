"""Odd inputs to ``classify``: each has its genre or its error, none a traceback."""

import io
import json
import os
import shutil
import socket
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ms_sincresnet import GenreClassifier
from ms_sincresnet.inference import batch

NOISE = np.random.default_rng(0).standard_normal(64000) / 8


@pytest.fixture
def classify(tmp_path, monkeypatch, command, model_folder, classifier):
    """Runs ``classify`` in an empty folder: exit status, rows, and error output."""
    original = GenreClassifier.from_pretrained
    monkeypatch.setattr(classifier.hparams, "voting", "majority")

    def from_pretrained(source, run_opts):
        if source == str(model_folder):
            return classifier
        return original(source, run_opts=run_opts)

    monkeypatch.setattr(GenreClassifier, "from_pretrained", from_pretrained)
    (tmp_path / "songs").mkdir()
    monkeypatch.chdir(tmp_path / "songs")

    def run(*argv, model=model_folder, output_format="jsonl"):
        options = ["--model", str(model), "--device", "cpu"]
        options += ["--format", output_format] if output_format else []
        status, out, err = command("classify", *options, *argv)
        if output_format == "jsonl":
            out = [json.loads(line) for line in out.split("\n")[:-1]]
        return status, out, err

    return run


def cut(path, share):
    """Leaves a share of a file's bytes."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(share * len(content))])


def tone(genre, **options):
    """A file with 4 s of a genre in some format, and the genre."""
    return lambda path, song: song(path, (genre, 4.0), **options), genre


def samples(values, expected="", **options):
    """A file with these samples, and the expected genre or error."""
    return lambda path, song: soundfile.write(path, values, 16000, **options), expected


def content(data, expected):
    """A file with these bytes, and the expected genre or error."""
    return lambda path, song: Path(path).write_bytes(data), expected


def nothing(expected):
    """No file, and the expected error."""
    return lambda path, song: None, expected


# Functions that write a file, and the genre or a part of the error expected of it.
FILES = {
    "no bytes.wav": content(b"", "empty (0 bytes)"),
    "text.wav": content(b"This is no audio. " * 99, "not readable"),
    "constant.wav": samples(0 * NOISE + 0.5, "silent throughout"),
    "one sample.wav": samples([0.5], "silent throughout"),
    "over full scale.wav": samples(400 * NOISE, subtype="FLOAT"),
    "60 ms.wav": (lambda path, song: song(path, ("metal", 0.06)), "metal"),
    "192 kHz.wav": tone("blues", rate=192000, channels=8),
    "flac in truth.wav": tone("jazz", format="FLAC"),
    'it\'s 100% "quoted", #1 & $HOME?.wav': tone("jazz"),
    "two\nlines\ttab \x1b[31mred\x07 ünï 音楽 🎵.wav": tone("jazz"),
    os.fsdecode(b"caf\xe9.wav"): (
        lambda path, song: shutil.move(song("plain.wav", ("jazz", 4.0)), path),
        "jazz",
    ),
    "s" * 300 + ".wav": nothing("File name too long"),
    "no/such/folder.wav": nothing("no such file"),
    "file/below.wav": (lambda path, song: Path("file").touch(), "Check the path"),
    "": nothing("found a folder"),
    "socket.wav": (
        lambda path, song: socket.socket(socket.AF_UNIX).bind(path),
        "a pipe, a socket or a device",
    ),
    "link to itself.wav": (
        lambda path, song: os.symlink(path, path),
        "Too many levels of symbolic links",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gets_its_genre_or_its_error(classify, write_song, name):
    write, expected = FILES[name]
    write(name, write_song)
    status, (row,), err = classify("--", name)
    of_name = name.encode("utf-8", "backslashreplace").decode()
    assert row["file"] == of_name
    if row["error"] is None:
        assert status == 0
        assert row["genre"] == (expected or row["genre"]) == row["top"][0]["genre"]
    else:
        assert status == 3
        assert expected and expected in row["error"]
        assert row["error"] in err or not row["error"].isprintable()
        assert "0 of 1 songs have a genre" in err


def test_a_folder_without_audio(classify):
    Path("empty").mkdir()
    Path("notes.txt").write_text("This is no audio.")
    status, _, err = classify("empty", ".")
    assert status == 1
    assert "warning: empty: no audio found in this folder" in err
    assert "error: no audio found; name songs, or folders with songs" in err


def test_a_list_of_files(classify, write_song):
    for genre in ("jazz", "rock", "metal"):
        write_song(f"{genre} song.wav", (genre, 4.0))
    lines = "\ufeffrock song.wav\r\n\njazz song.wav\nrock song.wav\nnowhere.wav"
    Path("list").write_text(lines, encoding="utf-8")
    status, rows, err = classify("metal song.wav", "--files-from", "list")
    assert status == 3 and "3 of 4 songs have a genre" in err
    assert [row["genre"] for row in rows] == ["metal", "rock", "jazz", None]
    Path("empty").touch()
    assert classify("--files-from", "empty")[0] == 1


def test_a_damaged_model_is_reported(classify, write_song, tmp_path, model_folder):
    model = shutil.copytree(model_folder, tmp_path / "model")
    cut(model / "model.safetensors", 0.5)
    write_song("song.wav", ("jazz", 3.0))
    status, out, err = classify("song.wav", "--output", "rows.jsonl", model=model)
    assert (status, out) == (1, [])
    assert err.startswith(f"error: {model}") and "model.safetensors" in err
    assert not Path("rows.jsonl").exists()


OUTPUTS = {
    "rows.jsonl": partial(pd.read_json, lines=True),
    "rows.csv": pd.read_csv,
    "rows.parquet": pd.read_parquet,
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_resumed(classify, write_song, name, monkeypatch):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    write_song("1.wav", ("jazz", 4.0))
    write_song("2.wav", ("rock", 4.0))
    output = Path("new folder", name)
    run = partial(classify, "--output", output, output_format=None)
    assert run("1.wav", "3.wav")[0] == 3
    write_song("3.wav", ("metal", 4.0))
    decoded = []
    original = batch.read_blocks

    def read(file, *options):
        decoded.append(file)
        return original(file, *options)

    monkeypatch.setattr(batch, "read_blocks", read)
    assert run(".") == (0, "", f"{output}: 3 of 3 songs have a genre\n")
    assert decoded == ["./2.wav", "./3.wav"]
    assert run("1.wav", "3.wav")[0] == 0 and len(decoded) == 2
    table = OUTPUTS[name](output)
    assert table.file.tolist() == ["1.wav", "./2.wav", "./3.wav"]
    assert table.genre.tolist() == ["jazz", "rock", "metal"]
    before = output.read_bytes()
    status, _, err = run(".", "--voting=mean")
    assert status == 1 and "cannot resume from this file" in err
    assert output.read_bytes() == before


def test_a_device_that_is_missing(classify):
    status, out, err = classify("song.wav", "--device", "cuda:99")
    assert (status, out) == (1, [])
    assert err.startswith("error: --device cuda:99: cannot be used (")


def test_the_table_of_a_terminal(classify, write_song):
    write_song("a.wav", ("rock", 12.0), ("jazz", 8.0))
    Path("b\n.wav").touch()
    argv = ["--timeline", "a.wav", "b\n.wav", "--top", "99"]
    status, out, err = classify(*argv, output_format=None)
    assert status == 3
    assert err == "1 of 2 songs have a genre\n"
    head, song, spans, error = out.splitlines()
    assert head.split() == ["file", "genre", "share", "next"]
    assert song.split()[:2] == ["a.wav", "rock"] and "jazz" in song.split("%")[1]
    assert spans.startswith("  0:00-0:12 rock, ") and spans.endswith("-0:20 jazz")
    assert error == "b\\n.wav  error: the file is empty (0 bytes). Replace it."


def test_options_that_change_the_rows(classify, write_song, model_folder):
    write_song("song.wav", ("rock", 9.0), ("jazz", 6.0))
    _, (row,), _ = classify("song.wav", "--top", "2", "--jobs", "9")
    assert [best["genre"] for best in row["top"]] == ["rock", "jazz"]
    assert row["model"].endswith("-majority") and row["clips"] == 25
    _, (mean,), _ = classify("song.wav", "--voting", "mean", "--timeline")
    assert mean["model"] == row["model"].replace("majority", "mean")
    assert all(best["share"] == best["posterior"] for best in mean["top"])
    assert len(mean["timeline"]) == 25 and len(mean["top"]) == 3
    assert mean["timeline"][0]["genre"] == "rock"
    _, (fused,), _ = classify("song.wav", "--fuse", model_folder, "--top", "2")
    assert fused["model"] != mean["model"] and fused["model"].endswith("-mean")
    assert fused["top"] == mean["top"][:2]


def test_all_that_has_audio_is_found_and_the_rest_is_counted(classify, write_song):
    for name in ("a.MPGA", "b.mkv", "c.3gp", "d.oga"):
        write_song(name, ("jazz", 4.0), format="OGG")  # found by name, read by content
    for name in ("._a.mp3", "cover.jpg", "notes.txt", "code.ts"):
        Path(name).write_text("const text = 1;\n" * 50)
    status, rows, err = classify(".")
    assert (status, [row["file"] for row in rows]) == (
        0,
        ["./a.MPGA", "./b.mkv", "./c.3gp", "./d.oga"],
    )
    assert "1 files in the folders hold no audio\n" in err
    Path("x.mp3").write_text("an error page")
    assert classify(".")[0] == 3  # this should have been audio
    os.remove("x.mp3")
    status, (row,), _ = classify("code.ts")  # asked for by name
    assert status == 3 and "not readable as audio" in row["error"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.m3u", "#EXTM3U\n#EXTINF:9,A\n{0}\n\n#x\n{1}\n"),
        ("set.M3U8", "\ufeff{0}\r\n{1}\r\n"),
        ("set.pls", "[playlist]\nFile1={0}\nTitle1=A\nFile2={1}\nNumberOfEntries=2\n"),
    ],
)
def test_a_playlist_names_songs_relative_to_its_folder(
    classify, write_song, name, content, tmp_path
):
    Path("lists/sub").mkdir(parents=True)
    write_song("lists/é.wav", ("jazz", 4.0))
    write_song("lists/sub/b.wav", ("rock", 4.0))
    path = Path("lists", name)
    expected = ["lists/é.wav", "lists/sub/b.wav"]
    path.write_text(content.format("é.wav", "sub\\b.wav"), newline="")
    for argv in ([path], ["--files-from", path]):
        status, rows, _ = classify(*argv)
        assert (status, [row["file"] for row in rows]) == (0, expected)
    path.write_bytes(content.format("é.wav", "sub/b.wav").encode("cp1252", "replace"))
    first = (tmp_path / "songs/lists/sub/b.wav").as_uri()
    if name == "set.m3u":
        assert [row["file"] for row in classify(path)[1]] == expected
        path.write_text(f"#EXTM3U\n{first}\nset.m3u\nhttp://radio/a.mp3\n")
        status, rows, _ = classify(path)
        assert rows[0]["genre"] == "rock" and len(rows) == 2 and status == 3
        assert "Download it first" in rows[1]["error"]


def test_one_song_is_read_from_the_standard_input(classify, write_song, monkeypatch):
    write_song("a.wav", ("rock", 4.0), format="FLAC")
    with open("a.wav", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        status, (row,), _ = classify("--top", "1", "-")
    assert (status, row["file"], row["genre"]) == (0, "-", "rock")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no audio")))
    status, (row,), err = classify("-")
    assert status == 3 and row["error"].startswith("not readable") and "/tmp" not in err
    for argv in (["-", "a.wav"], ["-", "--files-from", "-"]):
        status, _, err = classify(*argv)
        assert status == 2 and "reads one song from the standard input" in err


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_changed_file_is_classified_again_and_damage_is_noted(
    classify, write_song, name
):
    run = partial(classify, ".", "--output", name, output_format=None)
    write_song("1.wav", ("jazz", 4.0))
    cut(write_song("2.wav", ("rock", 8.0)), 0.5)
    run()
    table = OUTPUTS[name](name)
    assert table["size"].tolist() == [os.path.getsize(n) for n in ("1.wav", "2.wav")]
    assert table.warning.isna().tolist() == [True, False]
    assert table.warning[1].startswith("damaged or cut short (")
    stamp = os.stat("1.wav")
    write_song("1.wav", ("metal", 4.0))  # of the same size
    os.utime("2.wav", ns=(0, 0))
    run()
    table = OUTPUTS[name](name).sort_values("file")
    assert table.genre.tolist() == ["metal", "rock"]
    assert str(table.modified.tolist()[1])[:10] == "1970-01-01"
    assert stamp.st_size == os.path.getsize("1.wav")
    before = Path(name).read_bytes()
    run()
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize("name", [None, "rows.jsonl", "rows.csv", "rows.parquet"])
def test_playlists_hold_all_songs_of_the_results(classify, write_song, name):
    options = ["--playlists", "lists", *(["--output", name] if name else [])]
    run = partial(classify, *options, output_format=None)
    for genre in ("jazz", "rock", "metal"):
        write_song(f"{genre}.wav", (genre, 4.0))
    assert run("jazz.wav", "gone.wav")[0] == 3
    assert os.listdir("lists") == ["jazz.m3u8"]
    assert run("rock.wav", "metal.wav")[0] == 0
    lists = {path.stem: path.read_text() for path in Path("lists").iterdir()}
    assert lists["rock"] == "#EXTM3U\n#EXTINF:4,rock\n../rock.wav\n"
    assert sorted(lists) == ["jazz", "metal", "rock"]
    assert ("../jazz.wav" in lists["jazz"]) == (name is not None)
    unsure = ["--min-posterior", "1", "--playlists", "none", "rock.wav"]
    assert classify(*unsure, output_format=None)[0] == 0
    assert not Path("none").exists()
