"""From files to manifests: what is found, cached, left out, written, and left alone."""

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

import ms_sincresnet
import ms_sincresnet.data.prepare as manifest
from ms_sincresnet.data.prepare import (
    cache_tracks,
    find_tracks,
    identical_groups,
    prepare_manifests,
)
from ms_sincresnet.errors import DataFolderError, HparamError

N_SAMPLES = 3200


def write_track(path, seed=0):
    """Writes 0.2 s of noise of its own, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).standard_normal(N_SAMPLES) / 20
    soundfile.write(path, samples, 16000)


@pytest.fixture
def data(tmp_path):
    """A data set of two genres with three tracks each."""
    for nth, name in enumerate(["jazz/jazz.0", "rock/rock.0"]):
        for track in range(3):
            write_track(tmp_path / "data" / f"{name}{track}.wav", seed=3 * nth + track)
    return tmp_path / "data"


def assign_in_turn(tracks):
    """The first track of a genre tests, the second validates, the others train."""
    nth = tracks.groupby("genre").cumcount()
    return nth.map({0: "test", 1: "valid"}).fillna("train").to_numpy()


def prepare(data, folder, **changes):
    """Prepares a data set below a folder."""
    arguments = {"assign_parts": assign_in_turn, "options": {"fold": 0}, **changes}
    tracks = find_tracks(data)
    return prepare_manifests(
        tracks, folder / "manifests", folder / "cache", **arguments
    )


def read_manifests(folder):
    """Rows of the three manifests by ID, with the part in addition."""
    rows = {}
    for part in ["train", "valid", "test"]:
        with open(folder / "manifests" / f"{part}.csv", newline="") as file:
            for row in csv.DictReader(file):
                assert row["ID"] not in rows
                rows[row["ID"]] = {**row, "part": part}
    return rows


def states(folder):
    """Content and time of change of every file below a folder."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded from here on."""
    names, cache_audio = [], manifest.cache_audio

    def note(path, cached_path, **options):
        names.append(path.name)
        return cache_audio(path, cached_path, **options)

    monkeypatch.setattr(manifest, "cache_audio", note)
    return names


def test_tracks_are_found_by_genre_in_order_of_their_ids(tmp_path):
    for name in ["rock/rock.b.WAV", "rock/02.mp3", "jazz/jazz.zz.au", "jazz/z.flac"]:
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
        ["jazz.z", "jazz"],
        ["jazz.zz", "jazz"],
        ["rock.02", "rock"],
        ["rock.b", "rock"],
    ]
    assert tracks.path[3] == tmp_path / "rock" / "rock.b.WAV"


def test_one_name_in_two_genres_makes_two_tracks(tmp_path):
    for genre in ["jazz", "rock"]:
        write_track(tmp_path / genre / "01.wav")
    assert find_tracks(tmp_path).ID.tolist() == ["jazz.01", "rock.01"]


def test_two_files_of_one_id_are_both_named(data):
    write_track(data / "jazz" / "jazz.00.au")
    with pytest.raises(DataFolderError, match=r"'jazz\.00'") as error:
        find_tracks(data)
    for name in ["jazz.00.au", "jazz.00.wav"]:
        assert str(data / "jazz" / name) in str(error.value)


def test_a_genre_folder_without_audio_is_named(data):
    (data / "pop").mkdir()
    (data / "pop" / "readme.txt").touch()
    with pytest.raises(DataFolderError, match=f"{data / 'pop'}: .* found none"):
        find_tracks(data)


def test_a_folder_without_genres_is_named(tmp_path):
    with pytest.raises(DataFolderError, match=f"{tmp_path}: .* found none"):
        find_tracks(tmp_path)


def test_tracks_are_decoded_once(data, tmp_path, decoded):
    cached, left_out = cache_tracks(find_tracks(data), tmp_path / "cache", n_jobs=2)
    assert len(decoded) == 6
    assert len(left_out) == 0
    assert (cached.n_samples == N_SAMPLES).all()
    for track in cached.itertuples():
        source, _ = soundfile.read(track.path, dtype="int16")
        copy, _ = soundfile.read(tmp_path / "cache" / track.cached, dtype="int16")
        np.testing.assert_array_equal(copy, source)
    again, _ = cache_tracks(find_tracks(data), tmp_path / "cache")
    assert len(decoded) == 6
    assert again.equals(cached)


