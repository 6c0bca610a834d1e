"""From files to manifests: tracks found, cached, left out, written, and untouched."""

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

import ms_sincresnet.data.prepare as prepare_module
from ms_sincresnet.data.prepare import PARTS, find_tracks, prepare_manifests
from ms_sincresnet.errors import DataFolderError, HparamError

from .sounds import noise

N_SAMPLES = 3200


def write_track(path, seed=0):
    """Writes 0.2 s of noise, other noise for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(N_SAMPLES, seed=seed), 16000)


@pytest.fixture
def data(tmp_path):
    """A data set of two genres with three tracks each."""
    for nth, name in enumerate(["jazz/jazz.0", "rock/rock.0"]):
        for track in range(3):
            write_track(tmp_path / "data" / f"{name}{track}.wav", seed=3 * nth + track)
    return tmp_path / "data"


def assign_in_turn(tracks):
    """Tests the first track of a genre, validates the second, trains the others."""
    nth = tracks.groupby("genre").cumcount()
    return nth.map({0: "test", 1: "valid"}).fillna("train").to_numpy()


def prepare(data, folder, tracks=None, **changes):
    """Prepares a data set below a folder."""
    arguments = {"assign_parts": assign_in_turn, "options": {"fold": 0}, **changes}
    tracks = find_tracks(data) if tracks is None else tracks
    return prepare_manifests(
        tracks, folder / "manifests", folder / "cache", **arguments
    )


def read_manifests(folder):
    """Rows of the three manifests by ID, with the part in addition."""
    rows = {}
    for part in PARTS:
        with open(folder / "manifests" / f"{part}.csv", newline="") as file:
            for row in csv.DictReader(file):
                assert row["ID"] not in rows
                rows[row["ID"]] = {**row, "part": part}
    return rows


def check_copies(data, folder, cut=slice(None)):
    """Asserts that the manifests lead to the audio of all tracks, or to a cut of it."""
    rows = read_manifests(folder)
    assert sorted(rows) == find_tracks(data).ID.tolist()
    for track_id, row in rows.items():
        copy = row["wav"].replace("$data_root", str(folder / "cache"))
        source = next(data.rglob(f"{track_id}.wav"))
        expected = soundfile.read(source)[0][cut]
        np.testing.assert_array_equal(soundfile.read(copy)[0], expected)
        assert float(row["duration"]) == pytest.approx(len(expected) / 16000)


def read_report(folder):
    """The report as written."""
    return json.loads((folder / "manifests" / "report.json").read_text())


def states(folder):
    """Content and time of change of every file below a folder."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded."""
    names, cache_audio = [], prepare_module.cache_audio

    def note(path, cache_folder, **options):
        names.append(path.name)
        return cache_audio(path, cache_folder, **options)

    monkeypatch.setattr(prepare_module, "cache_audio", note)
    return names


