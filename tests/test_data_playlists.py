"""Playlists: written for players, and read back."""

import os
from pathlib import Path

import pytest

from ms_sincresnet.data.playlists import read_list, write_genres, write_playlist
from ms_sincresnet.errors import UserError

NAMES = ["a.wav", "#1.wav", " b .wav", "ünï 音楽 🎵.wav", "back\\slash.wav"]
NAMES += ["50% & 7.wav"]
BAD = ["two\nlines.wav", "a\rreturn.wav", os.fsdecode(b"caf\xe9.wav"), "end.wav "]


def test_a_playlist_is_read_back(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for folder in ("music", "far/away/lists"):
        Path(folder).mkdir(parents=True)
    for name in NAMES + BAD:
        Path("music", name).touch()
    Path("lists").symlink_to("far/away/lists")
    # Results spell bytes that are not UTF-8 as escapes.
    songs = [(f"music/{name}", 61.6) for name in [*NAMES, *BAD, "caf\\udce9.wav"]]
    write_playlist("lists/new/odd.m3u8", songs)
    assert "new/odd.m3u8: cannot hold the names of 5 songs" in caplog.text
    listed = read_list("lists/new/odd.m3u8")
    assert [os.path.basename(song) for song in listed] == NAMES
    for name, song in zip(NAMES, listed, strict=True):
        assert os.path.samefile(song, f"music/{name}")
    head, *lines = Path("lists/new/odd.m3u8").read_bytes().decode().split("\n")
    assert head == "#EXTM3U" and lines[0] == "#EXTINF:62,a"
    assert lines[1] == "../../../../music/a.wav" and lines[-1] == ""

    write_playlist("music/own.m3u8", [(str(tmp_path / "music/#1.wav"), None)])
    own = Path("music/own.m3u8").read_text()
    assert own == "#EXTM3U\n#EXTINF:-1,#1\n./#1.wav\n"
    write_playlist("music/own.m3u8", [("s3://songs/a.wav", None)])
    assert read_list("music/own.m3u8") == ["s3://songs/a.wav"]


def test_a_playlist_that_cannot_be_written(tmp_path):
    (tmp_path / "list.m3u8").mkdir()
    with pytest.raises(UserError, match="list.m3u8: cannot be written .Is a directory"):
        write_playlist(tmp_path / "list.m3u8", [])
    assert os.listdir(tmp_path) == ["list.m3u8"]


def test_a_playlist_per_genre(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genres = ["jazz", "R&B/Soul", "R&B:Soul", "..", "ROCK", "rock", "pop", "x" * 300]
    songs = [(genre, f"{genre[0]}.wav", 3.0) for genre in genres[1:] if genre != "pop"]
    songs += [("jazz", f"{number}.wav", 3.0) for number in (10, 9, 1)]
    songs += [(None, "unsure.wav", 3.0)]
    Path("pop.m3u8").write_text("#EXTM3U\n#EXTINF:-1,b\nb.wav\n")  # of an earlier run
    write_genres(".", genres, songs)
    names = ["R&B_Soul", "R&B_Soul_", "_", "ROCK", "rock_", "pop", "jazz", "x" * 60]
    assert sorted(os.listdir()) == sorted(f"{name}.m3u8" for name in names)
    assert read_list("pop.m3u8") == []
    assert read_list("jazz.m3u8") == ["1.wav", "9.wav", "10.wav"]
    assert read_list("rock_.m3u8") == ["r.wav"] and read_list("ROCK.m3u8") == ["R.wav"]