def test_only_what_changed_is_decoded_again(data, tmp_path, decoded):
    first, _ = cache_tracks(find_tracks(data), tmp_path / "cache")
    decoded.clear()
    write_track(data / "jazz" / "jazz.01.wav", seed=99)
    (tmp_path / "cache" / "rock" / "rock.02.wav").unlink()
    write_track(data / "rock" / "rock.new.wav", seed=100)
    second, _ = cache_tracks(find_tracks(data), tmp_path / "cache")
    assert sorted(decoded) == ["jazz.01.wav", "rock.02.wav", "rock.new.wav"]
    hashes = dict(zip(second.ID, second.sha256, strict=True))
    changed = [t.ID for t in first.itertuples() if hashes[t.ID] != t.sha256]
    assert changed == ["jazz.01"]


def test_the_same_names_in_another_folder_are_decoded_again(data, tmp_path, decoded):
    cache_tracks(find_tracks(data), tmp_path / "cache")
    shutil.copytree(data, tmp_path / "copy")  # with the times of the files
    cache_tracks(find_tracks(tmp_path / "copy"), tmp_path / "cache")
    assert len(decoded) == 12


def test_an_index_that_cannot_be_read_costs_time_only(data, tmp_path, decoded):
    cache_tracks(find_tracks(data), tmp_path / "cache")
    (tmp_path / "cache" / "index.json").write_text("{")
    cached, _ = cache_tracks(find_tracks(data), tmp_path / "cache")
    assert len(decoded) == 12
    assert len(cached) == 6


def test_what_was_decoded_before_an_error_is_kept(data, tmp_path, monkeypatch):
    done, cache_audio = [], manifest.cache_audio

    def break_off(path, cached_path, **options):
        if len(done) == 4:
            raise OSError("no space left on device")
        done.append(path.name)
        return cache_audio(path, cached_path, **options)

    monkeypatch.setattr(manifest, "cache_audio", break_off)
    with pytest.raises(OSError, match="no space"):
        cache_tracks(find_tracks(data), tmp_path / "cache", n_jobs=1)
    done.clear()
    cached, _ = cache_tracks(find_tracks(data), tmp_path / "cache", n_jobs=1)
    assert done == ["rock.01.wav", "rock.02.wav"]
    assert len(cached) == 6


def test_an_error_does_not_wait_for_the_tracks_in_line(data, tmp_path, monkeypatch):
    tried = []

    def fail(path, cached_path, **options):
        tried.append(path)
        time.sleep(0.005)  # as decoding does, so that the main thread has its turn
        raise OSError("no space left on device")

    for nth in range(200):
        (data / "jazz" / f"more{nth}.wav").touch()
    monkeypatch.setattr(manifest, "cache_audio", fail)
    with pytest.raises(OSError, match="no space"):
        cache_tracks(find_tracks(data), tmp_path / "cache", n_jobs=1)
    assert len(tried) < 100


def test_groups_of_identical_tracks_hold_two_or_more():
    tracks = pd.DataFrame({"ID": list("abcdef"), "sha256": list("xyxzyx")})
    assert identical_groups(tracks) == [["a", "c", "f"], ["b", "e"]]


def test_manifests_are_what_speechbrain_reads(data, tmp_path):
    prepare(data, tmp_path)
    dataset = DynamicItemDataset.from_csv(
        tmp_path / "manifests" / "train.csv",
        replacements={"data_root": tmp_path / "cache"},
        output_keys=["id", "duration", "wav", "genre"],
    )
    assert [item["id"] for item in dataset] == ["jazz.02", "rock.02"]
    assert dataset[1]["genre"] == "rock"
    assert dataset[1]["duration"] == N_SAMPLES / 16000
    assert soundfile.info(dataset[1]["wav"]).frames == N_SAMPLES
    header = (tmp_path / "manifests" / "train.csv").read_text().splitlines()[0]
    assert header == "ID,duration,wav,genre"


@pytest.mark.parametrize("n_samples", [1, 480209, 481301, 57600001])
def test_a_duration_tells_every_sample(tmp_path, n_samples):
    row = {"ID": "a", "genre": "b", "cached": "a.wav", "n_samples": n_samples}
    manifest._write_manifest(pd.DataFrame([row]), tmp_path / "a.csv")
    duration = (tmp_path / "a.csv").read_text().splitlines()[1].split(",")[1]
    assert float(duration) * 16000 == pytest.approx(n_samples, abs=1e-3)
    assert len(duration.split(".")[1]) <= 7


