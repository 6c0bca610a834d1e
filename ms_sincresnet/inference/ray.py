"""A catalogue that outgrows one machine: shards of it, classified by Ray's workers.

Each worker holds the model, and writes what it found of a shard as one parquet file.
A shard that is written is not done again, neither when a worker is lost nor when the
whole is started anew.
"""

import hashlib
import logging
import os
import socket
import tempfile
from functools import partial
from pathlib import Path

import fsspec
import pandas as pd
from tqdm import tqdm

from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.files import as_utf8
from ms_sincresnet.inference.batch import (
    classify_songs,
    find_songs,
    is_audio,
    model_identity,
    song_row,
)
from ms_sincresnet.inference.row_formats import columns, flat_row

logger = logging.getLogger(__name__)

_LIVES = 2  # workers that a shard may cost before it is divided
_MOST_UNUSED = 8  # workers lost in a row before they were of use


def find_addresses(addresses):
    """Finds songs in folders and files, local ones or those of a file system of fsspec.

    Arguments
    ---------
    addresses : iterable of str
        Local paths, or addresses such as ``s3://bucket/songs``.

    Returns
    -------
    list of str
        Local paths and addresses of songs, as ``find_songs`` finds and orders them.

    Raises
    ------
    UserError
        If a file system is unknown or cannot be read.

    Example
    -------
    >>> with fsspec.open("memory://songs/a.wav", "wb") as file:
    ...     _ = file.write(b"")
    >>> find_addresses(["memory://songs"])
    ['memory:///songs/a.wav']
    """
    songs = []
    for address in addresses:
        if "://" not in address:
            songs += find_songs([address])
            continue
        system, path = _file_system(address)
        try:
            found = system.find(path) if system.isdir(path) else [path]
        except Exception as error:  # each file system has its own
            raise UserError(
                f"{address}: cannot be read ({type(error).__name__}: {error})"
            ) from error
        if found != [path]:
            found = [each for each in sorted(found) if is_audio(each)]
        songs += [system.unstrip_protocol(each) for each in found]
    return list(dict.fromkeys(songs))


def classify_on_ray(
    source,
    songs,
    folder,
    *,
    address=None,
    workers=None,
    shard_size=100,
    device=None,
    precision="fp32",
    voting=None,
    top=3,
    timeline=False,
):
    """Names the genres of songs on the machines of a Ray cluster, shard by shard.

    A worker that is lost, with its machine or by a file that crashes a decoder, is
    replaced; a shard that costs several workers is divided, until the file that
    crashes them is found and noted as an error.

    Arguments
    ---------
    source : str, pathlib.Path or list of them
        The model: a folder that all machines see, or the name of a repository of the
        Hub; a list of such is fused.
    songs : list of str
        Local paths that all machines see, or addresses, as of ``find_addresses``.
    folder : str or pathlib.Path
        Where ``part-….parquet`` go: local, or an address. Songs that are in some part
        of it are not done again.
    address : str, optional
        Ray's cluster ("auto", ``ray://host:10001``); None: this machine.
    workers : int, optional
        Workers; None: as many as the cluster has processors, or GPUs if ``device``
        is "cuda".
    shard_size : int
        Songs a shard.
    device : str, optional
        "cpu" or "cuda".
    precision : str
        "fp32", "bf16" or "fp16".
    voting : str, optional
        "majority" or "mean" instead of the model's own.
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline.

    Returns
    -------
    n_songs : int
        Songs that were done now.
    n_errors : int
        Those of them that have an error.

    Raises
    ------
    UserError
        If Ray is not installed or cannot be reached, or the folder holds the results
        of another model.

    Example
    -------
    >>> classify_on_ray("model", ["song.wav"], "genres")  # doctest: +SKIP
    (1, 0)
    """
    ray = _import_ray()
    options = {"run_opts": {"device": device or "cpu", "precision": precision}}
    # Here too, so that a fault of the model is told before any worker is started.
    classifier = _load(source, voting, options)
    folder = os.fspath(folder)
    system, path = _file_system(folder)
    system.makedirs(path, exist_ok=True)
    top = min(top, classifier.hparams.n_genres)
    done = _songs_done(folder, model_identity(classifier), columns(top, timeline))
    songs = [song for song in songs if as_utf8(song) not in done]
    if done:
        logger.warning("%s: %d songs are there already", folder, len(done))
    if not songs:
        return 0, 0
    _connect(ray, address)
    try:
        gpus = device is not None and device.startswith("cuda")
        kind = "GPU" if gpus else "CPU"
        actor = ray.remote(num_cpus=1, num_gpus=int(gpus))(ShardClassifier)
        start = partial(actor.remote, source, voting, options, folder, top, timeline)
        shards = [
            songs[first : first + shard_size]
            for first in range(0, len(songs), shard_size)
        ]
        workers = workers or int(ray.cluster_resources().get(kind, 1))
        return _run(ray, start, min(workers, len(shards)), shards)
    finally:
        ray.shutdown()