def test_tracks_are_found_by_genre_in_order_of_their_ids(tmp_path):
    for name in ["rock/rock.b.WAV", "rock/02.mp3", "jazz/jazz.zz.au", "jazz/02.flac"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in [".DS_Store", "._rock.b.WAV", "cover.jpg", "notes.txt", "wav"]:
        (tmp_path / "rock" / name).touch()
    (tmp_path / "rock" / "folder.wav").mkdir()
    (tmp_path / "features.csv").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    tracks = find_tracks(tmp_path)
    assert tracks[["ID", "genre"]].values.tolist() == [
        ["jazz.02", "jazz"],
        ["jazz.zz", "jazz"],
        ["rock.02", "rock"],
        ["rock.b", "rock"],
    ]
    assert tracks.path[3] == tmp_path / "rock" / "rock.b.WAV"


def test_two_files_with_one_id_are_both_named(data):
    write_track(data / "jazz" / "jazz.00.au")
    with pytest.raises(DataFolderError, match=r"'jazz\.00'") as error:
        find_tracks(data)
    for name in ["jazz.00.au", "jazz.00.wav"]:
        assert str(data / "jazz" / name) in str(error.value)


def test_a_folder_without_audio_or_genres_is_named(data, tmp_path):
    (data / "pop").mkdir()
    (data / "pop" / "readme.txt").touch()
    with pytest.raises(DataFolderError, match=f"{data / 'pop'}: .* found none"):
        find_tracks(data)
    with pytest.raises(DataFolderError, match=f"{data / 'jazz'}: .* found none"):
        find_tracks(data / "jazz")


def test_manifests_are_what_speechbrain_reads(data, tmp_path):
    prepare(data, tmp_path)
    check_copies(data, tmp_path)
    dataset = DynamicItemDataset.from_csv(
        tmp_path / "manifests" / "train.csv",
        replacements={"data_root": tmp_path / "cache"},
        output_keys=["id", "duration", "wav", "genre"],
    )
    assert [item["id"] for item in dataset] == ["jazz.02", "rock.02"]
    assert (dataset[1]["genre"], dataset[1]["duration"]) == ("rock", 0.2)
    assert soundfile.info(dataset[1]["wav"]).frames == N_SAMPLES
    header = (tmp_path / "manifests" / "train.csv").read_text().splitlines()[0]
    assert header == "ID,duration,wav,genre"


@pytest.mark.parametrize("n_samples", [1, 480209, 481301, 57600001])
def test_a_duration_resolves_every_sample(n_samples):
    row = {"ID": "a", "genre": "b", "cached": "a.wav", "n_samples": n_samples}
    manifest = prepare_module._manifest(pd.DataFrame([row]))
    duration = manifest.splitlines()[1].split(",")[1]
    assert float(duration) * 16000 == pytest.approx(n_samples, abs=1e-3)
    assert len(duration.split(".")[1]) <= 7


def test_names_with_spaces_quotes_accents_and_dollars(tmp_path):
    genre = "drum 'n' \"bass\", été"
    for nth, name in enumerate(["$root.wav", 'l\'été, "1".wav', "a b.flac"]):
        write_track(tmp_path / "my data" / genre / name, seed=nth)
    prepare(tmp_path / "my data", tmp_path)
    for part in PARTS:
        dataset = DynamicItemDataset.from_csv(
            tmp_path / "manifests" / f"{part}.csv",
            replacements={"data_root": tmp_path / "cache"},
            output_keys=["wav", "genre"],
        )
        assert soundfile.info(dataset[0]["wav"]).frames == N_SAMPLES
        assert dataset[0]["genre"] == genre


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_that_is_not_utf8_is_read(tmp_path):
    for seed, name in enumerate(["0", "kruhov\udcfd", "kruhov\udcfe"]):
        path = tmp_path / "data" / "jazz" / "a.wav"
        write_track(path, seed)
        path.rename(path.with_stem(name))
    (tmp_path / "data" / "jazz" / "caf\udce9.wav").write_text("no audio")
    report = prepare(tmp_path / "data", tmp_path)
    tracks = ["jazz.0", r"jazz.kruhov\udcfd", r"jazz.kruhov\udcfe"]
    assert sorted(read_manifests(tmp_path)) == tracks
    assert [track["ID"] for track in report["left_out"]] == [r"jazz.caf\udce9"]
    before = states(tmp_path)
    prepare(tmp_path / "data", tmp_path)
    assert states(tmp_path) == before


@pytest.mark.parametrize("bad", [False, True])
def test_a_second_call_touches_nothing(data, tmp_path, decoded, bad):
    lost = {"ID": "rock.lost", "path": data / "rock" / "lost.wav", "reason": "lost"}
    if bad:
        (data / "jazz" / "bad.wav").write_text("no audio")
    first = prepare(data, tmp_path, left_out=[lost] * bad)
    assert len(decoded) == 6 + bad
    before = states(tmp_path)
    decoded.clear()
    assert prepare(data, tmp_path, left_out=[lost] * bad) == first
    assert states(tmp_path) == before
    assert decoded == ["bad.wav"] * bad  # it may be readable by now


def test_other_folders_get_the_same_bytes(data, tmp_path):
    shutil.copytree(data, tmp_path / "copy")
    prepare(data, tmp_path)
    prepare(tmp_path / "copy", tmp_path / "two")
    for part in PARTS:
        one, two = (
            folder / "manifests" / f"{part}.csv"
            for folder in (tmp_path, tmp_path / "two")
        )
        assert one.read_bytes() == two.read_bytes()


def test_data_sets_share_a_cache_and_leave_each_other_alone(data, tmp_path, decoded):
    other = tmp_path / "other"
    for nth in range(3):
        write_track(other / "jazz" / f"jazz.0{nth}.wav", seed=50 + nth)
    prepare(data, tmp_path)
    before = states(tmp_path / "cache")
    tracks = find_tracks(other)
    prepare_manifests(
        tracks, other, tmp_path / "cache", assign_parts=assign_in_turn, options={}
    )
    after = states(tmp_path / "cache")
    copies = [path for path in before if path.suffix == ".wav"]
    assert len(copies) == 6
    assert all(after[path] == before[path] for path in copies)
    check_copies(data, tmp_path)
    decoded.clear()
    prepare(data, tmp_path)
    assert decoded == []


def change_option(data, folder):
    return {"options": {"fold": 1}}


def change_track(data, folder):
    write_track(data / "jazz" / "jazz.02.wav", seed=99)


def add_track(data, folder):
    write_track(data / "jazz" / "jazz.new.wav", seed=77)


def remove_track(data, folder):
    (data / "jazz" / "jazz.02.wav").unlink()


def touch_track(data, folder):
    os.utime(data / "jazz" / "jazz.02.wav", (1, 1))


def move_data(data, folder):
    shutil.copytree(data, folder / "copy")  # with the times of the files
    return {"data": folder / "copy"}


def lose_manifest(data, folder):
    (folder / "manifests" / "valid.csv").unlink()


def lose_cached_track(data, folder):
    wav = read_manifests(folder)["rock.01"]["wav"]
    Path(wav.replace("$data_root", str(folder / "cache"))).unlink()


def lose_cache(data, folder):
    shutil.rmtree(folder / "cache")


def lose_report(data, folder):
    (folder / "manifests" / "report.json").unlink()


@pytest.mark.parametrize(
    ("change", "n_decoded"),
    [
        (change_option, 0),
        (change_track, 1),
        (add_track, 1),
        (remove_track, 0),
        (touch_track, 1),
        (move_data, 6),
        (lose_manifest, 0),
        (lose_cached_track, 1),
        (lose_cache, 6),
        (lose_report, 0),
    ],
)
def test_manifests_and_copies_follow_any_change(
    data, tmp_path, decoded, change, n_decoded
):
    prepare(data, tmp_path)
    decoded.clear()
    changed = change(data, tmp_path) or {}
    data = changed.pop("data", data)
    report = prepare(data, tmp_path, **changed)
    assert read_report(tmp_path) == report
    assert report["options"] == changed.get("options", {"fold": 0})
    assert len(decoded) == n_decoded
    check_copies(data, tmp_path)


@pytest.mark.parametrize("damaged", [b"\xff", b"{", b"[1]", b"[" * 10**5, None])
def test_a_damaged_index_or_report_is_made_again(data, tmp_path, decoded, damaged):
    report = prepare(data, tmp_path)
    before = read_manifests(tmp_path)
    for name in ("cache/index.json", "manifests/report.json"):
        path = tmp_path / name
        if damaged is None:  # parts of it
            content = json.loads(path.read_text())
            content.pop("left_out", None)
            for entry in content.values():
                if isinstance(entry, dict):
                    entry.pop("n_samples", None)
            path.write_text(json.dumps(content))
        else:
            path.write_bytes(damaged)
    assert prepare(data, tmp_path) == report
    assert read_manifests(tmp_path) == before
    assert len(decoded) == 12


def fail_after(n, monkeypatch):
    """Lets decoding fail after n tracks; returns the names of those tried."""
    tried, cache_audio = [], prepare_module.cache_audio

    def fail(path, cache_folder, **options):
        tried.append(path.name)
        if len(tried) > n:
            time.sleep(0.005)  # like decoding, so that the main thread gets its turn
            raise OSError("no space left on device")
        return cache_audio(path, cache_folder, **options)

    monkeypatch.setattr(prepare_module, "cache_audio", fail)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return tried


def test_decoded_tracks_survive_an_error(data, tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        fail_after(4, context)
        with pytest.raises(OSError, match="no space"):
            prepare(data, tmp_path)
    tried = fail_after(6, monkeypatch)
    prepare(data, tmp_path)
    assert tried == ["rock.01.wav", "rock.02.wav"]


def test_an_error_does_not_wait_for_the_other_tracks(data, tmp_path, monkeypatch):
    for nth in range(200):
        (data / "jazz" / f"more{nth}.wav").touch()
    tried = fail_after(0, monkeypatch)
    with pytest.raises(OSError, match="no space"):
        prepare(data, tmp_path)
    assert len(tried) < 100


def test_unusable_files_are_left_out_and_reported(data, tmp_path, caplog):
    (data / "jazz" / "text.wav").write_text("no audio")
    (data / "jazz" / "nothing.mp3").touch()
    (data / "rock" / "apple.m4a").write_bytes(bytes(1000))
    soundfile.write(data / "rock" / "empty.wav", np.zeros(0), 16000)
    nan = np.full(1000, np.nan)
    soundfile.write(data / "rock" / "nan.wav", nan, 16000, subtype="FLOAT")
    lost = {"ID": "rock.lost", "path": data / "rock" / "lost.wav", "reason": "lost"}
    prepare(data, tmp_path, left_out=[lost])
    report = read_report(tmp_path)
    assert report["left_out"][0] == {**lost, "path": str(lost["path"])}
    reasons = {track["ID"]: track["reason"] for track in report["left_out"]}
    expected = {
        "rock.lost": "lost",
        "jazz.text": "not readable as audio",
        "jazz.nothing": "empty",
        "rock.apple": "not readable as audio",
        "rock.empty": "empty",
        "rock.nan": "NaN",
    }
    assert reasons.keys() == expected.keys()
    for track_id, words in expected.items():
        assert words in reasons[track_id]
        assert f"left out {track_id}: {reasons[track_id]}" in caplog.messages
    assert len(read_manifests(tmp_path)) == 6
    assert not any(reasons.keys() & read_manifests(tmp_path).keys())


def test_a_spoilt_file_is_left_out_until_it_is_repaired(data, tmp_path):
    prepare(data, tmp_path)
    path = data / "jazz" / "jazz.02.wav"
    path.write_text("no audio")
    assert [t["ID"] for t in prepare(data, tmp_path)["left_out"]] == ["jazz.02"]
    assert "jazz.02" not in read_manifests(tmp_path)
    write_track(path, seed=9)
    assert prepare(data, tmp_path)["left_out"] == []
    assert "jazz.02" in read_manifests(tmp_path)


def test_a_genre_without_usable_tracks_is_named(data, tmp_path):
    for nth in range(3):
        (data / "rock" / f"rock.0{nth}.wav").write_text("no audio")
    message = rf"{data / 'rock'}: .*'rock'.* 3 file\(s\).*not readable"
    with pytest.raises(DataFolderError, match=message):
        prepare(data, tmp_path)
    assert not (tmp_path / "manifests").exists()


def test_silent_tracks_are_kept_and_named(data, tmp_path, caplog):
    soundfile.write(data / "jazz" / "still.wav", np.zeros(16000), 16000)
    assert prepare(data, tmp_path)["silent"] == ["jazz.still"]
    assert "jazz.still" in read_manifests(tmp_path)
    assert "silent from end to end: jazz.still" in caplog.messages


def test_hashes_reach_the_split_and_counts_the_report(data, tmp_path, caplog):
    samples, rate = soundfile.read(data / "jazz" / "jazz.00.wav")
    soundfile.write(data / "rock" / "twin.flac", samples, rate)
    soundfile.write(data / "rock" / "zwin.flac", samples, rate)

    def test_twins(tracks):
        if "sha256" not in tracks:
            return ["train"] * len(tracks)
        return np.where(tracks.sha256.duplicated(keep=False), "test", "train")

    with caplog.at_level(logging.INFO):
        report = prepare(data, tmp_path, assign_parts=test_twins)
    twins = ["jazz.00", "rock.twin", "rock.zwin"]
    assert report["identical"] == [twins]
    assert report["counts"] == {
        "train": {"jazz": 2, "rock": 3},
        "valid": {},
        "test": {"jazz": 1, "rock": 2},
    }
    rows = read_manifests(tmp_path)
    assert [track_id for track_id in rows if rows[track_id]["part"] == "test"] == twins
    line = caplog.messages[-1]
    assert "8 tracks of 2 genres: 5 train, 0 valid, 3 test; 0 left out; 1 group" in line


def test_excerpts_are_cached_apart_from_whole_tracks(data, tmp_path, decoded):
    excerpts = [None, (0, 0.1), [0.05, 0.1], (0.05, 0.05)]
    for excerpt in 2 * excerpts:
        prepare(data, tmp_path, excerpt=excerpt)
        first, length = (round(16000 * s) for s in excerpt or (0, 0.2))
        check_copies(data, tmp_path, slice(first, first + length))
    assert len(decoded) == 6 * len(excerpts)
    before = states(tmp_path)
    prepare(data, tmp_path, excerpt=[0.05, 0.05])
    assert states(tmp_path) == before


@pytest.mark.parametrize(
    "excerpt",
    [30, [30], "30", ["30", "60"], [0, 0], [-1, 30], [0, np.inf], [np.nan, 1]]
    + [[0, 1e-5]],
)
def test_an_unusable_excerpt_is_refused(data, tmp_path, excerpt):
    with pytest.raises(HparamError, match=r"^excerpt: .*\[30, 60\]; got "):
        prepare(data, tmp_path, excerpt=excerpt)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_script_adds_its_own_columns_to_the_report(data, tmp_path):
    def describe(tracks):
        tested = tracks[tracks.part == "test"]
        return {"tested": tested.artist.tolist(), "n_hashes": tracks.sha256.nunique()}

    def prepare_with(artist):
        tracks = find_tracks(data).assign(artist=artist)
        return prepare(data, tmp_path, tracks, describe=describe)

    report = prepare_with("somebody")
    assert (report["tested"], report["n_hashes"]) == (["somebody"] * 2, 6)
    assert read_report(tmp_path) == report
    assert prepare_with("another")["tested"] == ["another"] * 2


def test_wrong_options_are_refused_before_anything_is_decoded(data, tmp_path, decoded):
    def refuse(tracks):
        raise HparamError("fold: expected a whole number from 0 to 9, got 10")

    prepare(data, tmp_path)
    before = states(tmp_path)
    decoded.clear()
    write_track(data / "jazz" / "jazz.new.wav", seed=77)
    with pytest.raises(HparamError):
        prepare(data, tmp_path, assign_parts=refuse)
    assert decoded == []
    assert states(tmp_path / "manifests").items() <= before.items()


@pytest.mark.parametrize("killed_in", ["cache_audio", "_write_if_new"])
def test_a_killed_preparation_is_completed_by_the_next(data, tmp_path, killed_in):
    expected = tmp_path / "expected"
    prepare(data, expected, options={"fold": 1})
    if killed_in == "_write_if_new":
        prepare(data, tmp_path, assign_parts=lambda tracks: ["train"] * len(tracks))
    script = f"""
import os, signal
from pathlib import Path
import ms_sincresnet.data.prepare as module
calls, function = [], module.{killed_in}

def die(*args, **options):
    calls.append(args)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **options)

module.{killed_in} = die
folder = Path({str(tmp_path)!r})
module.prepare_manifests(
    module.find_tracks({str(data)!r}), folder / "manifests", folder / "cache",
    assign_parts=lambda tracks: ["test", "valid", "train"] * 2, options={{"fold": 1}},
)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    prepare(data, tmp_path, options={"fold": 1})
    for part in PARTS:
        assert (tmp_path / "manifests" / f"{part}.csv").read_bytes() == (
            expected / "manifests" / f"{part}.csv"
        ).read_bytes()
