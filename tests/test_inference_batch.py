"""Finding songs, decoding ahead of the network, rows, and the identity of a model."""

import copy
import os
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from ms_sincresnet import GenreClassifier
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.inference import batch
from ms_sincresnet.inference.batch import (
    classify_songs,
    find_songs,
    model_identity,
    read_list,
    song_row,
)
from ms_sincresnet.inference.predictions import ClipPrediction, SongPrediction
from ms_sincresnet.inference.speechbrain_modules import song_parts

SETTINGS = {"clip_samples": 48000, "hop_samples": 8000, "full_scale": 1.0}


@pytest.fixture
def touch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


def test_folders_are_searched_in_natural_order(touch):
    touch("m/10.wav", "m/9.wav", "m/B.mp3", "m/a.MP3", "m/2/10.ogg", "m/2/9.ogg")
    touch("m/10/1.flac", "m/1²/x.wav", "m/cover.jpg", "m/.hidden.wav", "m/._a.wav")
    touch("m/.trash/a.wav", "m/no suffix", "m/video.m4a", "m/y.wav/1.au")
    files = ["9.wav", "10.wav", "a.MP3", "B.mp3", "video.m4a"]
    files += ["1²/x.wav", "2/9.ogg", "2/10.ogg", "10/1.flac", "y.wav/1.au"]
    assert find_songs(["m"]) == [f"m/{name}" for name in files]


def test_files_are_kept_as_named_but_never_twice(touch, tmp_path):
    touch("b", ".hidden.wav", "notes.txt", "c/1.wav", "m/a/1.wav", "m/a/2.wav")
    named = ["notes.txt", "b", "nowhere.wav", "c/../b", ".hidden.wav", "./c", "b"]
    expected = ["notes.txt", "b", "nowhere.wav", ".hidden.wav", "./c/1.wav"]
    assert find_songs(named) == expected
    found = find_songs(["m/a/2.wav", "m", "m/a", f"{tmp_path}/m/a/1.wav", "./m/a"])
    assert found == ["m/a/2.wav", "m/a/1.wav"]


def test_links_may_form_a_loop(touch):
    touch("m/a/1.wav", "elsewhere/2.wav")
    os.symlink("..", "m/a/up")
    os.symlink("../elsewhere", "m/there")
    os.symlink("gone.wav", "m/broken.wav")
    os.symlink("self", "m/self")
    names = ["broken.wav", "a/1.wav", "there/2.wav"]
    assert find_songs(["m"]) == [f"m/{name}" for name in names]


def test_lists_of_paths(tmp_path, monkeypatch):
    path = tmp_path / "list"
    path.write_bytes(b" b c .wav \n-x\ncaf\xe9.wav\n#1.wav")
    monkeypatch.setattr(sys, "stdin", path.open())
    expected = [" b c .wav ", "-x", os.fsdecode(b"caf\xe9.wav"), "#1.wav"]
    assert read_list(path) == read_list("-") == expected
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read"):
        read_list(tmp_path)


def test_neither_a_long_file_nor_many_are_decoded_far_ahead(classifier, monkeypatch):
    decoded, batches, jobs = [], [], 2

    def read(seconds, rate, _):
        """Noise, for a file that is a number of seconds."""
        generator = np.random.default_rng(int(seconds))
        for _ in range(int(seconds)):
            decoded.append(generator.standard_normal(rate, dtype=np.float32) / 8)
            yield decoded[-1]

    monkeypatch.setattr(batch, "read_blocks", read)
    monkeypatch.setattr(batch, "_CHUNK_S", 5)
    embedding = classifier.mods.embedding_model.embedding
    with embedding.register_forward_hook(lambda *_: batches.append(len(decoded))):
        found = list(classify_songs(classifier, ["50", *["5"] * 10], jobs=jobs))
    assert found[0][1].duration == 50 and len(found[0][1].clips) == 95
    # After the n-th batch of up to 16 s, at most two chunks of each file are decoded.
    for number, seconds in enumerate(batches[:3]):
        assert seconds <= 16 * (number + 1) + 2.5 + (jobs + 1) * 2 * 5


