"""ISMIR2004's prepare script, on trees in the archives' layout, naming and size."""

import csv
from pathlib import Path

import ismir2004_prepare as ismir2004
import numpy as np
import pandas as pd
import pytest
import soundfile

from ms_sincresnet.data.prepare import PARTS
from ms_sincresnet.errors import DataFolderError, HparamError

from .sounds import pcm_noise, read_report

# Tracks in each folder of the archives; the development part has no folders.
FOLDERS = ["classical", "electronic", "jazz", "metal", "pop", "punk", "rock", "world"]
COUNTS = {
    "training": dict(zip(FOLDERS, [320, 115, 26, 29, 6, 16, 95, 122], strict=True)),
    "development": dict(
        zip(ismir2004.NAMES, [320, 114, 26, 45, 102, 122], strict=True)
    ),
    "evaluation": dict(zip(FOLDERS, [319, 115, 26, 29, 5, 16, 96, 123], strict=True)),
}
FEW = {folder: 4 for folder in COUNTS["training"]}

ALBUMS = ["songs", "music_for_2_(live)", "rock_&_roll", "one,_two", "l'amore"]
LOST_LETTER = "electronic/artist_of_electronic_0/songs/5-kruhov\ufffd_objazd.mp3"
ITS_FILE = "electronic/artist_of_electronic_0/songs/05-kruhovy_objazd.mp3"
LOST_QUOTES = "il_libro_d'intavolatura_(1620)"


