"""Genres in tags: other readers find them, the audio stays, and the log undoes it."""

import os
import resource
import signal
from pathlib import Path

import av
import mutagen
import pytest
from mediafile import MediaFile
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TCON, TIT2

from ms_sincresnet.data import tags
from ms_sincresnet.data.prepare import audio_files
from ms_sincresnet.errors import UserError

from .sounds import add_audio, pcm_noise, run_in_fork, write_sound

FORMATS = ["a.mp3", "aac.m4a", "alac.m4a", "a.flac", "a.ogg", "a.opus", "a.wav"]
FORMATS += ["a.aiff", "wavpack.wv", "wmav2.wma"]


@pytest.fixture
def song(tmp_path):
    """Writes a second of noise in the format of a name to a folder."""

    def write(name):
        path = tmp_path / "songs" / name
        path.parent.mkdir(exist_ok=True)
        write_sound(path, pcm_noise(48000, 2))
        return str(path)

    return write


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log.jsonl")


def read_by_mutagen(path):
    """Genres of a file as Mutagen reads them, without MediaFile."""
    found = mutagen.File(path).tags
    for key in ("TCON", "genre", "WM/Genre", "\xa9gen"):
        if key in found:
            return [str(genre) for genre in getattr(found[key], "text", found[key])]


def read_by_ffmpeg(path):
    """Genre and audio packets of a file."""
    with av.open(path) as file:
        packets = [bytes(packet) for packet in file.demux(file.streams.audio[0])]
        names = {**file.metadata, **file.streams.audio[0].metadata}
    return {name.lower(): text for name, text in names.items()}.get("genre"), packets


def content(path):
    return Path(path).read_bytes()


def undo_all(log):
    return [tags.undo(entry) for entry in tags.read_log(log)]


def id3(version):
    """Gives an mp3 a title and a genre of its own."""

    def prepare(path):
        found = ID3()
        found.add(TIT2(encoding=1, text=["Tïtle"]))
        found.add(TCON(encoding=0, text=["(17)"]))
        found.save(path, v2_version=version)

    return prepare


def ape(path):
    found = APEv2()
    found["Genre"] = "Polka"
    found.save(path)


def riff_info(path):
    with av.open(path, "w", format="wav") as file:
        file.metadata["genre"] = "Polka"
        add_audio(file, "pcm_s16le", pcm_noise(48000, 2), 48000)()


@pytest.mark.parametrize(
    ("name", "prepare", "old"),
    [
        *[(name, None, []) for name in FORMATS],
        ("a.mp3", id3(3), ["Rock"]),
        ("a.mp3", id3(4), ["Rock"]),
        ("a.mp3", ape, ["Polka"]),
        ("a.wav", riff_info, ["Polka"]),
    ],
)
def test_genres_are_written_and_undone(song, log, name, prepare, old, caplog):
    path, genres = song(name), ["Hip-Hop", "Acid Jazz"]
    if prepare:
        prepare(path)
    before, packets = content(path), read_by_ffmpeg(path)[1]
    found = MediaFile(path)
    assert tags.read_tags(path) == (old, None)
    os.chmod(path, 0o640)
    os.utime(path, (0, 0))
    tags.write_genres(path, genres, log)
    assert read_by_mutagen(path) == genres == tags.read_tags(path)[0]
    assert MediaFile(path).title == found.title
    genre, packets_now = read_by_ffmpeg(path)
    assert genre.startswith("Hip-Hop") and packets_now == packets
    assert os.stat(path).st_mode & 0o777 == 0o640 and os.stat(path).st_mtime > 0
    assert os.listdir(os.path.dirname(path)) == [name]
    warned = "which players may show, has the genre Polka" in caplog.text
    assert warned == (old == ["Polka"])
    (entry,) = tags.read_log(log)
    assert (entry["file"], entry["new"]) == (path, genres)
    assert entry["old"] == (found.genres or [])
    assert os.path.getsize(log) < (20000 if prepare else 3000)
    assert undo_all(log) == ["restored"] and content(path) == before
    assert undo_all(log) == ["unchanged"]


def test_a_killed_write_leaves_the_old_file_and_a_hidden_one(song, log, monkeypatch):
    path = song("a.mp3")
    before, folder = content(path), os.path.dirname(path)
    monkeypatch.setattr(os, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    killed = run_in_fork(tags.write_genres, path, ["Rock"], log)
    assert killed == -signal.SIGKILL and content(path) == before
    (rest,) = {*os.listdir(folder)} - {"a.mp3"}
    assert rest.startswith(".ms-sincresnet-") and rest.endswith(".tmp.mp3")
    assert [*map(str, audio_files(folder))] == [path]
    assert undo_all(log) == ["unchanged"]


def test_a_failed_write_leaves_nothing_behind(song, log, monkeypatch):
    path = song("a.wav")
    before, soft = content(path), resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (1000, len(before)):  # the copy does not fit, or not its new tag
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, soft[1]))
        try:
            with pytest.raises(UserError, match="cannot be tagged .*File too large"):
                tags.write_genres(path, ["Rock"], log)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    save = MediaFile.save

    def ruin(file):
        save(file)
        with open(file.path, "r+b") as stream:
            stream.seek(len(before) // 2)
            stream.write(b"ruined")

    monkeypatch.setattr(MediaFile, "save", ruin)
    with pytest.raises(UserError, match="its audio would have changed"):
        tags.write_genres(path, ["Rock"], log)
    assert content(path) == before and os.listdir(os.path.dirname(path)) == ["a.wav"]
    assert not os.path.exists(log)


def test_what_cannot_be_undone(song, log, caplog):
    path, other = song("a.mp3"), song("a.flac")
    os.link(path, path + ".link")
    for file, genre in (path, "Rock"), (other, "Rock"), (path, "Jazz"):
        tags.write_genres(file, [genre], log)
    assert "its other names (hard links) keep the old tags" in caplog.text
    assert tags.read_tags(path + ".link")[0] == []
    Path(path).write_bytes(b"changed")
    os.remove(other)
    reasons = ["changed; its genre was Rock", "No such file", "its genre was empty"]
    for entry, reason in zip(tags.read_log(log), reasons, strict=True):
        with pytest.raises(UserError, match=reason):
            tags.undo(entry)
    with open(log, "a") as file:
        file.write('\n{"file": "half a li')
    assert len(tags.read_log(log)) == 3
    for text in (b"a\xe9", b'{"file": "a.wav"}', b"{}}"):
        Path(log).write_bytes(text)
        with pytest.raises(UserError, match="not a log of `tag`"):
            tags.read_log(log)


def test_a_folder_that_cannot_be_written(song, monkeypatch):
    path = song("a.mp3")
    monkeypatch.setattr(os, "access", lambda place, _: place == path)
    with pytest.raises(UserError, match="songs: cannot be written"):
        tags.read_tags(path)
