"""GTZAN's prepare script: layouts, protocols, bad files, and missing data."""

import importlib.util
import logging
import shutil
from pathlib import Path

import pandas as pd
import pytest
import soundfile

import ms_sincresnet.data.prepare as prepare_module
from ms_sincresnet.data.prepare import PARTS
from ms_sincresnet.data.twins import Twins
from ms_sincresnet.errors import DataFolderError, HparamError

from .sounds import noise, read_report

SCRIPT = Path(__file__).parents[1] / "recipes" / "GTZAN" / "gtzan_prepare.py"
spec = importlib.util.spec_from_file_location("gtzan_prepare", SCRIPT)
gtzan = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gtzan)


def write_tracks(root, ids, suffix=".wav"):
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
    folder = folder / "manifests"
    return {part: pd.read_csv(folder / f"{part}.csv").ID.tolist() for part in PARTS}


def messages(caplog, level):
    return [r.getMessage() for r in caplog.records if r.levelname == level]


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [("Data/genres_original", ".wav"), ("genres_original", ".mp3")]
    + [("genres", ".au"), (".", ".flac")],
)
def test_every_layout_and_format_is_accepted(tmp_path, layout, suffix):
    root = tmp_path / "GTZAN"
    ids = write_genres(root / layout, suffix)
    (root / "features_30_sec.csv").touch()
    if layout != ".":
        (root / layout).with_name("images_original").mkdir()
    assert sorted(sum(prepare(str(root), tmp_path).values(), [])) == ids


def test_every_track_is_tested_once_and_never_trained_on_then(data, tmp_path):
    tested = []
    for fold in range(5):
        parts = prepare(data, tmp_path, fold=fold, n_folds=5, valid_fraction=0.25)
        assert [len(parts[part]) for part in PARTS] == [12, 4, 4]
        assert len(set(sum(parts.values(), []))) == 20
        for part in ["valid", "test"]:
            genres = [track_id.split(".")[0] for track_id in parts[part]]
            assert genres == ["jazz", "jazz", "rock", "rock"]
        tested += parts["test"]
    assert len(tested) == len(set(tested)) == 20
    assert prepare(data, tmp_path, split_seed=1) != prepare(data, tmp_path)


@pytest.mark.parametrize("keep", [True, False])
def test_twins_stay_on_one_side_unless_they_are_let_go(
    data, tmp_path, monkeypatch, keep
):
    # Positions in the order of IDs: two tracks of jazz, one of rock.
    twins = [Twins(0, 1, 0.0, 0.9), Twins(11, 1, 0.0, 0.9)]
    monkeypatch.setattr(prepare_module, "find_twins", lambda *_: twins)
    names = {"jazz.00000", "jazz.00001", "rock.00001"}
    options = {"n_folds": 5, "valid_fraction": 0.4, "keep_twins": keep}
    together = []
    for fold in range(5):
        parts = prepare(data, tmp_path, fold=fold, **options)
        together.append(any(names <= set(ids) for ids in parts.values()))
        apart = read_report(tmp_path)["apart"]
        assert apart == ([] if together[-1] else [sorted(names)])
    assert all(together) == keep
    assert read_report(tmp_path)["options"]["keep_twins"] == keep


@pytest.mark.parametrize("name", [None, "", "genres.tar.gz", "pop"])
def test_without_data_the_error_says_how_to_get_it(tmp_path, name):
    (tmp_path / "genres.tar.gz").touch()
    (tmp_path / "pop" / "genres" / "pop").mkdir(parents=True)
    (tmp_path / "pop" / "genres" / "pop" / "notes.txt").touch()
    data_folder = tmp_path / name if name else name
    with pytest.raises(DataFolderError, match="^data_folder: .*expected") as error:
        prepare(data_folder, tmp_path / "results")
    assert str(data_folder) in str(error.value)
    assert str(error.value).endswith(gtzan.HOW_TO_GET)
    assert not (tmp_path / "results").exists()


