"""Bad and odd inputs to ``classify``: each has its outcome, none a traceback."""

import json
import os
import shutil
import socket
import struct
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ms_sincresnet import GenreClassifier
from ms_sincresnet.cli import main

NOISE = np.random.default_rng(0).standard_normal(64000) / 8


@pytest.fixture(scope="module")
def load():
    """Loads a model, once for all cases that ask for it in the same way."""
    loaded, votings = {}, {}
    original = GenreClassifier.from_pretrained

    def from_pretrained(source, run_opts):
        key = str((source, run_opts))
        if key not in loaded:
            loaded[key] = original(source, run_opts=run_opts)
            votings[key] = loaded[key].hparams.voting
        loaded[key].hparams.voting = votings[key]  # which --voting may have changed
        return loaded[key]

    return from_pretrained


@pytest.fixture
def classify(tmp_path, monkeypatch, capsys, model_folder, load):
    """Runs ``classify`` in an empty folder: exit status, rows, and error output."""
    monkeypatch.setattr(GenreClassifier, "from_pretrained", load)
    (tmp_path / "songs").mkdir()
    monkeypatch.chdir(tmp_path / "songs")

    def run(*argv, model=model_folder, form="json"):
        options = ["--device", "cpu", *(["--format", form] if form else [])]
        try:
            status = main(["classify", str(model), *options, *map(str, argv)])
        except SystemExit as stopped:
            status = stopped.code
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, json.loads(out) if form == "json" and out else out, err

    return run


def wav(path, samples, rate=16000, **options):
    """Writes samples."""
    soundfile.write(path, samples, rate, **options)


def cut(path, share):
    """Leaves a share of a file's bytes."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(share * len(content))])


def wav_header(data_bytes, rate=16000, channels=1, bits=16):
    """The header of a wav file that claims to hold so many bytes of samples."""
    step = channels * bits // 8
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", min(36 + data_bytes, 2**32 - 1), b"WAVE", b"fmt ", 16, 1, channels),
        *(rate, rate * step & 0xFFFFFFFF, step & 0xFFFF, bits, b"data", data_bytes),
    )


def syncsafe(number):
    """A number as ID3 writes it: 7 bits a byte."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def with_cover(path, song):
    """An mp3 file with a title and a picture of 200 kB in front, and a tag behind."""
    song("plain.mp3", ("jazz", 4.0), rate=44100)
    title = b"TIT2" + (10).to_bytes(4, "big") + b"\0\0\3The title"
    image = b"\0image/png\0\3\0" + bytes(range(256)) * 800
    picture = b"APIC" + len(image).to_bytes(4, "big") + b"\0\0" + image
    tag = b"ID3\3\0\0" + syncsafe(len(title + picture)) + title + picture
    end = b"TAG" + bytes(125)
    Path(path).write_bytes(tag + Path("plain.mp3").read_bytes() + end)


def tone(genre, **options):
    """What writes 4 s of a genre in some format, and the genre."""
    return lambda path, song: song(path, (genre, 4.0), **options), genre


