"""``embed`` and ``similar``: an index of songs is written, resumed and searched."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ms_sincresnet.data.clips import split_clips
from ms_sincresnet.data.playlists import read_list
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.files import as_utf8
from ms_sincresnet.inference import batch
from ms_sincresnet.inference.embeddings import EmbeddingKind
from ms_sincresnet.inference.results import open_results

pyarrow = pytest.importorskip("pyarrow")

KIND = EmbeddingKind("12ab-mean", 4)
COLUMNS = ["path", "size", "modified", "embedding", "error", "warning", "model"]


@pytest.fixture
def run(tmp_path, monkeypatch, command, model_folder):
    """Runs a command in an empty folder: exit status, output, and error output."""
    monkeypatch.chdir(tmp_path)

    def run(*argv, model=model_folder):
        options = ["--model", str(model), "--device", "cpu", "--precision", "fp32"]
        return command(*argv, *options)

    return run


@pytest.fixture
def decoded(monkeypatch):
    """Files in the order in which they are decoded."""
    files, original = [], batch.read_blocks

    def read(file, *options):
        files.append(file)
        return original(file, *options)

    monkeypatch.setattr(batch, "read_blocks", read)
    return files


def paths_of(table):
    """The paths of the table that ``similar`` prints, best first."""
    head, *lines = table.splitlines()
    assert head == "rank  cosine  path"
    table = pd.DataFrame([line.split(maxsplit=2) for line in lines])
    assert table[0].astype(int).tolist() == [*range(1, len(lines) + 1)]
    assert table[1].astype(float).is_monotonic_decreasing
    return table[2].tolist()


def write_track(path, number, seconds=3.0, part=0):
    """A chord of three tones that no other number has."""
    hz = np.random.default_rng(number).uniform(100, 4000, 3)
    time_s = np.arange(part * 48000, part * 48000 + round(seconds * 16000)) / 16000
    soundfile.write(path, np.sin(2 * np.pi * hz[:, None] * time_s).sum(0) / 4, 16000)


def test_the_other_half_of_a_track_comes_first(run):
    Path("halves").mkdir()
    for number in range(10):
        for part in (0, 1):
            write_track(f"halves/{number}{'ab'[part]}.wav", number, part=part)
    status, _, err = run("embed", "halves", "--output", "songs.parquet")
    assert (status, err) == (0, "songs.parquet: 20 of 20 songs have an embedding\n")
    for number in range(10):
        for one, other in ("ab", "ba"):
            song = f"halves/{number}{one}.wav"
            status, out, _ = run("similar", song, "--index", "songs.parquet")
            found = paths_of(out)
            assert status == 0 and len(found) == 10 and song not in found
            assert found[0] == f"halves/{number}{other}.wav"


def test_an_embedding_is_the_mean_of_audible_clips(classifier, tone_model, tmp_path):
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        write_track(path, number, seconds=4.0 + number)
    samples, _ = soundfile.read(paths[0])
    soundfile.write(paths[0], np.concatenate([samples, np.zeros(160000)]), 16000)
    clips = split_clips(classifier.load_audio(paths[0]), 48000, 8000)
    clips = clips[clips.std(1) > 0]
    assert len(clips) == 8  # some with silence at the end
    with torch.no_grad():
        mean = tone_model.embedding(tone_model.frontend(clips)).mean((0, 1))
    found = classifier.embed_song(paths[0])
    assert found.dtype == torch.float32 and found.norm().item() == pytest.approx(1)
    torch.testing.assert_close(found, mean / mean.norm(), rtol=0, atol=1e-5)

    songs = dict(batch.classify_songs(classifier, paths, embeds=True))
    for path in paths:
        alone = classifier.embed_song(path)
        torch.testing.assert_close(songs[path], alone, rtol=0, atol=1e-5)
    soundfile.write(paths[1], np.zeros(64000), 16000)
    with pytest.raises(AudioFileError, match="1.wav: silent throughout"):
        classifier.embed_song(paths[1])


def test_an_index_is_resumed(run, decoded):
    for number in range(3):
        write_track(f"{number}.wav", number)
    shutil.copy("1.wav", "bad.wav")
    os.truncate("bad.wav", 20)
    embed = ("embed", "0.wav", "1.wav", "bad.wav", "--output", "new/songs.parquet")
    status, _, err = run(*embed)
    assert status == 3 and "2 of 3 songs have an embedding" in err
    before = pd.read_parquet("new/songs.parquet")
    assert before.columns.tolist() == COLUMNS and before.path[2] == "bad.wav"
    assert before.embedding[2] is None and "not readable" in before.error[2]

    write_track("1.wav", 7)
    shutil.copy("2.wav", "bad.wav")
    decoded.clear()
    status, _, err = run(*embed, "2.wav")
    assert status == 0 and "4 of 4 songs have an embedding" in err
    assert decoded == ["1.wav", "bad.wav", "2.wav"]
    after = pd.read_parquet("new/songs.parquet").set_index("path")
    assert after.index.tolist() == ["0.wav", "1.wav", "bad.wav", "2.wav"]
    embeddings, schema = after.embedding, pyarrow.parquet.read_schema(embed[-1])
    assert schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 2560)
    assert (embeddings["0.wav"] == before.embedding[0]).all()
    assert not np.allclose(embeddings["1.wav"], before.embedding[1], atol=1e-3)
    np.testing.assert_allclose(embeddings["bad.wav"], embeddings["2.wav"], atol=1e-5)

    content = Path("new/songs.parquet").read_bytes()
    status, _, err = run(*embed, "--hop", "2")
    assert status == 1 and "cannot resume from this file" in err
    assert "its model is" in err and err.count("\n") == 1
    assert Path("new/songs.parquet").read_bytes() == content
    assert os.listdir("new") == ["songs.parquet"]


@pytest.mark.parametrize("name", ["a.wav", "-b\n.wav", os.fsdecode(b"caf\xe9.wav")])
def test_a_killed_run_is_resumed_from_its_journal(tmp_path, name):
    path = tmp_path / "songs.parquet"
    values = torch.tensor([0.1, -2.0, 3e-9, 4e9])
    facts = {"size": 1, "modified": None, "warning": "ends early"}
    killed = open_results("parquet", path, KIND, [name])
    killed.write(KIND.row(name, values, facts))
    assert not path.exists()
    with open_results("parquet", path, KIND, [name, "c.wav"]) as results:
        assert results.done == {name}
        results.write(KIND.row("c.wav", AudioFileError("c.wav: is empty"), facts))
    table = pd.read_parquet(path)
    assert table.path.tolist() == [as_utf8(name), "c.wav"]
    assert table.embedding[0].tolist() == values.tolist() and table["size"][0] == 1
    assert table.error.fillna("").tolist() == ["", "is empty"]
    assert os.listdir(tmp_path) == [path.name]
    journal = tmp_path / ".songs.parquet.jsonl"
    journal.write_text('{"file": "a.wav", "error": null, "model": "12ab-mean"}\n')
    with pytest.raises(UserError, match="it was not written by this command"):
        open_results("parquet", path, KIND, [name])


def test_a_song_that_is_not_in_the_index_is_embedded(run, decoded):
    for number in range(4):
        write_track(f"{number}.wav", number)
    odd = "two\nlines \x1b[31m.wav"
    shutil.copy("1.wav", odd)
    assert run("embed", ".", "--output", "songs.parquet")[0] == 0
    similar = ("similar", "--index", "songs.parquet", "--top", "3")
    write_track("new.wav", 1, part=1)
    decoded.clear()
    status, out, _ = run(*similar, "new.wav", "--playlist", "lists/out.m3u8")
    assert status == 0 and decoded == ["new.wav"]
    assert sorted(paths_of(out)[:2]) == ["./1.wav", "./two\\nlines \\x1b[31m.wav"]
    listed = read_list("lists/out.m3u8")
    assert len(listed) == 2 and os.path.samefile(listed[0], "1.wav")

    # A song of the index needs no model, by whatever name it is called.
    for name in ("1.wav", "./1.wav", Path("1.wav").absolute(), "x/../1.wav"):
        assert "./1.wav" not in paths_of(run(*similar, name, model="nowhere")[1])
    assert decoded == ["new.wav"]
    write_track("1.wav", 3)
    assert paths_of(run(*similar, "1.wav")[1])[0] == "./3.wav"
    assert decoded == ["new.wav", "1.wav"]
    status, _, err = run(*similar, "new.wav", "--hop", "2")
    assert status == 1 and "songs.parquet: its model is " in err
    assert "name its --model, --hop and --precision" in err


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_text("no parquet"), "cannot be read as an index"),
        (lambda path: pd.DataFrame({"path": ["a"]}).to_parquet(path), "other columns"),
        (lambda path: open_results("parquet", path, KIND).__exit__(), "no songs"),
    ],
)
def test_a_file_that_is_no_index(run, write, message):
    write(Path("songs.parquet"))
    status, out, err = run("similar", "a.wav", "--index", "songs.parquet")
    assert (status, out) == (1, "") and message in err
    assert err.startswith("error: songs.parquet: ") and err.count("\n") == 1
