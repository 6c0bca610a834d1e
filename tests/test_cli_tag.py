"""``ms-sincresnet tag``: what is written, skipped, shown, refused, and undone."""

import os
import shutil
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest
import soundfile
from mediafile import MediaFile
from mutagen.id3 import ID3

from ms_sincresnet import GenreClassifier
from ms_sincresnet.data import tags

from .sounds import read_results, set_tags

LOG = "log of tags.jsonl"


@pytest.fixture
def tag(tmp_path, monkeypatch, command, classifier):
    """Runs ``tag`` in an empty folder."""
    monkeypatch.setattr(GenreClassifier, "from_pretrained", lambda *_, **__: classifier)
    (tmp_path / "songs").mkdir()
    monkeypatch.chdir(tmp_path)
    return lambda *argv: command("tag", "--device=cpu", "--log", LOG, *argv)


@pytest.fixture
def song(write_song):
    """Writes a song with tags below songs/."""

    def write(name, *parts, **given):
        path = Path("songs", name)
        path.parent.mkdir(exist_ok=True)
        return set_tags(write_song(str(path), *parts), **given)

    return write


def genres(path):
    return MediaFile(path).genres


def contents(folder="songs"):
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path: (path.read_bytes(), os.stat(path).st_mtime_ns) for path in paths}


def test_a_folder_is_tagged_once_and_restored(tag, song, decoded):
    odd = os.fsdecode(b"caf\xe9\t\xe9\x9f\xb3.mp3")
    rock, jazz = song("1.mp3", ("rock", 4.0)), song("b/2.flac", ("jazz", 4.0))
    shutil.move(song("3.mp3", ("metal", 4.0)), f"songs/{odd}")
    mine = song("4.ogg", ("blues", 4.0), genres=["Lo-Fi", "Chill"])
    before = contents()
    status, out, err = tag("songs", "--dry-run", "--overwrite")
    assert (status, err, out.count("\n")) == (0, "4 to be tagged\n", 4)
    assert f"{mine}: Lo-Fi; Chill → Blues\n" in out and contents() == before
    assert os.listdir() == ["songs"]
    status, out, err = tag("songs")
    assert status == 0 and LOG in err and "1 had a genre, 3 tagged" in err
    assert "songs/caf\\udce9\\t音.mp3: no genre → Metal\n" in out
    assert out.startswith(f"{rock}: no genre → Rock\n") and out.count("\n") == 3
    found = [genres(path) for path in (rock, jazz, f"songs/{odd}", mine)]
    assert found == [["Rock"], ["Jazz"], ["Metal"], ["Lo-Fi", "Chill"]]
    after = contents()
    decoded.clear()
    assert tag("songs") == (0, "", "4 had a genre\n")
    assert contents() == after and decoded == []
    assert tag("--undo", LOG)[::2] == (0, "3 restored\n")
    restored = contents()
    assert {x: restored[x][0] for x in restored} == {x: before[x][0] for x in before}
    assert tag("--undo", LOG)[::2] == (0, "3 unchanged\n")


def test_what_is_written(tag, song):
    path = song("1.mp3", ("rock", 9.0), ("jazz", 6.0), genre="Lo-Fi")
    Path("map").write_text("rock: [Indie, Alternative]\njazz: Indie\nblues: []\n")
    ID3(path).save(v2_version=3)
    assert tag(path, "--overwrite", "--id3v23")[0] == 0
    assert (genres(path), ID3(path).version) == (["Rock"], (2, 3, 0))
    tag(path, "--overwrite", "--top", 2)
    assert (genres(path), ID3(path).version) == (["Rock", "Jazz"], (2, 4, 0))
    tag(path, "--overwrite", "--top", 2, "--genre-map", "map")
    assert genres(path) == ["Indie", "Alternative"]
    before = contents()
    unsure = (0, "", "1 without a sure genre\n")
    assert tag(path, "--overwrite", "--min-posterior", 0.99) == unsure
    assert contents() == before
    other = song("2.flac", ("blues", 4.0))
    assert tag(other, "--genre-map", "map") == unsure
    assert genres(other) is None
    Path("map").write_text("Rock: Indie\nrok: Indie\n")
    status, _, err = tag(other, "--genre-map", "map")
    assert status == 1 and "found rok" in err and "blues, " in err


