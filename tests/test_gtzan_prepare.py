"""GTZAN's prepare script: layouts, protocols, bad files, and missing data."""

import importlib.util
import json
import logging
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import soundfile

import ms_sincresnet.data.prepare as prepare_module
from ms_sincresnet.data.prepare import PARTS
from ms_sincresnet.errors import DataFolderError, HparamError

from .sounds import noise

SCRIPT = Path(__file__).parents[1] / "recipes" / "GTZAN" / "gtzan_prepare.py"
spec = importlib.util.spec_from_file_location("gtzan_prepare", SCRIPT)
gtzan = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gtzan)


def write_tracks(root, ids, suffix=".wav"):
    """Writes different short tracks below their genres."""
    for seed, track_id in enumerate(ids):
        path = root / track_id.split(".")[0] / f"{track_id}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(500, seed=seed), 22050)


def write_genres(root, suffix=".wav", genres=("jazz", "rock"), n_tracks=10):
    """Writes tracks named like GTZAN's."""
    ids = [f"{genre}.{track:05d}" for genre in genres for track in range(n_tracks)]
    write_tracks(root, ids, suffix)
    return ids


@pytest.fixture
def data(tmp_path):
    """Ten tracks of two genres in GTZAN's first layout."""
    write_genres(tmp_path / "data" / "genres")
    return tmp_path / "data"


def prepare(data, folder, **options):
    """Prepares a data set below a folder; returns the IDs of each part."""
    gtzan.prepare_gtzan(data, folder / "manifests", folder / "cache", **options)
    manifests = {
        part: pd.read_csv(folder / "manifests" / f"{part}.csv") for part in PARTS
    }
    return {part: rows.ID.tolist() for part, rows in manifests.items()}


def read_report(folder):
    """The report as written."""
    return json.loads((folder / "manifests" / "report.json").read_text())


def messages(caplog, level):
    """Messages of one level."""
    return [r.getMessage() for r in caplog.records if r.levelname == level]


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [
        ("Data/genres_original", ".wav"),
        ("genres_original", ".mp3"),
        ("genres", ".au"),
        (".", ".flac"),
    ],
)
def test_every_layout_and_format_is_accepted(tmp_path, layout, suffix):
    root = tmp_path / "GTZAN"
    ids = write_genres(root / layout, suffix)
    (root / "features_30_sec.csv").touch()
    if layout != ".":
        (root / layout).with_name("images_original").mkdir()
    assert sorted(sum(prepare(str(root), tmp_path).values(), [])) == ids


def test_ten_folds_test_every_track_once_and_never_train_on_it(data, tmp_path):
    tested = []
    for fold in range(10):
        parts = prepare(data, tmp_path, fold=fold)
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
        parts = prepare(data, tmp_path, fold=fold, n_folds=5, valid_fraction=0.3)
        for pair in pairs:
            assert [len(set(pair) & set(ids)) for ids in parts.values()].count(2) == 1
    assert read_report(tmp_path)["identical"] == [list(pair) for pair in pairs]


@pytest.mark.parametrize(
    "option", [{"fold": 1}, {"n_folds": 5}, {"valid_fraction": 0.4}, {"split_seed": 1}]
)
def test_a_changed_option_remakes_the_manifests_without_decoding(
    data, tmp_path, monkeypatch, option
):
    before = prepare(data, tmp_path)
    monkeypatch.delattr(prepare_module, "cache_audio")
    changed = prepare(data, tmp_path, **option)
    assert changed != before
    assert sorted(sum(changed.values(), [])) == sorted(sum(before.values(), []))
    assert read_report(tmp_path)["options"].items() >= option.items()
    assert prepare(data, tmp_path) == before
    report = tmp_path / "manifests" / "report.json"
    written = report.stat().st_mtime_ns
    prepare(str(data), tmp_path)
    assert report.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", [None, "", "missing", "genres.tar.gz", "empty", "pop"])
