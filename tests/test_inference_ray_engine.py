"""Catalogues on Ray: real clusters on this machine, whose workers are killed."""

import os
import signal
import sys
import threading
import time
from functools import partial

import pandas as pd
import pytest

from ms_sincresnet.cli import main
from ms_sincresnet.errors import UserError
from ms_sincresnet.inference import ray
from ms_sincresnet.inference.ray import (
    ShardClassifier,
    classify_on_ray,
    find_addresses,
)

ray = pytest.importorskip("ray", reason="Ray is not installed")
fsspec = pytest.importorskip("fsspec")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster

OPTIONS = {"run_opts": {"device": "cpu"}}


@pytest.fixture
def songs(write_song, tmp_path, genres):
    """Genres by songs' paths, three songs a genre."""
    folder = tmp_path / "songs"
    folder.mkdir()
    return {
        str(write_song(folder / f"{number}.{genre}.wav", (genre, 3.5))): genre
        for genre in genres
        for number in range(3)
    }


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two machines, to Ray, that have room for a worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def parts(folder):
    """All rows of a folder, by their songs."""
    tables = [pd.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))]
    table = pd.concat(tables)
    assert table["file"].is_unique
    return table.set_index("file")


def test_addresses_of_other_file_systems_are_searched_as_folders_are(tmp_path):
    for name in ("b/2.flac", "a.MP3", "cover.jpg"):
        with fsspec.open(f"memory://search/{name}", "wb") as file:
            file.write(b"")
    (tmp_path / "local.wav").touch()
    found = find_addresses(["memory://search", str(tmp_path), "memory://search/a.MP3"])
    assert found == [
        "memory:///search/a.MP3",
        "memory:///search/b/2.flac",
        str(tmp_path / "local.wav"),
    ]


def test_an_unknown_file_system_is_named():
    with pytest.raises(UserError, match="nowhere://songs: no such file system"):
        find_addresses(["nowhere://songs"])


def test_a_shard_of_another_file_system_with_faulty_songs(
    model_folder, write_song, tmp_path
):
    for name, data in [
        ("rock.wav", write_song(tmp_path / "rock.wav", ("rock", 4)).read_bytes()),
        ("text.wav", b"no audio at all"),
    ]:
        with fsspec.open(f"memory://shard/{name}", "wb") as file:
            file.write(data)
    shard = [f"memory:///shard/{name}.wav" for name in ("text", "gone", "rock")]
    worker = ShardClassifier(model_folder, None, OPTIONS, "memory://parts", 2, False)
    assert worker.classify(shard) == 2
    (part,) = fsspec.filesystem("memory").glob("/parts/*")
    table = pd.read_parquet(f"memory://{part}").set_index("file")
    assert table.index.tolist() == shard
    assert table.loc[shard[2], "genre"] == "rock"
    assert "not readable as audio" in table.loc[shard[0], "error"]
    assert "cannot be fetched (FileNotFoundError" in table.loc[shard[1], "error"]
    assert str(tmp_path) not in table.to_json()


class DeadlyFiles(ShardClassifier):
    """A worker whose decoder crashes on some files."""

    def classify(self, songs):
        """Crashes."""
        if any("deadly" in song for song in songs):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().classify(songs)


def test_a_song_that_crashes_workers_is_found_and_the_others_are_named(
    model_folder, songs, tmp_path, cluster, monkeypatch
):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_engine, "ShardClassifier", DeadlyFiles)
    files = [list(songs)[0], "deadly.wav", list(songs)[-1]]
    done = classify_on_ray(
        model_folder, files, tmp_path / "genres", address=cluster.address, workers=1
    )
    assert done == (3, 1)
    table = parts(tmp_path / "genres")
    assert "worker was lost" in table.loc["deadly.wav", "error"]
    assert table.loc[[files[0], files[2]], "genre"].tolist() == ["rock", "jazz"]


def test_all_songs_are_named_though_a_machine_is_lost_half_way(
    model_folder, songs, tmp_path, cluster
):
    bad = tmp_path / "songs" / "bad.wav"
    bad.write_text("no audio at all")
    folder = tmp_path / "genres"
    n_written = []

    def lose_a_machine():
        while len(list(folder.glob("part-*.parquet"))) < 3:
            time.sleep(0.01)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        n_written.append(len(list(folder.glob("part-*.parquet"))))

    killer = threading.Thread(target=lose_a_machine, daemon=True)
    killer.start()
    files = [*songs, str(bad)]
    run = partial(classify_on_ray, model_folder, address=cluster.address, shard_size=1)
    done = run(files[1:], folder)
    killer.join()
    assert done == (12, 1)
    assert n_written[0] < 12  # else it was lost when all was over
    table = parts(folder)
    assert table.loc[list(songs)[1:], "genre"].to_dict() == dict(
        list(songs.items())[1:]
    )
    assert "not readable as audio" in table.loc[str(bad), "error"]

    # Started anew with one song more, it does that one and leaves what is written.
    written = {path: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    assert run(files, folder) == (1, 0)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert parts(folder).loc[list(songs), "genre"].to_dict() == songs
    with pytest.raises(UserError, match="of another model, voting, top or timeline"):
        run(files, folder, top=1)


def test_the_command_line_tells_what_a_cluster_needs(model_folder, capsys):
    for options, told in [
        (["--engine=ray"], "--engine ray needs --output"),
        (["--engine=ray", "--output=x", "--format=csv"], "writes parquet files"),
        (["--workers=2"], "--workers is for --engine ray"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            main(["classify", str(model_folder), "a.wav", *options])
        assert exit_.value.code == 2
        assert told in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_told(model_folder, tmp_path):
    with pytest.raises(UserError, match="cannot be reached at 127.0.0.1:1"):
        classify_on_ray(model_folder, ["a.wav"], tmp_path, address="127.0.0.1:1")
