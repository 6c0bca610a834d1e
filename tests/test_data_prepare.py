"""From files to manifests: tracks found, cached, left out, written, and untouched."""

import os
import shutil
import signal
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import soundfile

import ms_sincresnet.data.prepare as prepare_module
from ms_sincresnet.data.prepare import PARTS, find_tracks, prepare_manifests
from ms_sincresnet.errors import DataFolderError, HparamError

from .sounds import noise, read_report, run_in_fork

N_SAMPLES = 3201


def write_track(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(N_SAMPLES, seed=seed), 16000)


@pytest.fixture
def data(tmp_path):
    """A data set of two genres with three tracks each."""
    names = [f"{g}/{g}.0{n}.wav" for g in ("jazz", "rock") for n in range(3)]
    for seed, name in enumerate(names):
        write_track(tmp_path / "data" / name, seed)
    return tmp_path / "data"


def assign_in_turn(tracks):
    """Tests the first track of a genre, validates the second, trains the others."""
    nth = tracks.groupby("genre").cumcount()
    return nth.map({0: "test", 1: "valid"}).fillna("train").to_numpy()


def prepare(data, folder, **changes):
    changes = {"assign_parts": assign_in_turn, "options": {"fold": 0}, **changes}
    folders = folder / "manifests", folder / "cache"
    return prepare_manifests(find_tracks(data), *folders, **changes)


def read_manifests(folder):
    """Rows of the three manifests by ID, with the part in addition."""
    paths = [folder / "manifests" / f"{part}.csv" for part in PARTS]
    return pd.concat(map(pd.read_csv, paths), keys=PARTS).sort_values("ID")


def check_copies(data, folder, cut=slice(None)):
    """Asserts that the manifests lead to the audio of all tracks, or to a cut of it."""
    rows = read_manifests(folder)
    assert rows.ID.tolist() == find_tracks(data).ID.tolist()
    for row in rows.itertuples():
        copy = row.wav.replace("$data_root", str(folder / "cache"))
        source = next(data.rglob(f"{row.ID}.wav"))
        expected = soundfile.read(source)[0][cut]
        np.testing.assert_array_equal(soundfile.read(copy)[0], expected)
        assert row.duration == pytest.approx(len(expected) / 16000)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in contents(folder)}


@pytest.fixture
def decoded(monkeypatch):
    """A mock of the function that decodes tracks."""
    mock = Mock(wraps=prepare_module.cache_audio)
    monkeypatch.setattr(prepare_module, "cache_audio", mock)
    return mock


def test_tracks_are_found_by_genre_in_order_of_their_ids(tmp_path):
    for name in ["rock/folder.wav", "jazz", ".cache", "__MACOSX"]:
        (tmp_path / name).mkdir(parents=True)
    names = ["rock/rock.b.WAV", "rock/02.mp3", "jazz/jazz.zz.au", "jazz/02.flac"]
    others = ["rock/.DS_Store", "rock/._rock.b.WAV", "rock/wav", "features.csv"]
    for name in names + others:
        (tmp_path / name).touch()
    tracks = find_tracks(tmp_path)
    assert tracks.ID.tolist() == ["jazz.02", "jazz.zz", "rock.02", "rock.b"]
    assert tracks.genre.tolist() == ["jazz", "jazz", "rock", "rock"]
    assert tracks.path[3] == tmp_path / "rock" / "rock.b.WAV"


def test_unusable_folders_are_named(data):
    (data / "pop").mkdir()
    (data / "pop" / "readme.txt").touch()
    for folder, named in [(data, data / "pop"), (data / "jazz", data / "jazz")]:
        with pytest.raises(DataFolderError, match=f"{named}: .* found none"):
            find_tracks(folder)
    shutil.rmtree(data / "pop")
    write_track(data / "jazz" / "jazz.00.au")
    with pytest.raises(DataFolderError, match=r"'jazz\.00'") as error:
        find_tracks(data)
    for name in ["jazz.00.au", "jazz.00.wav"]:
        assert str(data / "jazz" / name) in str(error.value)


