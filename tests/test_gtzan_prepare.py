"""GTZAN's prepare script: layouts, protocols, bad files, and missing data."""

import logging
import shutil

import gtzan_prepare as gtzan
import numpy as np
import pandas as pd
import pytest
import soundfile

import ms_sincresnet.data.prepare as prepare_module
from ms_sincresnet.data.folds import split_fold
from ms_sincresnet.data.prepare import PARTS
from ms_sincresnet.data.twins import Twins
from ms_sincresnet.errors import DataFolderError, HparamError

from .sounds import noise, read_report


def write_tracks(root, ids, suffix=".wav"):
    for seed, track_id in enumerate(ids):
        path = root / track_id.split(".")[0] / f"{track_id}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(500, seed=seed), 22050)


def write_genres(root, suffix=".wav"):
    """Writes ten tracks of two genres, named like GTZAN's."""
    ids = [f"{genre}.{track:05d}" for genre in ("jazz", "rock") for track in range(10)]
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


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [("Data/genres_original", ".wav"), ("genres", ".au"), (".", ".mp3")],
)
def test_every_layout_and_format_is_accepted(tmp_path, layout, suffix):
    root = tmp_path / "GTZAN"
    ids = write_genres(root / layout, suffix)
    (root / "features_30_sec.csv").touch()
    if layout != ".":
        (root / layout).with_name("images_original").mkdir()
    assert sorted(sum(prepare(str(root), tmp_path).values(), [])) == ids


def test_folds_are_those_of_split_fold(data, tmp_path):
    genres = np.repeat(["jazz", "rock"], 10)
    options = {"fold": 3, "n_folds": 5, "valid_fraction": 0.25}
    parts = prepare(data, tmp_path, split_seed=7, **options)
    ids = np.array(sorted(sum(parts.values(), [])))
    expected = split_fold(genres, **options, seed=7)
    assert parts == {part: ids[expected == part].tolist() for part in PARTS}


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


@pytest.mark.parametrize("name", ["", "pop"])
def test_without_data_the_error_says_how_to_get_it(tmp_path, name):
    (tmp_path / "pop" / "genres" / "pop").mkdir(parents=True)
    data_folder = name and tmp_path / name
    message = f"^data_folder: .*expected.*{data_folder}"
    with pytest.raises(DataFolderError, match=message) as error:
        prepare(data_folder, tmp_path / "results")
    assert str(error.value).endswith(gtzan.HOW_TO_GET)
    assert not (tmp_path / "results").exists()


def test_an_option_out_of_range_is_named_and_leaves_nothing(data, tmp_path):
    for options, message in [
        ({"n_folds": 11}, "n_folds: "),
        ({"protocol": "artist"}, "protocol: .* random, filtered.* got 'artist'"),
        ({"protocol": "filtered", "fold": 3}, "fold: .*one split.* 0, got 3"),
    ]:
        with pytest.raises(HparamError, match=f"^{message}"):
            prepare(data, tmp_path, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["data"]


# Two genres with tracks of each part on the authors' own lists, and one on none; of the
# other genres the first four that train.
NAMES = pd.Series(gtzan.filtered_parts())
TRAINED = NAMES.index[NAMES == "train"].to_series()
OTHERS = TRAINED[~TRAINED.str.match("jazz|rock")].groupby(lambda name: name[:3]).head(4)
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
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    other, found, left_out = warnings
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


@pytest.mark.parametrize("lacking", ["test", "metal in train"])
def test_a_part_or_genre_without_tracks_is_named(listed, tmp_path, lacking):
    if lacking == "test":
        for track_id in LISTED["test"]:
            (listed / track_id[:4] / f"{track_id}.wav").write_bytes(b"")
    else:
        shutil.rmtree(listed / "metal")
    message = f"^{listed}: .* for {lacking}\\. .*random"
    with pytest.raises(DataFolderError, match=message):
        prepare(listed, tmp_path, protocol="filtered")
    assert not (tmp_path / "manifests").exists()


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
