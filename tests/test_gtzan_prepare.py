"""GTZAN's prepare script: layouts, formats, protocols, bad files, and missing data."""

import importlib.util
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import ms_sincresnet.data.prepare as manifest
from ms_sincresnet.errors import DataFolderError, HparamError

PARTS = ["train", "valid", "test"]
SCRIPT = Path(__file__).parents[1] / "recipes" / "GTZAN" / "gtzan_prepare.py"


def load_script():
    """Imports the recipe's script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("gtzan_prepare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gtzan = load_script()


def write_tracks(root, ids, suffix=".wav"):
    """Writes tracks of 0.1 s of noise, each of its own, below their genres."""
    generator = np.random.default_rng(0)
    for track_id in ids:
        path = root / track_id.split(".")[0] / f"{track_id}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.standard_normal(2205) / 20, 22050)


def write_genres(root, suffix=".wav", genres=("jazz", "rock"), n_tracks=10):
    """Writes tracks named as GTZAN names them."""
    ids = [f"{genre}.{track:05d}" for genre in genres for track in range(n_tracks)]
    write_tracks(root, ids, suffix)


@pytest.fixture
def data(tmp_path):
    """Ten tracks of two genres in the first layout that GTZAN came in."""
    write_genres(tmp_path / "data" / "genres")
    return tmp_path / "data"


def prepare(data, folder, **options):
    """Prepares a data set below a folder."""
    gtzan.prepare_gtzan(data, folder / "manifests", folder / "cache", **options)


def read_parts(folder):
    """IDs of each manifest."""
    return {
        part: pd.read_csv(folder / "manifests" / f"{part}.csv").ID.tolist()
        for part in PARTS
    }


def read_report(folder):
    """The report as written."""
    return json.loads((folder / "manifests" / "report.json").read_text())


@pytest.mark.parametrize(
    "layout", ["Data/genres_original", "genres_original", "genres", "."]
)
def test_every_layout_is_accepted(tmp_path, layout):
    root = tmp_path / "GTZAN"
    write_genres(root / layout)
    (root / "features_30_sec.csv").touch()
    if layout != ".":
        (root / layout).with_name("images_original").mkdir()
    prepare(root, tmp_path)
    prepared = sum(read_parts(tmp_path).values(), [])
    expected = [f"{genre}.{n:05d}" for genre in ("jazz", "rock") for n in range(10)]
    assert sorted(prepared) == expected


@pytest.mark.parametrize("suffix", [".wav", ".au", ".flac", ".ogg", ".mp3"])
def test_every_format_is_accepted(tmp_path, suffix):
    write_genres(tmp_path / "genres", suffix)
    prepare(str(tmp_path), tmp_path)
    rows = pd.concat(
        pd.read_csv(tmp_path / "manifests" / f"{part}.csv") for part in PARTS
    )
    assert rows.columns.tolist() == ["ID", "duration", "wav", "genre"]
    assert len(rows) == 20
    for row in rows.itertuples():
        info = soundfile.info(row.wav.replace("$data_root", str(tmp_path / "cache")))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames == round(row.duration * 16000)
        assert row.duration == pytest.approx(
            0.1, abs=0.06 if suffix == ".mp3" else 1e-3
        )


def test_ten_folds_test_every_track_once_and_never_train_on_it(data, tmp_path):
    tested = []
    for fold in range(10):
        prepare(data, tmp_path, fold=fold)
        parts = read_parts(tmp_path)
        assert [len(parts[part]) for part in PARTS] == [16, 2, 2]
        assert len(set(sum(parts.values(), []))) == 20
        for part in ["valid", "test"]:
            genres = [track_id.split(".")[0] for track_id in parts[part]]
            assert genres == ["jazz", "rock"]
        tested += parts["test"]
    assert len(tested) == len(set(tested)) == 20


def test_identical_tracks_stay_on_one_side_whatever_their_format(data, tmp_path):
    genres = data / "genres"
    pairs = [
        ("jazz.00001", "jazz.copy"),
        ("jazz.00002", "rock.copy"),
        ("rock.00005", "rock.other"),
    ]
    for source, copy in pairs:
        samples, rate = soundfile.read(genres / source[:4] / f"{source}.wav")
        soundfile.write(genres / copy[:4] / f"{copy}.flac", samples, rate)
    for fold in range(5):
        prepare(data, tmp_path, fold=fold, n_folds=5, valid_fraction=0.3)
        parts = read_parts(tmp_path).values()
        for pair in pairs:
            assert [len(set(pair) & set(ids)) for ids in parts].count(2) == 1
    assert read_report(tmp_path)["identical"] == [list(pair) for pair in pairs]


def test_a_second_call_does_nothing(data, tmp_path, monkeypatch):
    prepare(data, tmp_path)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in paths}
    monkeypatch.delattr(manifest, "cache_audio")
    prepare(data, tmp_path)
    prepare(str(data), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in paths} == before


@pytest.mark.parametrize(
    "option", [{"fold": 1}, {"n_folds": 5}, {"valid_fraction": 0.4}, {"seed": 1}]
)
def test_a_changed_option_remakes_the_manifests_without_decoding(
    data, tmp_path, monkeypatch, option
):
    prepare(data, tmp_path)
    before = read_parts(tmp_path)
    monkeypatch.delattr(manifest, "cache_audio")
    prepare(data, tmp_path, **option)
    changed = read_parts(tmp_path)
    assert changed != before
    assert sorted(sum(changed.values(), [])) == sorted(sum(before.values(), []))
    assert read_report(tmp_path)["options"].items() >= option.items()
    prepare(data, tmp_path)
    assert read_parts(tmp_path) == before


def test_fresh_folders_get_the_same_bytes(tmp_path):
    for name, layout in [("one", "genres"), ("two", "Data/genres_original")]:
        write_genres(tmp_path / name / layout)
        prepare(tmp_path / name, tmp_path / name)
    for part in PARTS:
        one, two = (tmp_path / n / "manifests" / f"{part}.csv" for n in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_the_known_bad_file_stops_nothing(tmp_path, caplog):
    write_genres(tmp_path / "genres")
    bad = tmp_path / "genres" / "jazz" / "jazz.00054.wav"
    bad.write_text("no audio")
    with caplog.at_level(logging.INFO):
        prepare(tmp_path, tmp_path)
    report = read_report(tmp_path)
    assert [track["ID"] for track in report["left_out"]] == ["jazz.00054"]
    assert report["left_out"][0]["path"] == str(bad)
    assert "jazz.00054" not in sum(read_parts(tmp_path).values(), [])
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any("left out jazz.00054" in text for text in warnings)
    assert "jazz.00054 does not decode in the common copies of GTZAN" in caplog.text
    assert "20 tracks of 2 genres: 16 train, 2 valid, 2 test; 1 left out" in caplog.text


@pytest.mark.parametrize("data_folder", [None, ""])
def test_without_data_the_error_says_how_to_get_it(tmp_path, data_folder):
    with pytest.raises(DataFolderError, match="^data_folder: .*got none") as error:
        prepare(data_folder, tmp_path)
    for words in [
        "marsyas/gtzan",
        "confit/gtzan",
        "andradaolteanu/gtzan-dataset-music-genre-classification",
        "TempoBeatDownbeat/gtzan_mini",
        "python train.py hparams/ms_sincresnet.yaml --data_folder=",
        "python train.py hparams/quickstart.yaml",
    ]:
        assert words in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "no such folder"),
        ("genres.tar.gz", "found a file: unpack it"),
        ("empty", "found none"),
        ("other", "found none"),
    ],
)
def test_a_folder_without_gtzan_is_named(tmp_path, name, told):
    (tmp_path / "genres.tar.gz").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "genres" / "jazz").mkdir(parents=True)
    (tmp_path / "other" / "genres" / "jazz" / "notes.txt").touch()
    with pytest.raises(DataFolderError, match=f"{tmp_path / name}.*{told}") as error:
        prepare(tmp_path / name, tmp_path)
    assert "marsyas/gtzan" in str(error.value)


def test_a_genre_without_audio_is_named(data, tmp_path):
    (data / "genres" / "pop").mkdir()
    with pytest.raises(DataFolderError, match=f"{data / 'genres' / 'pop'}: .* none"):
        prepare(data, tmp_path)
    assert not (tmp_path / "manifests").exists()


@pytest.mark.parametrize(
    ("options", "hparam"),
    [
        ({"fold": 10}, "fold"),
        ({"n_folds": 11}, "n_folds"),
        ({"n_folds": 1}, "n_folds"),
        ({"valid_fraction": 0.01}, "valid_fraction"),
        ({"valid_fraction": 2}, "valid_fraction"),
    ],
)
def test_an_option_out_of_range_is_named_and_leaves_nothing(
    data, tmp_path, options, hparam
):
    with pytest.raises(HparamError, match=f"^{hparam}: "):
        prepare(data, tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("genres", "told"),
    [
        (gtzan.GENRES, None),
        (gtzan.GENRES[1:], "missing: blues; not GTZAN's: none"),
        ((*gtzan.GENRES, "polka"), "missing: none; not GTZAN's: polka"),
        (("polka", "waltz"), None),
    ],
)
def test_a_copy_without_all_ten_genres_is_told(tmp_path, caplog, genres, told):
    write_genres(tmp_path / "genres", genres=genres, n_tracks=4)
    prepare(tmp_path, tmp_path, n_folds=2, valid_fraction=0.5)
    assert [told in text for text in caplog.messages] == ([True] if told else [])


# Two genres with tracks of each part by the authors' own lists, and one of no part
LISTED = {
    "train": ["jazz.00000", "jazz.00001", "rock.00000", "rock.00001"],
    "valid": ["jazz.00002", "rock.00038"],
    "test": ["jazz.00073", "rock.00010"],
}
UNLISTED = "jazz.00033"


@pytest.fixture
def listed(tmp_path):
    """A few tracks of the filtered split."""
    write_tracks(tmp_path / "data", [*sum(LISTED.values(), []), UNLISTED])
    return tmp_path / "data"


def messages(caplog, level):
    """What was logged at a level."""
    return [r.getMessage() for r in caplog.records if r.levelname == level]


def test_the_filtered_lists_are_those_of_torchaudio():
    try:
        from torchaudio.datasets import gtzan as source
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio.datasets.gtzan cannot be imported: {error}")
    parts = gtzan.filtered_parts()
    assert list(parts) == [
        *source.filtered_train,
        *source.filtered_valid,
        *source.filtered_test,
    ]
    for part in PARTS:
        text = (SCRIPT.parent / "filtered" / f"{part}.txt").read_text()
        assert text.splitlines() == getattr(source, f"filtered_{part}")


def test_the_filtered_lists_name_930_tracks_once():
    ids = [
        track_id
        for part in PARTS
        for track_id in (SCRIPT.parent / "filtered" / f"{part}.txt").read_text().split()
    ]
    assert len(ids) == len(set(ids)) == 930
    assert set(ids) < {f"{genre}.{n:05d}" for genre in gtzan.GENRES for n in range(100)}
    sizes = Counter(gtzan.filtered_parts().values())
    assert sizes == {"train": 443, "valid": 197, "test": 290}


def test_the_whole_of_gtzan_is_split_by_the_filtered_lists(tmp_path, caplog):
    write_genres(tmp_path / "genres", genres=gtzan.GENRES, n_tracks=100)
    bad = tmp_path / "genres" / "jazz" / "jazz.00054.wav"
    bad.write_text("no audio")
    with caplog.at_level(logging.INFO):
        prepare(tmp_path, tmp_path, protocol="filtered")
    parts = read_parts(tmp_path)
    assert {part: len(ids) for part, ids in parts.items()} == {
        "train": 442,
        "valid": 197,
        "test": 290,
    }
    expected = gtzan.filtered_parts()
    assert expected.pop("jazz.00054") == "train"
    assert {
        track_id: part for part, ids in parts.items() for track_id in ids
    } == expected
    for part in PARTS:
        assert {track_id.split(".")[0] for track_id in parts[part]} == set(gtzan.GENRES)
    report = read_report(tmp_path)
    assert [track["ID"] for track in report["left_out"]] == ["jazz.00054"]
    assert len(list((tmp_path / "cache").rglob("*.wav"))) == 929
    (warning,) = messages(caplog, "WARNING")
    assert "left out jazz.00054" in warning
    told = [text for text in messages(caplog, "INFO") if "70 tracks are not of" in text]
    assert len(told) == 1


@pytest.mark.parametrize("suffix", [".wav", ".au"])
def test_the_filtered_split_takes_what_is_there_and_counts_it(tmp_path, caplog, suffix):
    ids = [*sum(LISTED.values(), []), UNLISTED]
    write_tracks(tmp_path / "Data" / "genres_original", ids, suffix)
    prepare(tmp_path, tmp_path, protocol="filtered")
    assert read_parts(tmp_path) == LISTED
    assert f"{UNLISTED}.wav" not in {p.name for p in (tmp_path / "cache").rglob("*")}
    (told,) = [text for text in messages(caplog, "WARNING") if "found" in text]
    assert "found 4 of 443 train, 2 of 197 valid, 2 of 290 test" in told
    assert "missing: blues.00000" in told


def test_names_without_the_genre_are_found_on_the_filtered_lists(listed, tmp_path):
    for path in listed.rglob("*.wav"):
        path.rename(path.with_name(path.name.split(".", 1)[1]))
    prepare(listed, tmp_path, protocol="filtered")
    assert read_parts(tmp_path) == LISTED


def test_other_genres_have_no_part_in_the_filtered_split(listed, tmp_path, caplog):
    write_tracks(listed, ["polka.00000"])
    prepare(listed, tmp_path, protocol="filtered")
    assert read_parts(tmp_path) == LISTED
    assert "not GTZAN's: polka" in caplog.text


def test_what_the_filtered_split_has_no_use_for_changes_nothing(
    listed, tmp_path, monkeypatch
):
    prepare(listed, tmp_path, protocol="filtered")
    report = tmp_path / "manifests" / "report.json"
    before = report.stat().st_mtime_ns
    assert read_report(tmp_path)["options"] == {
        "data_folder": str(listed),
        "protocol": "filtered",
    }
    write_tracks(listed, ["jazz.00034"])
    monkeypatch.delattr(manifest, "cache_tracks")
    options = {"n_folds": 5, "valid_fraction": 0.4, "seed": 1}
    prepare(listed, tmp_path, protocol="filtered", **options)
    assert report.stat().st_mtime_ns == before


def test_a_change_of_protocol_remakes_the_manifests(listed, tmp_path):
    options = {"n_folds": 4, "valid_fraction": 0.4}
    prepare(listed, tmp_path, **options)
    before = read_parts(tmp_path)
    assert UNLISTED in sum(before.values(), [])
    assert read_report(tmp_path)["options"]["protocol"] == "random"
    prepare(listed, tmp_path, protocol="filtered", **options)
    assert read_parts(tmp_path) == LISTED
    prepare(listed, tmp_path, protocol="random", **options)
    assert read_parts(tmp_path) == before


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (LISTED["valid"], "none .* for valid"),
        (LISTED["test"], "none .* for test"),
        (LISTED["train"], "none .* for jazz in train, rock in train"),
        (["rock.00000", "rock.00001"], "none .* for rock in train"),
        ([*LISTED["test"], "jazz.00000", "jazz.00001"], "for test, jazz in train"),
    ],
)
@pytest.mark.parametrize("how", ["missing", "bad"])
def test_a_part_without_tracks_is_named(listed, tmp_path, lost, told, how):
    for track_id in lost:
        path = listed / track_id[:4] / f"{track_id}.wav"
        if how == "missing":
            path.unlink()
        else:
            path.write_text("no audio")
    with pytest.raises(DataFolderError, match=f"^{listed}: .* {told}\\. .*random"):
        prepare(listed, tmp_path, protocol="filtered")
    assert not (tmp_path / "manifests").exists()


def test_a_genre_of_tracks_on_no_list_is_named(listed, tmp_path):
    write_tracks(listed, ["metal.00058"])
    with pytest.raises(DataFolderError, match="for metal in train"):
        prepare(listed, tmp_path, protocol="filtered")


def test_the_filtered_split_says_which_names_it_needs(tmp_path):
    for name in ["song.wav", "jazz.00054 (copy).wav"]:
        write_tracks(tmp_path / "data", ["jazz.00000"])
        (tmp_path / "data" / "jazz" / "jazz.00000.wav").rename(
            tmp_path / "data" / "jazz" / name
        )
    with pytest.raises(DataFolderError, match="blues/blues.00029.wav.*copy.*random"):
        prepare(tmp_path / "data", tmp_path, protocol="filtered")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"protocol": "artist"}, "^protocol: .* random, filtered; got 'artist'"),
        ({"protocol": None}, "^protocol: .* got None"),
        ({"protocol": "filtered", "fold": 3}, "^fold: .*one split.* 0; got 3"),
    ],
)
def test_a_protocol_or_fold_that_there_is_not_is_refused(
    listed, tmp_path, options, told
):
    with pytest.raises(HparamError, match=told):
        prepare(listed, tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