def test_names_with_spaces_quotes_accents_and_dollars(tmp_path):
    genre = "drum 'n' \"bass\", été"
    for nth, name in enumerate(["$root.wav", 'l\'été, "1".wav', "a b.flac"]):
        write_track(tmp_path / "my data" / genre / name, seed=nth)
    prepare(tmp_path / "my data", tmp_path)
    for part in ["train", "valid", "test"]:
        dataset = DynamicItemDataset.from_csv(
            tmp_path / "manifests" / f"{part}.csv",
            replacements={"data_root": tmp_path / "cache"},
            output_keys=["wav", "genre"],
        )
        assert soundfile.info(dataset[0]["wav"]).frames == N_SAMPLES
        assert dataset[0]["genre"] == genre


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_that_is_no_utf8_is_read(tmp_path):
    for nth in range(2):
        write_track(tmp_path / "data" / "jazz" / f"{nth}.wav", seed=nth)
    os.rename(
        tmp_path / "data" / "jazz" / "1.wav",
        os.fsencode(tmp_path / "data" / "jazz") + b"/kruhov\xfd.wav",
    )
    (tmp_path / "data" / "jazz" / "caf\udce9.wav").write_text("no audio")
    report = prepare(tmp_path / "data", tmp_path)
    assert sorted(read_manifests(tmp_path)) == ["jazz.0", "jazz.kruhov\ufffd"]
    assert [track["ID"] for track in report["left_out"]] == ["jazz.caf\ufffd"]
    json.dumps(report, ensure_ascii=False).encode()  # all of it is UTF-8 by now
    before = states(tmp_path)
    prepare(tmp_path / "data", tmp_path)
    assert states(tmp_path) == before


def test_a_second_call_touches_nothing(data, tmp_path, decoded, caplog):
    first = prepare(data, tmp_path)
    before = states(tmp_path)
    decoded.clear()
    with caplog.at_level(logging.INFO):
        assert prepare(data, tmp_path) == first
    assert states(tmp_path) == before
    assert decoded == []
    assert "nothing to prepare" in caplog.text


def test_a_second_call_with_unusable_files_touches_nothing(data, tmp_path, decoded):
    (data / "jazz" / "bad.wav").write_text("no audio")
    first = prepare(data, tmp_path)
    before = states(tmp_path)
    decoded.clear()
    assert prepare(data, tmp_path) == first
    assert states(tmp_path) == before
    assert decoded == []


def test_fresh_folders_get_the_same_bytes(data, tmp_path):
    for name in ["one", "two"]:
        prepare(data, tmp_path / name, n_jobs=1 if name == "one" else 4)
    for part in ["train", "valid", "test"]:
        one, two = (
            tmp_path / name / "manifests" / f"{part}.csv" for name in ("one", "two")
        )
        assert one.read_bytes() == two.read_bytes()


def change_option(data, folder):
    return {"options": {"fold": 1}}


def add_track(data, folder):
    write_track(data / "jazz" / "jazz.new.wav", seed=77)


def remove_track(data, folder):
    (data / "jazz" / "jazz.02.wav").unlink()


def touch_track(data, folder):
    os.utime(data / "jazz" / "jazz.02.wav", (1, 1))


def move_data(data, folder):
    shutil.copytree(data, folder / "copy")
    return {"data": folder / "copy"}


def lose_manifest(data, folder):
    (folder / "manifests" / "valid.csv").unlink()


def lose_cached_track(data, folder):
    (folder / "cache" / "rock" / "rock.01.wav").unlink()


def lose_cache(data, folder):
    shutil.rmtree(folder / "cache")


def overwrite_cache(data, folder):
    write_track(folder / "other" / "jazz" / "jazz.01.wav", seed=55)
    cache_tracks(find_tracks(folder / "other"), folder / "cache")


def lose_report(data, folder):
    (folder / "manifests" / "report.json").unlink()


@pytest.mark.parametrize(
    "change",
    [
        change_option,
        add_track,
        remove_track,
        touch_track,
        move_data,
        lose_manifest,
        lose_cached_track,
        lose_cache,
        overwrite_cache,
        lose_report,
    ],
)
def test_any_change_remakes_the_manifests(data, tmp_path, change):
    prepare(data, tmp_path)
    before = (tmp_path / "manifests" / "train.csv").stat().st_mtime_ns
    changed = change(data, tmp_path) or {}
    data = changed.pop("data", data)
    prepare(data, tmp_path, **changed)
    assert (tmp_path / "manifests" / "train.csv").stat().st_mtime_ns > before
    assert sorted(read_manifests(tmp_path)) == find_tracks(data).ID.tolist()
    for row in read_manifests(tmp_path).values():
        cached = row["wav"].replace("$data_root", str(tmp_path / "cache"))
        source = next(data.rglob(f"{row['ID']}.wav"))
        np.testing.assert_array_equal(
            soundfile.read(cached)[0], soundfile.read(source)[0]
        )