def test_without_data_the_error_says_how_to_get_it(tmp_path, name):
    (tmp_path / "genres.tar.gz").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "pop" / "genres" / "pop").mkdir(parents=True)
    (tmp_path / "pop" / "genres" / "pop" / "notes.txt").touch()
    data_folder = tmp_path / name if name else name
    with pytest.raises(DataFolderError, match="^data_folder: .*expected") as error:
        prepare(data_folder, tmp_path / "results")
    for words in [
        str(data_folder),
        "marsyas/gtzan",
        "confit/gtzan",
        "andradaolteanu/gtzan-dataset-music-genre-classification",
        "TempoBeatDownbeat/gtzan_mini",
        "python train.py hparams/ms_sincresnet.yaml --data_folder=",
        "python train.py hparams/quickstart.yaml",
    ]:
        assert words in str(error.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 10}, "fold: "),
        ({"n_folds": 11}, "n_folds: "),
        ({"n_folds": 1}, "n_folds: "),
        ({"valid_fraction": 0.01}, "valid_fraction: "),
        ({"valid_fraction": 2}, "valid_fraction: "),
        ({"protocol": "artist"}, "protocol: .* random, filtered; got 'artist'"),
        ({"protocol": None}, "protocol: .* got None"),
        ({"protocol": "filtered", "fold": 3}, "fold: .*one split.* 0; got 3"),
    ],
)
def test_an_option_out_of_range_is_named_and_leaves_nothing(
    data, tmp_path, options, message
):
    with pytest.raises(HparamError, match=f"^{message}"):
        prepare(data, tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("genres", "warning"),
    [
        (gtzan.GENRES, None),
        (gtzan.GENRES - {"blues"}, "missing: blues; not GTZAN's: none"),
        (gtzan.GENRES | {"polka"}, "missing: none; not GTZAN's: polka"),
        ({"polka", "waltz"}, None),
    ],
)
def test_a_copy_without_exactly_ten_genres_is_reported(
    tmp_path, caplog, genres, warning
):
    write_genres(tmp_path / "genres", genres=sorted(genres), n_tracks=4)
    prepare(tmp_path, tmp_path, n_folds=2, valid_fraction=0.5)
    warnings = messages(caplog, "WARNING")
    assert [warning in text for text in warnings] == ([True] if warning else [])


# Two genres with tracks of each part on the authors' own lists, and one on none.
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


def test_the_filtered_lists_are_those_of_torchaudio():
    try:
        from torchaudio.datasets import gtzan as source
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio.datasets.gtzan cannot be imported: {error}")
    lists = [getattr(source, f"filtered_{part}") for part in PARTS]
    assert list(gtzan.filtered_parts()) == sum(lists, [])


def test_the_filtered_lists_name_930_tracks_once():
    texts = [(gtzan.LISTS_FOLDER / f"{part}.txt").read_text() for part in PARTS]
    ids = " ".join(texts).split()
    assert len(ids) == len(set(ids)) == 930
    assert set(ids) < {f"{genre}.{n:05d}" for genre in gtzan.GENRES for n in range(100)}
    sizes = Counter(gtzan.filtered_parts().values())
    assert sizes == {"train": 443, "valid": 197, "test": 290}


def test_the_whole_of_gtzan_is_split_by_the_filtered_lists(tmp_path, caplog):
    write_genres(tmp_path / "genres", genres=gtzan.GENRES, n_tracks=100)
    bad = tmp_path / "genres" / "jazz" / "jazz.00054.wav"
    bad.write_text("no audio")
    with caplog.at_level(logging.INFO):
        parts = prepare(tmp_path, tmp_path, protocol="filtered")
    expected = gtzan.filtered_parts()
    assert expected.pop("jazz.00054") == "train"
    assert {
        track_id: part for part, ids in parts.items() for track_id in ids
    } == expected
    (left_out,) = read_report(tmp_path)["left_out"]
    assert (left_out["ID"], left_out["path"]) == ("jazz.00054", str(bad))
    assert len(list((tmp_path / "cache").glob("*.wav"))) == 929
    (warning,) = messages(caplog, "WARNING")
    assert "left out jazz.00054" in warning
    for message in [
        "70 tracks are not in the filtered split",
        "jazz.00054 does not decode in the common copies of GTZAN",
        "929 tracks of 10 genres: 442 train, 197 valid, 290 test; 1 left out",
    ]:
        assert message in caplog.text