def list_part(part, counts):
    """Lines of a tracklist, and the file on disk that belongs to each."""
    lines, files = [], []
    for folder, count in counts.items():
        for n in range(count):
            genre, track = ismir2004.CLASSES[folder], f"it's_no_{n}"
            number = n % 5 + 1
            if part == "development":
                artist, album, track = f"artist_{n // 5}", "album_1", f"track_{number}"
                path = file = f"{artist}_{album}_{folder}_{track}.mp3"
            else:
                artist = f"artist_of_{folder}_{n // 15}"
                album = ALBUMS[n // 5 % 5]
                if folder == "classical" and n in (7, 8) and part == "training":
                    album = LOST_QUOTES
                path = f"{folder}/{artist}/{album}/{number}-{track}.mp3"
                file = path.replace("d'intavolatura", "d_intavolatura")
                if folder == "electronic" and n == 4 and part == "evaluation":
                    path, file = LOST_LETTER, ITS_FILE
            line = [genre, artist, album.replace("'", "_"), track, str(number), path]
            lines.append(line + ["57578"] * (part == "evaluation"))
            files.append(file)
    return lines, files


def write_list(root, part, lines, prefix="", header=False):
    """Writes a tracklist as the archives have it, every field in quotes."""
    path = root / "metadata" / part / "tracklist.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([ismir2004.COLUMNS[:6]] * header)
        writer.writerows([*line[:5], prefix + line[5], *line[6:]] for line in lines)
    return path


def write_audio(paths, seed):
    """Writes 100 samples of noise each: wav files, whatever their suffix."""
    for n, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            samples = pcm_noise(100, seed=1000 * seed + n)
            soundfile.write(file, samples, 16000, format="WAV")


def write_data(root, counts, audio="audio", prefix="", header=False):
    for nth, (part, counts_of_part) in enumerate(counts.items()):
        lines, files = list_part(part, counts_of_part)
        write_list(root, part, lines, prefix, header)
        write_audio((root / audio / part / file for file in files), seed=nth)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The three parts in their full size, and a cache; lists are written anew."""
    root = tmp_path_factory.mktemp("ismir2004")
    write_data(root / "data", COUNTS)
    return root


@pytest.fixture
def data(tmp_path):
    """Four tracks in each folder of the training and of the evaluation part."""
    write_data(tmp_path / "data", {"training": FEW, "evaluation": FEW})
    return tmp_path / "data"


def prepare(data, folder, cache=None, **options):
    """Prepares a data set below a folder; returns the rows of each manifest."""
    options = {"test_part": "evaluation", "valid_fraction": 0.25, **options}
    manifests, cache = folder / "manifests", cache or folder / "cache"
    ismir2004.prepare_ismir2004(data, manifests, cache, **options)
    return {part: pd.read_csv(manifests / f"{part}.csv") for part in PARTS}


@pytest.mark.parametrize(
    ("test_part", "sizes", "prefix", "header"),
    [
        ("development", [320, 114, 26, 45, 102, 122], "./", True),
        ("evaluation", [319, 115, 26, 45, 101, 123], "tracks/", False),
    ],
)
def test_the_archives_give_656_73_and_729_tracks(
    archives, tmp_path, caplog, test_part, sizes, prefix, header
):
    for part in ("training", test_part):
        lines, _ = list_part(part, COUNTS[part])
        write_list(archives / "data", part, lines, prefix, header)
    options = {"test_part": test_part, "valid_fraction": 0.1}
    parts = prepare(archives / "data", tmp_path, archives / "cache", **options)
    assert [len(parts[part]) for part in PARTS] == [656, 73, 729]
    training, test = pd.concat([parts["train"], parts["valid"]]), parts["test"]
    counts = training.genre.value_counts()
    assert counts.sort_index().tolist() == [320, 115, 26, 45, 101, 122]
    assert training.ID.str.startswith("training/").all()
    assert (np.abs(parts["valid"].genre.value_counts() - counts / 10) <= 0.5).all()
    assert test.genre.value_counts().sort_index().tolist() == sizes
    if test_part == "development":  # unlike the archive's, these names have the genre
        assert all(row.genre in row.ID for row in test.itertuples())
    else:
        (found,) = test.ID[test.ID.str.contains("kruhov")]
        assert found == f"evaluation/{ITS_FILE[:-4].replace('/05-', '/5-')}"
    assert training.ID.str.contains("il_libro_d_intavolatura").sum() == 2
    assert read_report(tmp_path)["left_out"] == []
    assert not [row for row in caplog.records if row.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        ("tracks/rock/a/b/1-c.mp3", "rock/a/b/1-c.wav"),
        ("audio/training/tracks/rock/a/b/1-c.mp3", "tracks/rock/a/b/01-c.MP3"),
        ("rock/a/l'été/1-c.mp3", "rock/a/l_ete/1-c.mp3"),
        ("rock/a/kruhov\u00fd/1-c.mp3", "rock/a/kruhovy\u0301/1-c.mp3"),
        ("rock/o\u2019hara/b/1-c.mp3", "rock/o_hara/b/1-c.mp3"),
        ('rock/A/"b"_&_(c)/1-d,e.mp3', "rock/a/_b__&__c_/1-d_e.mp3"),
    ],
)
def test_a_list_and_a_disk_agree_in_plain_names(listed, on_disk):
    assert ismir2004.plain_name(listed) == ismir2004.plain_name(on_disk)
    assert ismir2004.plain_name(listed).isascii()


def test_missing_unlisted_and_unreadable_tracks_are_named(data, tmp_path, caplog):
    training = data / "audio" / "training"
    missing = next((training / "rock").rglob("2-it's_no_1.mp3"))
    missing.unlink()
    unlisted = training / "jazz" / "nobody" / "songs" / "1-other.mp3"
    write_audio([unlisted], seed=9)
    bad = next((data / "audio" / "evaluation" / "world").rglob("*.mp3"))
    bad.write_bytes(b"no audio")
    # also where the folder called audio is given
    tracks = pd.concat(prepare(data / "audio", tmp_path, excerpt=[0, 0.005]))
    assert len(tracks) == 62
    assert (tracks.duration == 0.005).all()
    left_out = {row["path"]: row for row in read_report(tmp_path)["left_out"]}
    list_path = data / "metadata" / "training" / "tracklist.csv"
    assert "not readable as audio" in left_out.pop(str(bad))["reason"]
    names = ["rock/artist_of_rock_0/songs/2-it_s_no_1", "jazz/nobody/songs/1-other"]
    reasons = [f"not on disk, but in {list_path}", f"not in {list_path}"]
    assert [*left_out.values()] == [
        {"ID": f"training/{name}", "path": str(path), "reason": reason}
        for name, path, reason in zip(names, [missing, unlisted], reasons, strict=True)
    ]
    assert "729 tracks of the contest's training part, found 32" in caplog.text


@pytest.mark.parametrize(("base", "audio"), [(".", "audio"), ("ismir04_genre", ".")])
def test_every_layout_is_accepted(tmp_path, base, audio):
    counts = {"training": FEW, "development": FEW}
    write_data(tmp_path / "data" / base, counts, audio)
    parts = prepare(tmp_path / "data", tmp_path, test_part="development")
    assert [len(parts[part]) for part in PARTS] == [24, 8, 32]
    artists = read_report(tmp_path)["artists"]
    # Artists of the development part are anonymous.
    assert artists["test"] == {"tracks": 32, "by_artists_of_train": None}


def test_without_a_list_the_folders_name_classes_and_artists(data, tmp_path):
    listed = prepare(data, tmp_path)
    artists = read_report(tmp_path)["artists"]
    assert artists["valid"] == {"tracks": 8, "by_artists_of_train": 8}
    assert artists["test"] == {"tracks": 32, "by_artists_of_train": 32}
    for part in ["training", "evaluation"]:
        (data / "metadata" / part / "tracklist.csv").unlink()
    write_audio([data / "audio" / "training" / "stray.mp3"], seed=9)
    parts = prepare(data, tmp_path)
    assert all(parts[part].equals(listed[part]) for part in PARTS)
    assert read_report(tmp_path)["artists"] == artists
    (left_out,) = read_report(tmp_path)["left_out"]
    assert left_out["ID"] == "training/stray"
    assert left_out["reason"] == "not in a folder of a genre"


def test_a_part_without_a_class_is_named(data, tmp_path):
    audio = data / "audio"
    for part in ("evaluation", "training"):
        (audio / part / "world").rename(tmp_path / part)
        message = f"audio/{part}: .*metadata/{part}/tracklist.csv.*none of .'world'"
        with pytest.raises(DataFolderError, match=message):
            prepare(data, tmp_path)
    assert not (tmp_path / "manifests").exists()


def test_identical_tracks_stay_together_in_training_and_are_reported_in_the_test(
    data, tmp_path, caplog
):
    song = "artist_of_{0}_0/songs/1-it's_no_0.mp3"
    world, *copies = (
        data / "audio" / folder / song.format(Path(folder).name)
        for folder in ["training/world", "training/classical", "evaluation/jazz"]
    )
    for copy in copies:
        copy.write_bytes(world.read_bytes())
    heard = "evaluation/jazz/artist_of_jazz_0/songs/1-it_s_no_0"
    validated = set()
    for split_seed in range(4):
        parts = prepare(data, tmp_path, split_seed=split_seed)
        ((first, *pair),) = read_report(tmp_path)["identical"]
        assert [name.split("/")[1] for name in pair] == ["classical", "world"]
        assert any(set(pair) <= set(parts[part].ID) for part in ("train", "valid"))
        assert first == heard and heard in parts["test"].ID.tolist()
        validated.add(tuple(parts["valid"].ID))
    assert len(validated) == 4
    assert read_report(tmp_path)["heard_in_training"] == [heard]
    assert "recordings in more than one part of the split: 1, such as" in caplog.text


def test_unusable_lists_are_named(data, tmp_path):
    path = data / "metadata" / "training" / "tracklist.csv"
    for content, message in [
        ('rock,"a,b,c,1,rock/a/b/1-c.mp3\n', "not readable as a list"),
        ("polka,a,b,c,1,polka/a/b/1-c.mp3\n", "found 'polka,a,b,c,1"),
        ("class,artist,path\nrock,a,rock/a/b/1-c.mp3\n", "found 'rock,a,rock"),
        (path.read_text() + path.read_text(), "expected one line .* two"),
    ]:
        path.write_text(content)
        with pytest.raises(DataFolderError, match=f"{path}: .*{message}"):
            prepare(data, tmp_path)


@pytest.mark.parametrize("name", [None, "", "archive.tar.gz", "half"])
def test_without_data_the_error_says_how_to_get_it(tmp_path, name):
    (tmp_path / "archive.tar.gz").touch()
    write_data(tmp_path / "half", {"training": FEW})
    data_folder = tmp_path / name if name else name
    part = "development" if name == "half" else "training"
    message = f"^data_folder: .*; got '{data_folder}'.*audio/{part} or {part} below it"
    with pytest.raises(DataFolderError, match=message) as error:
        prepare(data_folder, tmp_path, test_part="development")
    assert str(error.value).endswith(ismir2004.HOW_TO_GET)


def test_an_option_out_of_range_is_named_and_leaves_nothing(data, tmp_path):
    unusable = {"test_part": "training", "excerpt": [30], "valid_fraction": 0.01}
    for name, value in unusable.items():
        with pytest.raises(HparamError, match=f"^{name}: "):
            prepare(data, tmp_path, **{name: value})
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