@pytest.mark.parametrize(
    "damaged", [b"\xff", b"[1]", b"[" * 10**5, b'{"jazz/jazz.00.wav": 7}', None]
)
def test_a_damaged_index_or_report_is_made_again(data, tmp_path, decoded, damaged):
    report = prepare(data, tmp_path)
    before = read_manifests(tmp_path)
    for name in ("cache/index.json", "manifests/report.json"):
        path = tmp_path / name
        if damaged is None:  # some of it
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


def test_unusable_files_are_left_out_and_reported(data, tmp_path, caplog):
    (data / "jazz" / "text.wav").write_text("no audio")
    (data / "jazz" / "nothing.mp3").touch()
    (data / "rock" / "apple.m4a").write_bytes(bytes(1000))
    soundfile.write(data / "rock" / "empty.wav", np.zeros(0), 16000)
    nan = np.full(1000, np.nan)
    soundfile.write(data / "rock" / "nan.wav", nan, 16000, subtype="FLOAT")
    prepare(data, tmp_path)
    report = json.loads((tmp_path / "manifests" / "report.json").read_text())
    reasons = {track["ID"]: track["reason"] for track in report["left_out"]}
    told = {
        "jazz.text": "not readable as audio",
        "jazz.nothing": "empty",
        "rock.apple": "not readable as audio",
        "rock.empty": "empty",
        "rock.nan": "NaN",
    }
    assert reasons.keys() == told.keys()
    for track_id, words in told.items():
        assert words in reasons[track_id]
        assert any(track_id in text and words in text for text in caplog.messages)
    assert len(read_manifests(tmp_path)) == 6
    assert not any(reasons.keys() & read_manifests(tmp_path).keys())


def test_a_repaired_file_comes_in(data, tmp_path):
    (data / "jazz" / "jazz.03.wav").write_text("no audio")
    assert len(prepare(data, tmp_path)["left_out"]) == 1
    write_track(data / "jazz" / "jazz.03.wav", seed=9)
    assert prepare(data, tmp_path)["left_out"] == []
    assert "jazz.03" in read_manifests(tmp_path)


def test_a_spoilt_file_goes_out(data, tmp_path):
    prepare(data, tmp_path)
    (data / "jazz" / "jazz.02.wav").write_text("no audio")
    assert [t["ID"] for t in prepare(data, tmp_path)["left_out"]] == ["jazz.02"]
    assert "jazz.02" not in read_manifests(tmp_path)


def test_a_genre_of_which_nothing_can_be_decoded_is_named(data, tmp_path):
    for nth in range(3):
        (data / "rock" / f"rock.0{nth}.wav").write_text("no audio")
    told = rf"{data / 'rock'}: .*'rock'.* 3 file\(s\).*not readable"
    with pytest.raises(DataFolderError, match=told):
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

    def test_twins(tracks):
        if "sha256" not in tracks:
            return ["train"] * len(tracks)
        return np.where(tracks.sha256.duplicated(keep=False), "test", "train")

    with caplog.at_level(logging.INFO):
        report = prepare(data, tmp_path, assign_parts=test_twins)
    assert report["identical"] == [["jazz.00", "rock.twin"]]
    assert report["counts"] == {
        "train": {"jazz": 2, "rock": 3},
        "valid": {},
        "test": {"jazz": 1, "rock": 1},
    }
    parts = {
        track_id: row["part"] for track_id, row in read_manifests(tmp_path).items()
    }
    assert [track_id for track_id, part in parts.items() if part == "test"] == [
        "jazz.00",
        "rock.twin",
    ]
    line = caplog.messages[-1]
    assert "7 tracks of 2 genres: 5 train, 0 valid, 2 test; 0 left out; 1 group" in line


def test_excerpts_lie_beside_whole_tracks_and_each_other(data, tmp_path, decoded):
    tracks = find_tracks(data)
    excerpts = [None, (0, 0.1), [0.05, 0.1], (0.05, 0.05)]
    for excerpt in 2 * excerpts:
        cached, _ = cache_tracks(tracks, tmp_path / "cache", excerpt=excerpt)
        first, length = (round(16000 * s) for s in excerpt or (0, 0.2))
        assert (cached.n_samples == length).all()
        for track in cached.itertuples():
            source, _ = soundfile.read(track.path, dtype="int16")
            copy, _ = soundfile.read(tmp_path / "cache" / track.cached, dtype="int16")
            np.testing.assert_array_equal(copy, source[first : first + length])
    assert len(decoded) == 6 * len(excerpts)