# Changes after a preparation, and how many tracks the next one decodes.
CHANGES = {
    "nothing": (lambda root: None, 0),
    "option": (lambda root: None, 0),
    "replace": (lambda root: write_track(root / "data/jazz/jazz.02.wav", 99), 1),
    "add": (lambda root: write_track(root / "data/jazz/jazz.new.wav", 77), 1),
    "remove": (lambda root: (root / "data/jazz/jazz.02.wav").unlink(), 0),
    "move": (lambda root: (root / "data").rename(root / "moved"), 6),
    "lose manifest": (lambda root: (root / "manifests/valid.csv").unlink(), 0),
    "lose copy": (lambda root: next((root / "cache").glob("*.wav")).unlink(), 1),
    "damage index": (lambda root: (root / "cache/index.json").write_text("[1]"), 6),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_manifests_and_copies_follow_any_change(data, tmp_path, decoded, kind):
    first = prepare(data, tmp_path)
    before, manifests = times(tmp_path), contents(tmp_path / "manifests")
    decoded.reset_mock()
    change, n_decoded = CHANGES[kind]
    change(tmp_path)
    data = tmp_path / ("moved" if kind == "move" else "data")
    options = {"fold": int(kind == "option")}
    report = prepare(data, tmp_path, options=options)
    assert read_report(tmp_path) == report
    assert report["options"] == options
    assert decoded.call_count == n_decoded
    check_copies(data, tmp_path)
    assert times(tmp_path) == before or kind != "nothing"
    if kind not in ("option", "replace", "add", "remove"):
        assert report == first
        assert contents(tmp_path / "manifests") == manifests


def test_unusable_files_are_left_out_and_reported(data, tmp_path, caplog, decoded):
    (data / "jazz" / "text.wav").write_text("no audio")
    nan = np.full(1000, np.nan)
    soundfile.write(data / "rock" / "nan.wav", nan, 16000, subtype="FLOAT")
    soundfile.write(data / "jazz" / "still.wav", np.zeros(16000), 16000)
    lost = {"ID": "rock.lost", "path": data / "rock" / "lost.wav", "reason": "lost"}
    report = prepare(data, tmp_path, left_out=[lost])
    reasons = {track["ID"]: track["reason"] for track in report["left_out"]}
    words = {"rock.lost": "lost", "jazz.text": "not readable", "rock.nan": "NaN"}
    assert reasons.keys() == words.keys()
    for track_id in words:
        assert words[track_id] in reasons[track_id]
        assert f"left out {track_id}: {reasons[track_id]}" in caplog.messages
    assert len(rows := read_manifests(tmp_path)) == 7
    assert "jazz.still" in rows.ID.values
    assert report["silent"] == ["jazz.still"]
    assert "silent from end to end: jazz.still" in caplog.messages
    decoded.reset_mock()
    assert prepare(data, tmp_path, left_out=[lost]) == report
    again = sorted(call.args[0].name for call in decoded.call_args_list)
    assert again == ["nan.wav", "text.wav"]  # which may be readable by now


def test_a_genre_without_usable_tracks_is_named(data, tmp_path):
    for nth in range(3):
        (data / "rock" / f"rock.0{nth}.wav").write_text("no audio")
    message = rf"{data / 'rock'}: .*'rock'.* not readable"
    with pytest.raises(DataFolderError, match=message):
        prepare(data, tmp_path)
    assert not (tmp_path / "manifests").exists()


def test_excerpts_are_cached_apart_from_whole_tracks(data, tmp_path, decoded):
    excerpts = [None, [0.05, 0.1]]
    for excerpt in 2 * excerpts:
        prepare(data, tmp_path, excerpt=excerpt)
        first, length = (round(16000 * s) for s in excerpt or (0, 0.3))
        check_copies(data, tmp_path, slice(first, first + length))
    assert decoded.call_count == 6 * len(excerpts)


@pytest.mark.parametrize("excerpt", [30, ["30", "60"], [-1, 30], [0, np.inf]])
def test_an_unusable_excerpt_is_refused(data, tmp_path, excerpt):
    with pytest.raises(HparamError, match=r"^excerpt: .* in s, got "):
        prepare(data, tmp_path, excerpt=excerpt)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("killed_in", ["cache_audio", "_write_if_new"])
def test_a_killed_preparation_is_completed(data, tmp_path, monkeypatch, killed_in):
    prepare(data, tmp_path / "expected")
    calls, function = [], getattr(prepare_module, killed_in)

    def die(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, killed_in, die)
        assert run_in_fork(prepare, data, tmp_path) == -signal.SIGKILL
    prepare(data, tmp_path)
    assert read_manifests(tmp_path).equals(read_manifests(tmp_path / "expected"))
