"""Catalogues on Ray: real clusters on this machine, whose workers are killed."""

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from ms_sincresnet import GenreClassifier
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.files import file_state
from ms_sincresnet.inference.batch import model_identity
from ms_sincresnet.inference.predictions import SongPrediction
from ms_sincresnet.inference.ray import (
    Worker,
    _songs_done,
    _write,
    classify_on_ray,
    find_addresses,
)
from ms_sincresnet.inference.results import Kind

ray = pytest.importorskip("ray", reason="Ray is not installed")
fsspec = pytest.importorskip("fsspec")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two machines, in Ray's eyes, with room for one worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def rows(folder):
    parts = sorted(folder.glob("part-*.parquet"))
    table = pd.concat(map(pd.read_parquet, parts)).set_index("file")
    assert table.index.is_unique
    return table


def test_other_file_systems_are_searched_as_folders_are(tmp_path):
    names = ("b/2.flac", "a.MP3", "cover.jpg", "b/.hidden.wav")
    fsspec.filesystem("memory").pipe({f"/search/{name}": b"" for name in names})
    (tmp_path / "local.wav").touch()
    found = find_addresses(["memory://search", str(tmp_path), "memory://search/a.MP3"])
    expected = ["memory:///search/a.MP3", "memory:///search/b/2.flac"]
    assert found == [*expected, str(tmp_path / "local.wav")]
    with pytest.raises(UserError, match="nowhere://songs: no such file system"):
        find_addresses(["nowhere://songs"])