def test_an_option_out_of_range_is_named_and_leaves_nothing(data, tmp_path):
    for options, message in [
        ({"fold": 10}, "fold: "),
        ({"n_folds": 11}, "n_folds: "),
        ({"valid_fraction": 0.01}, "valid_fraction: "),
        ({"protocol": "artist"}, "protocol: .* random, filtered.* got 'artist'"),
        ({"protocol": "filtered", "fold": 3}, "fold: .*one split.* 0, got 3"),
    ]:
        with pytest.raises(HparamError, match=f"^{message}"):
            prepare(data, tmp_path, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["data"]


# Two genres with tracks of each part on the authors' own lists, and one on none; of the
# other genres the first four that train.
ON_LIST = [name for name, part in gtzan.filtered_parts().items() if part == "train"]
OTHERS = [
    name
    for genre in gtzan.GENRES - {"jazz", "rock"}
    for name in [name for name in ON_LIST if name.startswith(genre)][:4]
]
LISTED = {
    "train": sorted(["jazz.00000", "jazz.00001", "rock.00000", "rock.00001", *OTHERS]),
    "valid": ["jazz.00002", "rock.00038"],
    "test": ["jazz.00073", "rock.00010"],
}
UNLISTED = "jazz.00033"


@pytest.fixture
def listed(tmp_path):
    write_tracks(tmp_path / "data", [*sum(LISTED.values(), []), UNLISTED])
    return tmp_path / "data"


def test_the_filtered_lists_are_those_of_torchaudio():
    source = pytest.importorskip("torchaudio.datasets.gtzan")
    lists = [getattr(source, f"filtered_{part}") for part in PARTS]
    assert list(gtzan.filtered_parts()) == sum(lists, [])


def test_the_filtered_split_takes_what_is_there_and_counts_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    ids = [*sum(LISTED.values(), []), UNLISTED, "polka.00000"]
    root = tmp_path / "Data" / "genres_original"
    write_tracks(root, ids, ".au")
    (root / "jazz" / "jazz.00054.au").write_text("no audio")
    assert prepare(tmp_path, tmp_path, protocol="filtered") == LISTED
    assert len(list((tmp_path / "cache").glob("*.wav"))) == 40
    assert [row["ID"] for row in read_report(tmp_path)["left_out"]] == ["jazz.00054"]
    other, found, left_out = messages(caplog, "WARNING")
    assert "not GTZAN's: polka" in other
    assert "left out jazz.00054" in left_out
    assert "found 37 of 443 train, 2 of 197 valid, 2 of 290 test" in found
    assert "missing: blues.00000" in found
    assert "2 tracks are not in the filtered split" in caplog.text
    assert "jazz.00054 does not decode in the common copies" in caplog.text


def test_other_options_and_tracks_do_not_change_the_filtered_split(listed, tmp_path):
    prepare(listed, tmp_path, protocol="filtered")
    report = tmp_path / "manifests" / "report.json"
    before = report.stat().st_mtime_ns
    expected = {"data_folder": str(listed), "protocol": "filtered"}
    assert read_report(tmp_path)["options"] == expected
    write_tracks(listed, ["jazz.00034"])
    options = {"n_folds": 4, "valid_fraction": 0.4, "split_seed": 1}
    prepare(listed, tmp_path, protocol="filtered", **options)
    assert report.stat().st_mtime_ns == before
    assert UNLISTED in sum(prepare(listed, tmp_path, **options).values(), [])
    for path in listed.rglob("*.wav"):  # nor do names without the genre
        path.rename(path.with_name(path.name.split(".", 1)[1]))
    assert prepare(listed, tmp_path, protocol="filtered", **options) == LISTED


@pytest.mark.parametrize(
    ("part", "lose"), [("valid", Path.unlink), ("test", Path.touch)]
)
def test_a_part_without_tracks_is_named(listed, tmp_path, part, lose):
    for track_id in LISTED[part]:
        path = listed / track_id[:4] / f"{track_id}.wav"
        path.write_bytes(b"")
        lose(path)
    with pytest.raises(DataFolderError, match=f"^{listed}: .* for {part}\\. .*random"):
        prepare(listed, tmp_path, protocol="filtered")
    assert not (tmp_path / "manifests").exists()


def test_the_filtered_split_without_a_genre_is_refused(listed, tmp_path):
    shutil.rmtree(listed / "metal")
    with pytest.raises(DataFolderError, match=f"^{listed}: .* for metal in train"):
        prepare(listed, tmp_path, protocol="filtered")


def test_folders_get_the_names_of_the_genres(listed, tmp_path, caplog):
    (listed / "hiphop").rename(listed / "Hip Hop")
    moved, *_ = sorted((listed / "Hip Hop").iterdir())
    (listed / "hip-hop").mkdir()
    moved.rename(listed / "hip-hop" / moved.name.replace("hiphop", "hip-hop"))
    (listed / "metal").rename(listed / "METAL")
    assert prepare(listed, tmp_path, protocol="filtered") == LISTED
    assert not any("missing: hiphop" in text for text in caplog.messages)


def test_the_filtered_split_says_which_names_it_needs(tmp_path):
    write_tracks(tmp_path / "data", ["jazz.00054 (copy)", "jazz.song"])
    with pytest.raises(DataFolderError, match="blues/blues.00029.wav.*copy.*random"):
        prepare(tmp_path / "data", tmp_path, protocol="filtered")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