# What writes a file, given its path and the function that writes songs, and what is
# expected of it: a genre, or a part of the error.
FILES = {
    "no bytes.wav": (lambda path, song: Path(path).touch(), "empty (0 bytes)"),
    "text.wav": (
        lambda path, song: Path(path).write_text("This is no audio. " * 99),
        "not readable as audio",
    ),
    "picture.mp3": (
        lambda path, song: Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000)),
        "not readable as audio",
    ),
    "random.flac": (
        lambda path, song: Path(path).write_bytes(NOISE.tobytes()),
        "not readable as audio",
    ),
    "header.wav": (
        lambda path, song: Path(path).write_bytes(wav_header(0)),
        "empty track",
    ),
    "half a header.wav": (
        lambda path, song: Path(path).write_bytes(wav_header(0)[:20]),
        "not readable as audio",
    ),
    "no samples.wav": (lambda path, song: wav(path, NOISE[:0]), "empty track"),
    "nan.wav": (
        lambda path, song: wav(path, [0, 0.5, np.nan, 0] * 9000, subtype="FLOAT"),
        "NaN or infinity at 0.000 s",
    ),
    "infinite.wav": (
        lambda path, song: wav(path, [*NOISE, np.inf], subtype="DOUBLE"),
        "NaN or infinity at 4.000 s",
    ),
    "silent.wav": (lambda path, song: wav(path, 0 * NOISE), "silent throughout"),
    "silent.mp3": (lambda path, song: wav(path, 0 * NOISE, 44100), "silent throughout"),
    "constant.wav": (
        lambda path, song: wav(path, 0 * NOISE + 0.5),
        "silent throughout",
    ),
    "one sample.wav": (lambda path, song: wav(path, [0.5]), "silent throughout"),
    "two samples.wav": (lambda path, song: wav(path, [0.5, -0.5]), ""),
    "noise of 10 ms.wav": (lambda path, song: wav(path, NOISE[:160]), ""),
    "60 ms.wav": (lambda path, song: song(path, ("metal", 0.06)), "metal"),
    "8 channels.wav": tone("jazz", channels=8),
    "8 kHz.wav": tone("metal", rate=8000),
    "192 kHz.wav": tone("blues", rate=192000),
    "11025 Hz.aiff": tone("rock", rate=11025),
    "44101 Hz.wav": tone("rock", rate=44101),
    "1 Hz.wav": (lambda path, song: wav(path, NOISE[:4], 1), "found 1 Hz"),
    "24 bits.wav": tone("jazz", subtype="PCM_24"),
    "8 bits.wav": tone("jazz", subtype="PCM_U8"),
    "float.wav": tone("rock", subtype="FLOAT"),
    "over full scale.wav": (
        lambda path, song: wav(path, 400 * NOISE, subtype="FLOAT"),
        "",
    ),
    "a-law.wav": tone("rock", subtype="ALAW"),
    "adpcm.wav": tone("rock", subtype="IMA_ADPCM"),
    "rf64.wav": tone("rock", format="RF64"),
    "song.au": tone("rock"),
    "song.caf": tone("rock"),
    "song.opus": (
        lambda path, song: song(
            path, ("rock", 4.0), rate=48000, format="OGG", subtype="OPUS"
        ),
        "rock",
    ),
    "tags and cover.mp3": (with_cover, "jazz"),
    "flac in truth.wav": tone("jazz", format="FLAC"),
    "UPPER CASE.WAV": tone("jazz"),
    "no suffix": tone("jazz", format="WAV"),
    ".hidden.wav": tone("jazz"),
    'it\'s 100% "quoted", #1 & $HOME?.wav': tone("jazz"),
    "two\nlines\ttab.wav": tone("jazz"),
    "ünï 音楽 🎵.wav": tone("jazz"),
    "\x1b[31mred\x07.wav": tone("jazz"),
    "=cmd|calc.wav": tone("jazz"),
    os.fsdecode(b"caf\xe9.wav"): (
        lambda path, song: shutil.move(song("plain.wav", ("jazz", 4.0)), path),
        "jazz",
    ),
    "~.wav": tone("jazz"),
    "s" * 251 + ".wav": tone("jazz"),
    "s" * 300 + ".wav": (lambda path, song: None, "File name too long"),
    "no/such/folder.wav": (lambda path, song: None, "no such file"),
    "file/below.wav": (lambda path, song: Path("file").touch(), "Check the path"),
    "": (lambda path, song: None, "found a folder"),
    "/dev/null": (lambda path, song: None, "a pipe, a socket or a device"),
    "/dev/zero": (lambda path, song: None, "a pipe, a socket or a device"),
    "pipe.wav": (lambda path, song: os.mkfifo(path), "a pipe, a socket or a device"),
    "socket.wav": (
        lambda path, song: socket.socket(socket.AF_UNIX).bind(path),
        "a pipe, a socket or a device",
    ),
    "link.wav": (
        lambda path, song: os.symlink(song("target.flac", ("jazz", 4.0)), path),
        "jazz",
    ),
    "broken link.wav": (
        lambda path, song: os.symlink("gone.wav", path),
        "no such file",
    ),
    "link to itself.wav": (
        lambda path, song: os.symlink(path, path),
        "Too many levels of symbolic links",
    ),
    "2 GB claimed.wav": (
        lambda path, song: Path(path).write_bytes(wav_header(2**31) + bytes(3200)),
        "silent throughout",
    ),
    "65535 channels.wav": (
        lambda path, song: Path(path).write_bytes(wav_header(2**31, channels=65535)),
        "not readable as audio",
    ),
    "a rate of 4 GHz.wav": (
        lambda path, song: Path(path).write_bytes(
            wav_header(64000, rate=2**32 - 1) + NOISE.astype("<i2").tobytes()
        ),
        "not readable as audio",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gets_its_genre_or_its_error(classify, write_song, name):
    write, expected = FILES[name]
    write(name, write_song)
    status, (row,), err = classify("--", name) if name else classify("")
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


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "aiff", "au"])
def test_of_a_file_that_breaks_off_the_rest_is_heard(classify, write_song, suffix):
    path = f"song.{suffix}"
    write_song(path, ("metal", 12.0), ("jazz", 12.0), rate=44100)
    cut(path, 0.45)
    status, (row,), err = classify(path)
    assert status == 0
    assert row["genre"] == "metal"
    assert 3 < row["duration"] < 13
    assert f"warning: {path}: damaged or cut short" in err