def test_a_decoder_may_fail_in_any_way(classifier, monkeypatch):
    fails = Mock(side_effect=MemoryError("no room"))
    monkeypatch.setattr(batch, "read_blocks", fails)
    for _, error in classify_songs(classifier, ["big.wav", "huge.wav"]):
        assert isinstance(error, AudioFileError)
        assert "wav: cannot be decoded (MemoryError: no room)" in str(error)
    assert fails.call_count == 2  # the second one was tried too


NO_FACTS = dict.fromkeys(("size", "modified", "warning", "unsure", "unlike"))


def test_the_row_of_a_song():
    shares = {"pop": 0.0, "jazz": 0.5, "rock": 0.5, "folk": 0.0}
    posteriors = {"pop": 0.1, "jazz": 1 / 3, "rock": 1 / 3, "folk": 0.2333333}
    silence = ClipPrediction(0.5, 3.5, None, 0.0, {})
    clips = [silence, ClipPrediction(1.0, 3.71234, "jazz", 1 / 3, {})]
    song = SongPrediction("rock", shares, posteriors, clips, 3.71234)
    top = [
        {"genre": "rock", "share": 0.5, "posterior": 0.333333},
        {"genre": "jazz", "share": 0.5, "posterior": 0.333333},
        {"genre": "folk", "share": 0.0, "posterior": 0.233333},
    ]
    expected = {"file": "m/a.wav", "genre": "rock", "duration": 3.712, "clips": 1}
    expected |= {"top": top, "error": None, **NO_FACTS, "unsure": False}
    row = song_row(Path("m/a.wav"), song, top=3)
    assert row == expected and next(iter(row)) == "file"
    timeline = [
        {"start_s": 0.5, "end_s": 3.5, "genre": None, "posterior": 0.0},
        {"start_s": 1.0, "end_s": 3.712, "genre": "jazz", "posterior": 0.333333},
    ]
    with_timeline = song_row("m/a.wav", song, top=3, timeline=True)
    assert with_timeline == {**row, "timeline": timeline}


def test_an_unsure_song_keeps_its_best_genres():
    posteriors = {"jazz": 0.6999996, "rock": 0.3000004}
    song = SongPrediction("jazz", posteriors, posteriors, [], 3.0, unlike=1.23456)
    for least, genre in {0.7: "jazz", 0.71: None}.items():
        row = song_row("a.wav", song, min_posterior=least)
        found = row["genre"], row["error"], row["unsure"], row["unlike"]
        assert found == (genre, None, genre is None, 1.235)
        assert [best["genre"] for best in row["top"]] == ["jazz", "rock"]


def test_the_row_of_an_error():
    error = AudioFileError("a.wav: the file is empty (0 bytes)")
    row = {"file": "./a.wav", "genre": None, "duration": None, "clips": 0, "top": []}
    row |= {"error": "the file is empty (0 bytes)", **NO_FACTS, "timeline": []}
    assert song_row("./a.wav", error, timeline=True) == row


def test_a_model_is_identified_by_all_that_changes_its_results(
    classifier, model_folder, tone_model, genres
):
    def identity(voting="majority", precision="fp32", names=genres, **changes):
        model = copy.deepcopy(tone_model)
        model.config |= {key: changes.pop(key) for key in model.config & changes.keys()}
        model.settings = dict(SETTINGS, genres=names, voting=voting) | changes
        options = {"device": "cpu", "precision": precision}
        return model_identity(GenreClassifier(*song_parts(model), run_opts=options))

    expected = identity()
    assert expected.endswith("-majority") and len(expected) == 12 + len("-majority")
    assert expected == model_identity(classifier) == identity(backend="fft")
    assert identity(voting="mean") == expected.replace("majority", "mean")
    fused = GenreClassifier.from_pretrained([model_folder, model_folder])
    others = [
        identity(precision="bf16"),
        identity(full_scale=32768.0),
        identity(padding="valid"),
        identity(hop_samples=4000),
        identity(temperature=0.59),
        identity(usual_norm=60.0),
        identity(names=genres[::-1]),
        model_identity(fused),
    ]
    fused.hparams.fused[1].full_scale = 2.0
    others.append(model_identity(fused))
    bias = classifier.mods.classifier.classifier.layers[2].bias
    bias[0] += 1e-6
    others.append(model_identity(classifier))
    bias[0] -= 1e-6
    assert len({expected, *others}) == 1 + len(others)