def _connect(ray, address):
    """Joins a cluster, or makes one of this machine."""
    try:
        if address is not None and ":" in address:  # Ray would try for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        options = {"include_dashboard": False, "log_to_driver": False}
        ray.init(address, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray cannot be reached at {address}: {error}") from error


def _run(ray, start, n_workers, shards):
    """Gives shards to workers until all are done, whatever workers are lost."""
    n_songs, n_errors = sum(map(len, shards)), 0
    waiting = [(shard, _LIVES) for shard in reversed(shards)]
    starting, running, idle, unused = {}, {}, [], 0
    for worker in [start() for _ in range(n_workers)]:
        starting[worker.ready.remote()] = worker
    bar = tqdm(total=n_songs, unit="song", disable=None)
    while waiting or running:
        while waiting and idle:
            worker, (shard, lives) = idle.pop(), waiting.pop()
            call = worker.classify if lives else worker.give_up
            running[call.remote(shard)] = worker, shard, lives
        (future,), _ = ray.wait([*starting, *running])
        worker, shard, lives = running.pop(future, (starting.pop(future, None), [], 0))
        try:
            n_errors += ray.get(future)
        except ray.exceptions.RayActorError as error:
            if error.actor_init_failed:  # and so would every other's
                raise UserError(f"a worker cannot start: {error}") from error
            unused = 0 if shard else unused + 1
            if unused > _MOST_UNUSED:
                raise UserError(
                    "workers are lost before they have loaded the model; is there "
                    "memory enough for as many?"
                ) from error
            waiting += _again(shard, lives)
            # No shard waits for it: its machine may be gone.
            worker = start()
            starting[worker.ready.remote()] = worker
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        else:
            idle.append(worker)
            bar.update(len(shard))
    bar.close()
    return n_songs, n_errors


def _again(shard, lives):
    """What is to be done of a shard whose worker was lost: shards and their lives."""
    if lives > 1 or len(shard) == 1:
        return [(shard, lives - 1)]
    half = len(shard) // 2
    return [(part, _LIVES) for part in (shard[half:], shard[:half]) if part]


class ShardClassifier:
    """A worker: the model, and what it writes of the shards that it is given.

    Arguments
    ---------
    source : str, pathlib.Path or list of them
        The model.
    voting : str or None
        Instead of the model's own.
    options : dict
        Of ``GenreClassifier.from_pretrained``.
    folder : str
        Where the parts go.
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path")
    >>> save_model_folder(folder / "model", MSSincResNet(2, n_filters=8), ["a", "b"])
    >>> worker = ShardClassifier(folder / "model", None, {}, folder, 1, False)
    >>> worker.classify(["nowhere.wav"])  # songs with an error
    1
    """

    def __init__(self, source, voting, options, folder, top, timeline):
        self.classifier = _load(source, voting, options)
        self.model = model_identity(self.classifier)
        self.folder = os.fspath(folder)
        self.top, self.timeline = top, timeline

    def ready(self):
        """Answers once the model is loaded.

        Returns
        -------
        int
            Songs with an error so far: none.
        """
        return 0

    def classify(self, songs):
        """Classifies a shard and writes it.

        Arguments
        ---------
        songs : list of str
            Local paths or addresses.

        Returns
        -------
        int
            How many have an error.
        """
        with tempfile.TemporaryDirectory() as copies:
            lost = {}
            files = (_local_copy(song, copies, lost) for song in songs)
            outcomes = zip(songs, classify_songs(self.classifier, files), strict=True)
            rows = []
            for song, (file, outcome) in outcomes:
                if file != song:
                    Path(file).unlink(missing_ok=True)
                if isinstance(outcome, UserError):
                    told = str(outcome).replace(str(file), song)
                    outcome = lost.get(song, AudioFileError(told))
                rows.append(song_row(song, outcome, self.top, self.timeline))
        return self._write(songs, rows)

    def give_up(self, songs):
        """Writes a shard whose one song cost several workers.

        Arguments
        ---------
        songs : list of str
            The song.

        Returns
        -------
        int
            How many have an error: all.
        """
        error = AudioFileError("the worker was lost each time that it read this file")
        rows = [song_row(song, error, self.top, self.timeline) for song in songs]
        return self._write(songs, rows)

    def _write(self, songs, rows):
        """Writes a part, whole or not at all, and tells how many rows have an error."""
        table = pd.DataFrame(
            [flat_row(row, self.model) for row in rows],
            columns=columns(self.top, self.timeline),
        )
        digest = hashlib.sha256("\n".join(songs).encode(errors="surrogateescape"))
        name = f"part-{digest.hexdigest()[:16]}.parquet"
        system, folder = _file_system(self.folder)
        with tempfile.TemporaryDirectory() as scratch:
            table.to_parquet(f"{scratch}/{name}", index=False)
            system.put_file(f"{scratch}/{name}", f"{folder}/.{name}")
        system.mv(f"{folder}/.{name}", f"{folder}/{name}")
        return int(table["error"].notna().sum())


def _load(source, voting, options):
    """The classifier, with another voting if one is given."""
    from ms_sincresnet import GenreClassifier

    classifier = GenreClassifier.from_pretrained(source, **options)
    if voting is not None:
        classifier.hparams.voting = voting
    return classifier


def _local_copy(song, folder, lost):
    """A song's path on this machine; why there is none is noted in ``lost``."""
    if "://" not in song:
        return song
    suffix = os.path.splitext(song)[1]
    handle, copy = tempfile.mkstemp(suffix, dir=folder)
    os.close(handle)
    try:
        system, path = _file_system(song)
        system.get_file(path, copy)
    except Exception as error:  # each file system has its own
        lost[song] = AudioFileError(
            f"cannot be fetched ({type(error).__name__}: {error})"
        )
    return copy


def _songs_done(folder, model, names):
    """The songs of the parts that are there already."""
    system, path = _file_system(folder)
    songs = set()
    for part in sorted(system.glob(f"{path}/part-*.parquet")):
        with system.open(part, "rb") as file:
            table = pd.read_parquet(file)
        if list(table.columns) != names or set(table["model"]) != {model}:
            raise UserError(
                f"{part}: of another model, voting, top or timeline than this run; "
                "name another folder"
            )
        songs.update(table["file"])
    return songs


def _file_system(address):
    """The file system of an address, and the path in it."""
    try:
        return fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise UserError(f"{address}: no such file system ({error})") from error


def _import_ray():
    """Ray, or how to get it."""
    try:
        import pyarrow  # noqa: F401, what pandas writes parquet with
        import ray
    except ImportError as error:
        raise UserError(
            "Ray is not installed; get it with pip install 'ms_sincresnet[ray]'"
        ) from error
    return ray
