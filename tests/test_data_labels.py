"""Songs with their genres, from folders, csv files and tags, and what is refused."""

import os
import re

import pytest
import soundfile

from ms_sincresnet.data.labels import read_genre_map, read_labels
from ms_sincresnet.errors import UserError

from .sounds import set_tags


def write(path, **tags):
    """Writes 0.1 s of silence with tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, [0.0] * 1600, 16000)
    set_tags(path, **tags)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_genre_is_the_first_folder(tmp_path, caplog):
    touch(tmp_path, "Delta Blues/a/1.mp3", "jazz/x.wav", "jazz/.hidden.wav", "3.mp3")
    write(tmp_path / "jazz/y.flac", artist="A", album="B", genres=["Rock"])
    write(tmp_path / "jazz/z.flac", artist="A", albumartist="C", album="B")
    songs = read_labels(tmp_path)
    assert songs.values.tolist() == [
        ["Delta_Blues.a.1", "Delta Blues", tmp_path / "Delta Blues/a/1.mp3", ""],
        ["jazz.x", "jazz", tmp_path / "jazz/x.wav", ""],
        ["jazz.y", "jazz", tmp_path / "jazz/y.flac", "A – B"],
        ["jazz.z", "jazz", tmp_path / "jazz/z.flac", "C – B"],
    ]
    assert [*songs] == ["ID", "genre", "path", "album"]
    (warning,) = caplog.messages
    assert "left out 1 without one, such as" in warning and "3.mp3" in warning


def test_ids_are_unique_names_for_files_and_stay(tmp_path):
    long = "/".join(["ü" * 100] * 3)
    names = ["a/b.c.wav", "a/b/c.wav", "a/B.c.mp3", "a/$x, y\n.wav", f"a/{long}/1.wav"]
    touch(tmp_path, *names, os.fsdecode(b"a/\xff.wav"))
    songs = read_labels(tmp_path)
    assert len({name.casefold() for name in songs.ID}) == len(songs) == 6
    assert {"a._x_y_", "a._udcff"} < {*songs.ID}
    for name in songs.ID:
        (tmp_path / f"{name}.flac").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "a").rename(tmp_path / "other/a")
    assert read_labels(tmp_path / "other").ID.equals(songs.ID)


def test_paths_of_a_csv_are_relative_to_it(tmp_path, monkeypatch):
    latin = os.fsdecode(b"\xff.wav")
    touch(tmp_path, "lists/a.wav", "b.wav", "c.wav", latin)
    text = "path,year,genre\na.wav,1,jazz\n../b.wav,2, Hip-Hop \n"
    text += f"{tmp_path}/c.wav,3,4\n\n../{latin},5,x\xe9\n"
    path = tmp_path / "lists/labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + os.fsencode(text))
    monkeypatch.chdir(tmp_path)
    songs = read_labels(labels="lists/labels.csv")
    assert songs.genre.tolist() == ["x\xe9", "jazz", "Hip-Hop", "4"]
    assert songs.ID.tolist() == ["_udcff", "a", "b", "c"]


def test_genres_from_tags(tmp_path, caplog):
    write(tmp_path / "1.flac", genres=["Hip-Hop", "Rap"], album="B")
    write(tmp_path / "a/2.mp3", genres=["Post Rock; Rock"])
    write(tmp_path / "3.ogg")
    touch(tmp_path, "4.wav", "5.mka")
    write(tmp_path / "6.mp3", genres=["(7)"])  # a number of ID3
    write(tmp_path / "7.mp3", genres=["hip hop"])
    write(tmp_path / "8.ogg", genres=["Hip-Hop"])
    songs = read_labels(tmp_path, from_tags=True)
    assert songs.genre.tolist() == [*["Hip-Hop"] * 4, "Post Rock"]
    assert songs.album.tolist() == [" – B", "", "", "", ""]
    (warning,) = caplog.messages
    assert "songs with a genre tag; left out 3 without one" in warning


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("1.txt", None, "expected songs in a folder for each genre; found none"),
        ("1.wav", None, "found 1 without one, such as"),
        (" /1.wav", None, "the name of its genre is empty"),
        ("1.wav", "a;b\n", "expected path,genre and rows below; found 'a;b'"),
        ("1.wav", "path,genre\n", "found 'path,genre' and 0 rows"),
        ("1.wav", "path,genre\n1.wav,\n", "1.wav: the name of its genre is empty"),
        (
            "1.wav",
            "path,genre\n1.wav,a\n\n2.wav,a\n,a\n",
            "l.csv, line 4: {root}/2.wav; 2 of 3 paths do not exist",
        ),
        (
            "1.wav",
            "path,genre\n1.wav,a\n./1.wav,b\n",
            "l.csv, line 3: {root}/1.wav; 1 of 2 paths are in lines above as well",
        ),
    ],
)
def test_refused_labels(tmp_path, name, text, message):
    touch(tmp_path, name)
    source = {"folder": tmp_path} if text is None else {"labels": tmp_path / "l.csv"}
    (tmp_path / "l.csv").write_text(text or "")
    with pytest.raises(UserError, match=re.escape(message.format(root=tmp_path))):
        read_labels(**source)


def test_what_does_not_exist_is_refused(tmp_path):
    for place in {"folder": tmp_path / "x"}, {"labels": tmp_path / "x"}:
        with pytest.raises(UserError, match=r"x: (no such folder|cannot be read)"):
            read_labels(**place)
    with pytest.raises(UserError, match="name a folder of songs"):
        read_labels(labels="b", from_tags=True)


def test_genre_maps(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text("hiphop: [Rap, Hip-Hop/R&B]\nmetal: Heavy Metal\nno: 1980\n")
    expected = {"hiphop": ["Rap", "Hip-Hop/R&B"], "metal": ["Heavy Metal"]}
    assert read_genre_map(path) == expected | {"no": ["1980"]}
    for text in "", "rock", "- a", "a: [", "a: [{b: c}]", "\x00":
        path.write_text(text)
        with pytest.raises(UserError, match="not a map of genres; expected .*: theirs"):
            read_genre_map(path)
    with pytest.raises(UserError, match="not a map of genres; .*No such file"):
        read_genre_map(tmp_path / "nowhere.yaml")