@pytest.mark.parametrize("suffix", [".wav", ".au"])
def test_the_filtered_split_takes_what_is_there_and_counts_it(tmp_path, caplog, suffix):
    ids = [*sum(LISTED.values(), []), UNLISTED, "polka.00000"]
    write_tracks(tmp_path / "Data" / "genres_original", ids, suffix)
    assert prepare(tmp_path, tmp_path, protocol="filtered") == LISTED
    assert len(list((tmp_path / "cache").glob("*.wav"))) == 8
    other, found = messages(caplog, "WARNING")
    assert "not GTZAN's: polka" in other
    assert "found 4 of 443 train, 2 of 197 valid, 2 of 290 test" in found
    assert "missing: blues.00000" in found


def test_names_without_the_genre_are_found_on_the_filtered_lists(listed, tmp_path):
    for path in listed.rglob("*.wav"):
        path.rename(path.with_name(path.name.split(".", 1)[1]))
    assert prepare(listed, tmp_path, protocol="filtered") == LISTED


def test_options_and_tracks_without_a_say_in_the_filtered_split_change_nothing(
    listed, tmp_path
):
    prepare(listed, tmp_path, protocol="filtered")
    report = tmp_path / "manifests" / "report.json"
    before = report.stat().st_mtime_ns
    expected = {"data_folder": str(listed), "protocol": "filtered"}
    assert read_report(tmp_path)["options"] == expected
    write_tracks(listed, ["jazz.00034"])
    options = {"n_folds": 5, "valid_fraction": 0.4, "split_seed": 1}
    prepare(listed, tmp_path, protocol="filtered", **options)
    assert report.stat().st_mtime_ns == before


def test_a_change_of_protocol_remakes_the_manifests(listed, tmp_path):
    options = {"n_folds": 4, "valid_fraction": 0.4}
    before = prepare(listed, tmp_path, **options)
    assert UNLISTED in sum(before.values(), [])
    assert read_report(tmp_path)["options"]["protocol"] == "random"
    assert prepare(listed, tmp_path, protocol="filtered", **options) == LISTED
    assert prepare(listed, tmp_path, protocol="random", **options) == before


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (LISTED["valid"], "usable for valid"),
        (LISTED["test"], "usable for test"),
        (LISTED["train"], "usable for jazz in train, rock in train"),
        (["rock.00000", "rock.00001"], "usable for rock in train"),
        ([*LISTED["test"], "jazz.00000", "jazz.00001"], "for test, jazz in train"),
    ],
)
@pytest.mark.parametrize("how", ["missing", "bad"])
def test_a_part_without_tracks_is_named(listed, tmp_path, lost, message, how):
    for track_id in lost:
        path = listed / track_id[:4] / f"{track_id}.wav"
        path.write_text("no audio")
        if how == "missing":
            path.unlink()
    with pytest.raises(DataFolderError, match=f"^{listed}: .* {message}\\. .*random"):
        prepare(listed, tmp_path, protocol="filtered")
    assert not (tmp_path / "manifests").exists()


def test_a_genre_of_tracks_on_no_list_is_named(listed, tmp_path):
    write_tracks(listed, ["metal.00058"])
    with pytest.raises(DataFolderError, match="for metal in train"):
        prepare(listed, tmp_path, protocol="filtered")


def test_the_filtered_split_says_which_names_it_needs(tmp_path):
    write_tracks(tmp_path / "data", ["jazz.00054 (copy)", "jazz.song"])
    with pytest.raises(DataFolderError, match="blues/blues.00029.wav.*copy.*random"):
        prepare(tmp_path / "data", tmp_path, protocol="filtered")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