def test_manifests_of_excerpts_are_made_once_and_remade_for_others(
    data, tmp_path, decoded
):
    prepare(data, tmp_path, excerpt=(0, 0.1))
    before = states(tmp_path)
    prepare(data, tmp_path, excerpt=(0, 0.1))
    assert states(tmp_path) == before
    prepare(data, tmp_path)
    rows = read_manifests(tmp_path).values()
    assert {row["duration"] for row in rows} == {"0.2"}
    prepare(data, tmp_path, excerpt=[0.0, 0.1])
    rows = read_manifests(tmp_path).values()
    assert {row["duration"] for row in rows} == {"0.1"}
    assert len(decoded) == 12


@pytest.mark.parametrize(
    "excerpt",
    [
        30,
        [30],
        "30",
        ["30", "60"],
        [0, 0],
        [-1, 30],
        [0, np.inf],
        [np.nan, 1],
        [0, 1e-5],
    ],
)
def test_an_excerpt_that_is_none_is_refused(data, tmp_path, excerpt):
    with pytest.raises(HparamError, match=r"^excerpt: .*\[30, 60\]; got "):
        prepare(data, tmp_path, excerpt=excerpt)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_a_script_leaves_out_is_named_beside_what_cannot_be_decoded(
    data, tmp_path, caplog
):
    (data / "rock" / "text.wav").write_text("no audio")
    lost = {"ID": "rock.lost", "path": data / "rock" / "lost.wav", "reason": "lost"}
    report = prepare(data, tmp_path, left_out=[lost])
    assert report["left_out"][0] == {**lost, "path": str(lost["path"])}
    assert [track["ID"] for track in report["left_out"]] == ["rock.lost", "rock.text"]
    assert "left out rock.lost: lost" in caplog.messages
    before = states(tmp_path)
    assert prepare(data, tmp_path, left_out=[lost]) == report
    assert states(tmp_path) == before
    assert len(prepare(data, tmp_path)["left_out"]) == 1


def test_a_script_adds_to_the_report_what_its_own_columns_say(data, tmp_path):
    def describe(tracks):
        tested = tracks[tracks.part == "test"]
        return {"tested": tested.artist.tolist(), "n_hashes": tracks.sha256.nunique()}

    def prepare_with(artist):
        return prepare_manifests(
            find_tracks(data).assign(artist=artist),
            tmp_path / "manifests",
            tmp_path / "cache",
            assign_parts=assign_in_turn,
            options={},
            describe=describe,
        )

    report = prepare_with("somebody")
    assert (report["tested"], report["n_hashes"]) == (["somebody"] * 2, 6)
    assert json.loads((tmp_path / "manifests" / "report.json").read_text()) == report
    assert prepare_with("another")["tested"] == ["another"] * 2


def test_wrong_options_are_told_before_anything_is_decoded(data, tmp_path, decoded):
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


@pytest.mark.parametrize("killed_in", ["decoding", "manifests"])
def test_a_killed_preparation_is_never_taken_for_a_finished_one(
    data, tmp_path, killed_in
):
    expected = tmp_path / "expected"
    prepare(data, expected, options={"fold": 1})
    if killed_in == "manifests":
        prepare(data, tmp_path, assign_parts=lambda tracks: ["train"] * len(tracks))
    script = f"""
import os, signal
from pathlib import Path
import ms_sincresnet.data.prepare as manifest
from ms_sincresnet.data.prepare import find_tracks, prepare_manifests

def die_at(n, function):
    calls = []
    def wrapped(*args, **options):
        calls.append(args)
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return wrapped

if {killed_in!r} == "decoding":
    manifest.cache_audio = die_at(4, manifest.cache_audio)
else:
    manifest._write_manifest = die_at(2, manifest._write_manifest)
folder = Path({str(tmp_path)!r})
prepare_manifests(
    find_tracks({str(data)!r}), folder / "manifests", folder / "cache",
    assign_parts=lambda tracks: ["test", "valid", "train"] * 2, options={{"fold": 1}},
)
"""
    library = str(Path(ms_sincresnet.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": library}
    process = subprocess.run([sys.executable, "-c", script], env=environment)
    assert process.returncode == -9
    assert not (tmp_path / "manifests" / "report.json").exists()

    prepare(data, tmp_path, options={"fold": 1})
    for part in ["train", "valid", "test"]:
        assert (tmp_path / "manifests" / f"{part}.csv").read_bytes() == (
            expected / "manifests" / f"{part}.csv"
        ).read_bytes()
