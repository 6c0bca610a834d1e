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
from ms_sincresnet.files import as_utf8
from ms_sincresnet.inference import batch
from ms_sincresnet.inference.embeddings import EmbeddingKind
from ms_sincresnet.inference.results import open_results

pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture
def run(tmp_path, monkeypatch, command, model_folder):
    """Runs a command in an empty folder: exit status, output, and error output."""
    monkeypatch.chdir(tmp_path)
    options = "--device=cpu", "--precision=fp32", "--model"
    return lambda *argv, model=model_folder: command(*argv, *options, model)


def paths_of(table):
    """The paths of the table that ``similar`` prints, best first."""
    assert table.startswith("rank  cosine  path\n")
    rows = [line.split(maxsplit=2) for line in table.splitlines()[1:]]
    cosines = [float(cosine) for _, cosine, _ in rows]
    assert cosines == sorted(cosines, reverse=True)
    return [path for *_, path in rows]


def write_track(path, number, seconds=3.0, part=0):
    """A chord of three tones that no other number has."""
    hz = np.random.default_rng(number).uniform(100, 4000, 3)
    time_s = np.arange(part * 48000, part * 48000 + round(seconds * 16000)) / 16000
    soundfile.write(path, np.sin(2 * np.pi * hz[:, None] * time_s).sum(0) / 4, 16000)


def test_the_other_half_of_a_track_comes_first(run):
    for number in range(10):
        for part in (0, 1):
            write_track(f"{number}{'ab'[part]}.wav", number, part=part)
    status, _, err = run("embed", ".", "--output", "songs.parquet")
    assert (status, err) == (0, "songs.parquet: 20 of 20 songs have an embedding\n")
    for number in range(10):
        song = f"./{number}a.wav"
        status, out, _ = run("similar", song, "--index", "songs.parquet")
        found = paths_of(out)
        assert status == 0 and len(found) == 10 and song not in found
        assert found[0] == f"./{number}b.wav"


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


def test_an_index_is_resumed(run, decoded):
    for number in range(3):
        write_track(f"{number}.wav", number)
    shutil.copy("1.wav", "bad.wav")
    os.truncate("bad.wav", 20)
    embed = ("embed", "0.wav", "1.wav", "bad.wav", "--output", "new/songs.parquet")
    status, _, err = run(*embed)
    assert status == 3 and "2 of 3 songs have an embedding" in err
    before = pd.read_parquet("new/songs.parquet")
    columns = ["path", "size", "modified", "embedding", "error", "warning", "model"]
    assert before.columns.tolist() == columns and before.path[2] == "bad.wav"
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
    assert Path("new/songs.parquet").read_bytes() == content


def test_a_killed_run_is_resumed_from_its_journal_alone(tmp_path):
    path, name = tmp_path / "songs.parquet", os.fsdecode(b"caf\xe9.wav")
    kind = EmbeddingKind("12ab-mean", 4)
    values = torch.tensor([0.1, -2.0, 3e-9, 4e9])
    killed = open_results("parquet", path, kind, [name])
    killed.write(kind.row(name, values, {"size": 1, "modified": None, "warning": None}))
    assert not path.exists()
    with open_results("parquet", path, kind, [name]) as results:
        assert results.done == {name}
    table = pd.read_parquet(path)
    assert table.path.tolist() == [as_utf8(name)]
    assert table.embedding[0].tolist() == values.tolist()


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


def test_a_file_that_is_no_index(run):
    Path("text").write_text("no parquet")
    pd.DataFrame({"path": ["a"]}).to_parquet("other")
    for path, message in [
        ("nowhere", "No such file"),
        ("text", "cannot be read as an index"),
        ("other", "other columns"),
    ]:
        status, out, err = run("similar", "a.wav", "--index", path)
        assert (status, out) == (1, "") and message in err
        assert err.startswith(f"error: {path}: ") and err.count("\n") == 1