def test_m4a_without_its_extra(classify, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    Path("song.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(999))
    status, (row,), _ = classify("song.m4a")
    assert status == 3
    assert "pip install '.[audio]'" in row["error"]


def test_m4a(classify, write_song):
    av = pytest.importorskip("av")
    samples, rate = soundfile.read(write_song("song.wav", ("jazz", 4.0), rate=44100))
    with av.open("song.m4a", "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for block in np.split(samples[: 172 * 1024].astype(np.float32), 172):
            frame = av.AudioFrame.from_ndarray(block[None], "fltp", "mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    status, (row,), _ = classify("song.m4a")
    assert (status, row["genre"]) == (0, "jazz")


def test_a_file_that_may_not_be_read(classify, write_song):
    os.chmod(write_song("song.wav", ("jazz", 4.0)), 0)
    if os.access("song.wav", os.R_OK):
        pytest.skip("root may read anything")
    status, (row,), _ = classify("song.wav")
    assert status == 3 and row["error"]


def test_one_bad_file_does_not_stop_the_rest(classify, write_song):
    write_song("1.wav", ("jazz", 4.0))
    Path("2.wav").write_text("This is no audio.")
    wav("3.wav", [*NOISE, np.nan], subtype="FLOAT")
    write_song("4.wav", ("rock", 40.0))
    status, rows, err = classify(".")
    assert status == 3
    assert [row["genre"] for row in rows] == ["jazz", None, None, "rock"]
    assert err.count("error: ") == 2
    assert "2 of 4 songs have a genre" in err


def test_a_folder_without_audio(classify):
    Path("empty").mkdir()
    Path("notes.txt").write_text("This is no audio.")
    status, _, err = classify("empty", ".")
    assert status == 1
    assert "warning: empty: no audio found in this folder" in err
    assert "error: no audio found; name songs, or folders that hold some" in err


def test_nested_folders_and_what_is_left_out(classify, write_song):
    names = ["b/10.wav", "b/9.wav", "a.wav/1.wav", "a.wav/deep/er/1.wav", "Top.WAV"]
    names += ["b/.hidden.wav", "b/._9.wav", ".git/1.wav", "b/cover.jpg"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_song(name, ("jazz", 3.0), format="WAV")
    os.symlink("..", "b/loop")
    status, rows, _ = classify(".", "b", "./b/9.wav")
    assert status == 0
    expected = ["Top.WAV", "a.wav/1.wav", "a.wav/deep/er/1.wav", "b/9.wav", "b/10.wav"]
    assert [row["file"] for row in rows] == [f"./{name}" for name in expected]


def test_files_of_one_name_in_two_folders(classify, write_song):
    for genre in ("jazz", "rock"):
        Path(genre).mkdir()
        write_song(f"{genre}/01.wav", (genre, 4.0))
    status, rows, _ = classify("rock/01.wav", "jazz", "rock")
    assert status == 0
    assert [row["genre"] for row in rows] == ["rock", "jazz"]


@pytest.mark.parametrize("to_stdin", [False, True])
def test_a_list_of_files(classify, write_song, monkeypatch, to_stdin):
    for genre in ("jazz", "rock", "metal"):
        write_song(f"{genre} song.wav", (genre, 4.0))
    lines = "\ufeffrock song.wav\r\n\njazz song.wav\nrock song.wav\nnowhere.wav"
    Path("list").write_text(lines, encoding="utf-8")
    with open("list", encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = "-" if to_stdin else "list"
        status, rows, _ = classify("metal song.wav", "--files-from", source)
    assert status == 3
    assert [row["genre"] for row in rows] == ["metal", "rock", "jazz", None]


def test_a_list_that_is_empty_or_missing(classify):
    Path("list").touch()
    assert classify("--files-from", "list")[0] == 1
    status, _, err = classify("--files-from", "nowhere")
    assert status == 1 and "error: nowhere: cannot be read" in err
    status, _, err = classify("--files-from", ".")
    assert status == 1 and "error: .: cannot be read (Is a directory)" in err


@pytest.fixture
def model(tmp_path, model_folder):
    """A copy of the model, which may be damaged."""
    return shutil.copytree(model_folder, tmp_path / "model")


def edit_config(model, **entries):
    """Changes what a model's config says."""
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# What damages a model's folder, and what is told of it.
MODELS = {
    "missing": (shutil.rmtree, "no such model folder"),
    "empty": (
        lambda model: [path.unlink() for path in model.iterdir()],
        "no config.json there",
    ),
    "a file": (
        lambda model: (shutil.rmtree(model), model.write_text("model")),
        "no such model folder",
    ),
    "no weights": (
        lambda model: (model / "model.safetensors").unlink(),
        "no such file of weights",
    ),
    "damaged weights": (
        lambda model: (model / "model.safetensors").write_bytes(bytes(5000)),
        "model.safetensors: ",
    ),
    "weights cut short": (
        lambda model: cut(model / "model.safetensors", 0.5),
        "model.safetensors: ",
    ),
    "weights of another": (
        lambda model: edit_config(model, n_filters=16),
        "model.safetensors: ",
    ),
    "a newer format": (
        lambda model: edit_config(model, format_version=99),
        "its format_version is 99",
    ),
    "an unknown key": (lambda model: edit_config(model, run="me"), "config.json: "),
    "no json": (
        lambda model: (model / "config.json").write_text("{"),
        "config.json: not json",
    ),
}


@pytest.mark.parametrize("damage", MODELS)
def test_a_bad_model_is_told(classify, write_song, model, damage):
    harm, told = MODELS[damage]
    harm(model)
    write_song("song.wav", ("jazz", 3.0))
    status, out, err = classify("song.wav", "--output", "rows.json", model=model)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {model}") and told in err
    assert not Path("rows.json").exists()


OUTPUTS = {
    "rows.json": lambda path: json.loads(path.read_text()),
    "rows.csv": lambda path: pd.read_csv(path).to_dict("records"),
    "rows.parquet": lambda path: pd.read_parquet(path).to_dict("records"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_gone_on_with(classify, write_song, name, monkeypatch):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    write_song("1.wav", ("jazz", 4.0))
    write_song("2.wav", ("rock", 4.0))
    output = Path("new folder", name)
    options = ["--output", output]
    assert classify("1.wav", "3.wav", *options, form=None)[0] == 3
    write_song("3.wav", ("metal", 4.0))
    done = []
    original = batch.read_blocks

    def read(file, rate):
        done.append(file)
        return original(file, rate)

    monkeypatch.setattr(batch, "read_blocks", read)
    status, out, err = classify(".", *options, form=None)
    assert (status, out, err) == (0, "", f"{output}: 3 of 3 songs have a genre\n")
    assert done == ["./2.wav", "./3.wav"]
    status, out, err = classify("1.wav", "3.wav", *options, form=None)
    assert status == 0 and len(done) == 2
    files = [(row["file"], row["genre"]) for row in OUTPUTS[name](output)]
    assert files == [("1.wav", "jazz"), ("./2.wav", "rock"), ("./3.wav", "metal")]


def test_an_output_that_broke_off_is_gone_on_with(classify, write_song):
    for number in range(3):
        write_song(f"{number}.wav", ("jazz", 3.0))
    assert classify(".", "--output", "rows.json")[0] == 0
    whole = Path("rows.json").read_bytes()
    cut("rows.json", 0.6)
    assert classify(".", "--output", "rows.json")[0] == 0
    assert Path("rows.json").read_bytes() == whole


@pytest.mark.parametrize(
    "options", [["--voting", "mean"], ["--top", "1"], ["--timeline"]]
)
def test_an_output_of_another_kind_is_not_lost(classify, write_song, options):
    write_song("song.wav", ("jazz", 3.0))
    assert classify("song.wav", "--output", "rows.csv", form=None)[0] == 0
    before = Path("rows.csv").read_bytes()
    argv = ["song.wav", "--output", "rows.csv", *options]
    status, _, err = classify(*argv, form=None)
    assert status == 1 and "it would be lost" in err
    assert Path("rows.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("output", "status", "told"),
    [
        (".", 1, "expected a file to write, found something else"),
        ("song.wav/rows.csv", 1, "cannot be written"),
        ("/dev/null", 1, "expected a file to write, found something else"),
        ("rows.xlsx", 2, "the format cannot be told from '.xlsx'"),
        ("diary.csv", 1, "there is something that cannot be gone on with"),
        ("song.wav", 2, "the format cannot be told from '.wav'"),
    ],
)
def test_an_output_that_cannot_be_used(classify, write_song, output, status, told):
    write_song("song.wav", ("jazz", 3.0))
    Path("diary.csv").write_text("Dear diary,\n")
    before = Path("song.wav").read_bytes()
    found, _, err = classify("song.wav", "--output", output, form=None)
    assert found == status and told in err
    assert Path("diary.csv").read_text() == "Dear diary,\n"
    assert Path("song.wav").read_bytes() == before


def test_parquet_without_its_extra(classify, write_song, monkeypatch):
    write_song("song.wav", ("jazz", 3.0))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = classify("song.wav", "--output", "rows.parquet", form=None)
    assert status == 1
    assert "pip install 'ms_sincresnet[parquet]'" in err


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", "mps"])
def test_a_device_that_is_not_there(classify, write_song, device):
    write_song("song.wav", ("jazz", 3.0))
    status, out, err = classify("song.wav", "--device", device)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: --device {device}: cannot be used (")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_each_precision(classify, write_song, precision):
    write_song("song.wav", ("jazz", 4.0))
    status, (row,), _ = classify("song.wav", "--precision", precision)
    assert (status, row["genre"]) == (0, "jazz")


def test_the_table_of_a_terminal(classify, write_song):
    write_song("a.wav", ("rock", 12.0), ("jazz", 8.0))
    Path("b\n.wav").touch()
    argv = ["--timeline", "a.wav", "b\n.wav", "--top", "99"]
    status, out, err = classify(*argv, form=None)
    assert status == 3
    assert err == "1 of 2 songs have a genre\n"
    head, song, spans, error = out.splitlines()
    assert head.split() == ["file", "genre", "share", "next"]
    assert song.split()[:2] == ["a.wav", "rock"] and "jazz" in song.split("%")[1]
    assert spans.startswith("  0:00-0:12 rock, ") and spans.endswith("-0:20 jazz")
    assert error == "b\\n.wav  error: the file is empty (0 bytes). Replace it."


def test_options_that_change_what_is_told(classify, write_song, model_folder):
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