def test_an_album_has_one_genre(tag, song):
    given, folder = {"album": "A", "albumartist": "B"}, {"album": "A"}
    expected = {
        song("cd1/1.mp3", ("rock", 4.0), **given): ["Jazz"],
        song("cd2/2.flac", ("jazz", 4.0), **given): ["Jazz"],
        song("cd2/3.flac", ("jazz", 4.0), **given): ["Jazz"],
        song("cd2/4.flac", ("jazz", 4.0), genre="Lo-Fi", **given): ["Lo-Fi"],
        song("cd2/5.flac", ("rock", 4.0)): ["Rock"],
        song("cd3/6.flac", ("blues", 4.0), artist="X", **folder): ["Blues"],
        song("cd3/7.flac", ("blues", 4.0), artist="Y", **folder): ["Blues"],
        song("cd3/8.flac", ("metal", 4.0), artist="Z", **folder): ["Blues"],
    }
    Path("songs/cd1/0.mp3").write_text("an error page")
    status, _, err = tag("songs", "--album")
    assert status == 3 and "1 failed, 1 had a genre, 7 tagged" in err
    assert {path: genres(path) for path in expected} == expected


def test_files_that_fail_have_a_line_and_the_others_are_tagged(tag, song, monkeypatch):
    rock = song("1.mp3", ("rock", 4.0))
    soundfile.write("songs/2.wav", [0.0] * 64000, 16000)
    Path("songs/3.mka").write_text("no audio")
    status, out, err = tag("songs", "nowhere.mp3")
    assert (status, out) == (3, f"{rock}: no genre → Rock\n")
    assert "3.mka: cannot be tagged (" in err
    assert "nowhere.mp3: cannot be tagged" in err
    assert "songs/2.wav: silent throughout" in err and "3 failed, 1 tagged" in err
    jazz = song("4.flac", ("jazz", 4.0))
    before = contents()
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", Mock(side_effect=full))
    status, _, err = tag(rock, jazz, "--overwrite")
    assert status == 3 and err.count("No space left on device") == 2
    assert contents() == before
    assert tag(jazz, "--log", "no/such/folder/log")[0] == 1


def test_the_target_of_a_link_is_tagged_once(tag, song):
    path = song("1.mp3", ("rock", 4.0))
    os.symlink("songs/1.mp3", "link.mp3")
    assert tag("link.mp3", "songs")[2].startswith("1 tagged\n")
    assert os.path.islink("link.mp3") and genres(path) == ["Rock"]
    assert os.listdir("songs") == ["1.mp3"]


def test_results_are_written_and_take_over_the_new_state(
    command, tag, song, results, decoded
):
    rock, jazz = song("1.mp3", ("rock", 4.0)), song("2.flac", ("jazz", 4.0))
    changed = song("3.flac", ("jazz", 4.0))
    mixed = song("4.flac", ("rock", 6.0), ("jazz", 4.0))
    classify = "classify", "songs", "--device=cpu", "--output", results
    classify += "--timeline", "--top=2", "--min-posterior=0.9"
    assert command(*classify)[0] == 0
    old = read_results(results)
    os.utime(changed, (0, 0))
    decoded.clear()
    status, _, err = tag("--results", results)
    assert status == 3 and "1 failed, 2 tagged, 1 without a sure genre" in err
    assert "3.flac: has an error in the results, or changed since" in err
    assert [*map(genres, (rock, jazz))] == [["Rock"], ["Jazz"]]
    assert [*map(genres, (changed, mixed))] == [None, None]
    new, state = read_results(results), ["size", "modified"]
    assert new.drop(columns=state).equals(old.drop(columns=state))
    assert (new.modified == old.modified).tolist() == [False, False, True, True]
    assert decoded == []
    assert command(*classify)[0] == 0 and decoded == [changed]


def test_an_interruption_is_resumed(tag, song, monkeypatch):
    paths = [song(f"{n}.flac", ("rock", 4.0)) for n in range(3)]
    effects = DEFAULT, KeyboardInterrupt
    write = Mock(wraps=tags.write_genres, side_effect=effects)
    with monkeypatch.context() as patch:
        patch.setattr(tags, "write_genres", write)
        status, _, err = tag("songs")
    assert status == 130 and err.startswith("1 tagged\n")
    assert err.endswith("interrupted; run the same command again to resume\n")
    assert tag("songs")[2].startswith("1 had a genre, 2 tagged\n")
    assert [*map(genres, paths)] == [["Rock"]] * 3


def test_refused_command_lines(tag, song):
    Path("a.jsonl").write_text('{"file": "a.wav"}\n')
    Path("empty").mkdir()
    for argv, code, message in [
        ([], 2, "name songs and folders; or --results FILE"),
        (["songs", "--undo", LOG], 2, "name songs and folders"),
        (["--undo", LOG, "--dry-run"], 2, "or --undo LOG only"),
        (["empty"], 1, "no audio found"),
        (["--undo", LOG], 1, "not a log of `tag`"),
        (["--results", "a.jsonl"], 1, "a.jsonl: not an output of `classify`"),
        (["--results", "a.csv"], 1, "No such file"),
    ]:
        status, _, err = tag(*argv)
        assert (status, message in err) == (code, True), err