def test_a_shard_of_another_file_system(classifier, write_song, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/shard/text.wav", b"no")
    song = write_song(tmp_path / "rock.wav", ("rock", 4))
    memory.pipe("/shard/rock.wav", song.read_bytes())
    shard = [f"memory:///shard/{name}.wav" for name in ("text", "gone", "rock")]
    write = partial(_write, "memory://parts", Kind("12ab-majority", 2, False, 1.1))
    assert Worker(lambda: classifier, write).classify(shard) == 2
    (part,) = memory.glob("/parts/*")
    table = pd.read_parquet(f"memory://{part}").set_index("file")
    assert table.index.tolist() == shard
    assert table.genre.isna().all() and table.loc[shard[2], "unsure"]
    assert "not readable as audio" in table.loc[shard[0], "error"]
    assert "cannot be fetched (FileNotFoundError" in table.loc[shard[1], "error"]
    assert str(tmp_path) not in table.to_json()


def test_songs_that_failed_or_changed_are_done_again(tmp_path):
    songs, folder = [str(tmp_path / f"{n}.wav") for n in range(3)], tmp_path / "genres"
    for song in songs:
        Path(song).touch()
    done = SongPrediction("jazz", {"jazz": 1.0}, {"jazz": 1.0}, [], 3.0)
    kind, states = Kind("12ab-mean", 1, False), map(file_state, songs)
    failed = AudioFileError("not readable")
    assert _write(str(folder), kind, songs, [done, done, failed], states) == 1
    assert _songs_done(str(folder), kind, songs[:1]) == {*songs}
    Path(songs[1]).write_text("another song")
    assert _songs_done(str(folder), kind, songs) == {songs[0]}
    assert rows(folder).index.tolist() == songs[:1]


class NameReader:
    """A classifier that reads the genre in a song's name, and dies of some names."""

    precision, temperature, mods = "fp32", None, torch.nn.Identity()
    hparams = SimpleNamespace(
        **{"sample_rate": 16000, "clip_samples": 1, "hop_samples": 1, "full_scale": 1},
        **{"n_genres": 1, "voting": "mean"},
        model=SimpleNamespace(config={}),
        label_encoder=SimpleNamespace(ind2lab={0: "jazz"}),
    )

    def __init__(self, device):
        assert device == "cpu"

    def predict_songs(self, songs):
        """Predictions, some time after the songs were asked for."""
        for song, _ in songs:
            time.sleep(0.2)
            if "deadly" in song:
                os.kill(os.getpid(), signal.SIGKILL)
            share = {song.split(".")[1]: 1.0}
            yield song, SongPrediction(*share, share, share, [], 3.0)


def test_workers_and_a_machine_may_be_lost(tmp_path, cluster, monkeypatch):
    """With one attempt per song, since each new worker takes seconds."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("ms_sincresnet.inference.ray._ATTEMPTS", 1)
    songs = [f"{number}.jazz.wav" for number in range(7)] + ["deadly.jazz.wav"]
    folder = tmp_path / "genres"
    n_written = []

    def lose_a_machine():
        while not any(folder.glob("part-*.parquet")):
            time.sleep(0.01)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        n_written.append(len(list(folder.glob("part-*.parquet"))))

    killer = threading.Thread(target=lose_a_machine, daemon=True)
    killer.start()
    shards = {"address": cluster.address, "shard_size": 2}
    run = partial(classify_on_ray, NameReader, **shards)
    assert run(songs, folder) == (8, 1)
    killer.join()
    assert n_written[0] < 4  # some shards were left when the machine was lost
    table = rows(folder)
    assert set(table.index) == set(songs)
    assert "the worker was lost" in table.error["deadly.jazz.wav"]
    assert (table.genre.drop("deadly.jazz.wav") == "jazz").all()

    assert run(songs[:-1], folder) == (0, 0)
    assert not table.unsure.drop("deadly.jazz.wav").any()
    for other in ({"timeline": True}, {"min_posterior": 1.1}):
        with pytest.raises(UserError, match="results of another model"):
            run(["new.jazz.wav"], folder, **other)


def run_here(ray, start, write, n_workers, shards):
    """In place of ``_run``, since a worker on a cluster takes seconds to start."""
    load_and_write = ray.cloudpickle.loads(ray.cloudpickle.dumps(start.args))
    return sum(map(Worker(*load_and_write).classify, shards))


def test_the_command_line_classifies_and_embeds_what_is_missing_on_a_cluster(
    cluster, model_folder, write_song, tmp_path, command, monkeypatch
):
    songs, folder, index = (tmp_path / name for name in ("songs", "genres", "index"))
    songs.mkdir()
    genres = {"0.wav": "rock", "1.wav": "jazz", "2.wav": "rock"}
    for duration_s, (name, genre) in enumerate(genres.items(), 3):
        write_song(songs / name, (genre, duration_s))
    (songs / "bad.wav").write_text("no audio at all")
    classifier = GenreClassifier.from_pretrained(model_folder)
    classifier.hparams.voting = "mean"
    first = str(songs / "0.wav")
    kind = Kind(model_identity(classifier), 3, False)
    assert _write(str(folder), kind, [first], [classifier.predict_song(first)]) == 0
    (part,) = folder.iterdir()
    written = part.stat().st_mtime_ns
    argv = [songs, "--engine=ray", "--workers=1", f"--address={cluster.address}"]
    argv += ["--precision=fp32", "--model", model_folder, "--output"]
    status, _, err = command("classify", "--voting=mean", *argv, folder)
    assert status == 3 and f"{folder}: 2 of 3 songs have a genre" in err
    table = rows(folder)
    assert table.genre.dropna().rename(os.path.basename).to_dict() == genres
    assert set(table.model) == {kind.model}
    assert part.stat().st_mtime_ns == written and len(list(folder.iterdir())) == 2

    monkeypatch.setattr("ms_sincresnet.inference.ray._run", run_here)
    argv = ["embed", *argv, index]
    status, _, err = command(*argv, "--shard-size=2")
    assert status == 3 and f"{index}: 3 of 4 songs have an embedding" in err
    assert len(list(index.iterdir())) == 2
    (songs / "bad.wav").unlink()
    assert command(*argv)[0] == 0
    _, out, _ = command("similar", first, f"--index={index}")
    similar = [line.split("/")[-1] for line in out.splitlines()[1:]]
    assert similar == ["2.wav", "1.wav"]
    status, _, err = command(*argv, "--hop=2")
    assert status == 1 and "results of another model" in err


def test_a_cluster_that_cannot_be_reached(tmp_path):
    with pytest.raises(UserError, match="cannot be reached at 127.0.0.1:1"):
        classify_on_ray(NameReader, ["a.wav"], tmp_path, address="127.0.0.1:1")
