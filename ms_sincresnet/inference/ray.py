"""Catalogues too large for one machine: shards of songs on the workers of Ray."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from tqdm import tqdm

from ms_sincresnet.data.audio import is_audio
from ms_sincresnet.errors import AudioFileError, NoAudioError, UserError, needs_extra
from ms_sincresnet.files import as_utf8, file_state
from ms_sincresnet.inference import batch
from ms_sincresnet.inference.embeddings import kind_of
from ms_sincresnet.inference.results import is_current, read_rows, write_table

if TYPE_CHECKING:  # SpeechBrain takes seconds to load
    from ms_sincresnet.inference.classifier import GenreClassifier

logger = logging.getLogger(__name__)

_ATTEMPTS = 2  # workers that a single song may crash
_MOST_FAILED_STARTS = 8


def classify_on_ray(
    load: Callable[[str], GenreClassifier],
    sources: Iterable[str],
    folder: str | os.PathLike,
    *,
    device: str = "cpu",
    address: str | None = None,
    workers: int | None = None,
    shard_size: int = 100,
    top: int = 3,
    timeline: bool = False,
    min_posterior: float = 0.0,
    embeds: bool = False,
) -> tuple[int, int]:
    """Classifies or embeds songs on the machines of a Ray cluster, shard by shard.

    A lost worker is replaced and its shard halved: this isolates a song that crashes
    every worker, and its row reports the error.

    Arguments
    ---------
    load, device
        Loads the classifier on a device, in every worker; on "cuda", each has a GPU.
    sources
        Songs and folders: paths that all machines see, or fsspec's ``s3://bucket/songs``.
    folder
        Path or address of a folder for a parquet file per shard. Songs with a result in
        it are skipped, unless their files have changed since.
    address
        Ray's cluster ("auto", ``ray://host:10001``); None is this machine.
    workers, shard_size
        Number of workers (by default one per processor or GPU); songs per shard.
    top, timeline, min_posterior
        Genres per song, with those over time if asked; the least posterior of a genre.
    embeds
        Write embeddings instead of genres.

    Returns
    -------
    The number of songs done now, and of those with an error.

    Example
    -------
    >>> classify_on_ray(load, ["music/"], "s3://bucket/genres")  # doctest: +SKIP
    (1000, 3)
    """
    with needs_extra("a cluster", "ray"):
        import ray
    folder, songs = os.fspath(folder), find_addresses(sources)
    if not songs:
        raise UserError(batch.NO_SONGS)
    classifier = load("cpu")  # reports errors of the model before any worker starts
    kind = kind_of(classifier, embeds, top, timeline, min_posterior)
    done, write = _songs_done(folder, kind, songs), partial(_write, folder, kind)
    songs = [song for song in songs if as_utf8(song) not in done]
    if done:
        logger.warning("%s: %d songs are done already", folder, len(done))
    if not songs:
        return 0, 0
    shards = [songs[n : n + shard_size] for n in range(0, len(songs), shard_size)]
    _connect(ray, address)
    try:
        on_gpu = device.startswith("cuda")
        actor = ray.remote(num_cpus=1, num_gpus=int(on_gpu))(Worker)
        available = ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1)
        n_workers = min(workers or int(available), len(shards))
        start = partial(actor.remote, partial(load, device), write, embeds)
        return len(songs), _run(ray, start, write, n_workers, shards)
    finally:
        ray.shutdown()


def find_addresses(sources: Iterable[str]) -> list[str]:
    """Songs among files and folders, local ones or those of fsspec's file systems."""
    songs = []
    for source in sources:
        if "://" not in source:
            songs += batch.find_songs([source])
            continue
        system, path = _file_system(source)
        try:
            found = system.find(path) if system.isdir(path) else [path]
        except Exception as error:  # each file system has its own
            reason = f"cannot be read ({type(error).__name__}: {error})"
            raise UserError(f"{source}: {reason}") from error
        if found != [path]:
            found = [each for each in sorted(found) if is_audio(each)]
        songs += map(system.unstrip_protocol, found)
    return list(dict.fromkeys(songs))


def _connect(ray: Any, address: str | None) -> None:
    """Joins a cluster, or makes one of this machine."""
    try:
        if address is not None and ":" in address:  # Ray would try for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        options = {"include_dashboard": False, "log_to_driver": False}
        ray.init(address, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray cannot be reached at {address}: {error}") from error


class Worker:
    """A process that holds the model and classifies shards."""

    def __init__(self, load: Callable, write: Callable, embeds: bool = False) -> None:
        self.classifier, self.write, self.embeds = load(), write, embeds

    def classify(self, shard: list[str]) -> int:
        """Classifies a shard, writes it, and returns the number of errors."""
        if not shard:  # only asks if the model is loaded
            return 0
        outcomes: list = []
        facts: dict = {}
        noted: list = []
        errors: dict[str, AudioFileError] = {}
        with tempfile.TemporaryDirectory() as copies:
            files = (_local_copy(song, copies, errors) for song in shard)
            some = self.classifier, files
            found = batch.classify_songs(*some, facts=facts, embeds=self.embeds)
            for song, (file, outcome) in zip(shard, found, strict=True):
                noted.append(facts.pop(file) | _state(song))
                if file != song:
                    Path(file).unlink(missing_ok=True)
                if isinstance(outcome, UserError):
                    message = str(outcome).replace(str(file), song)
                    outcome = errors.get(song, AudioFileError(message))
                outcomes.append(outcome)
        return self.write(shard, outcomes, noted)


def _run(
    ray: Any, start: Callable, write: Callable, n_workers: int, shards: list[list[str]]
) -> int:
    """Has shards classified, whatever workers are lost, and counts the errors."""
    waiting, n_errors, failed_starts = shards[::-1], 0, 0
    crashes: Counter = Counter()
    running: dict = {}

    def assign(worker: Any, shard: list[str]) -> None:
        running[worker.classify.remote(shard)] = worker, shard

    for _ in range(n_workers):  # none gets songs until there is a machine for it
        assign(start(), [])
    bar = tqdm(total=sum(map(len, shards)), unit="song", disable=None)
    while waiting or any(shard for _, shard in running.values()):
        (future,), _ = ray.wait(list(running))
        worker, shard = running.pop(future)
        try:
            n_errors += ray.get(future)
        except ray.exceptions.RayActorError as error:
            if error.actor_init_failed:
                raise UserError(f"a worker cannot start: {error}") from error
            failed_starts = 0 if shard else failed_starts + 1
            if failed_starts > _MOST_FAILED_STARTS:
                message = "workers were lost while they loaded it; use fewer --workers"
                raise UserError(f"{failed_starts} {message}") from error
            if len(shard) == 1:
                crashes[shard[0]] += 1
            if shard and crashes[shard[0]] == _ATTEMPTS:
                reason = "the worker was lost each time it read this file"
                n_errors += write(shard, [AudioFileError(reason)])
                bar.update()
            else:
                half = len(shard) // 2
                waiting += filter(None, (shard[half:], shard[:half]))
            if waiting:
                assign(start(), [])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        else:
            bar.update(len(shard))
            if waiting:  # otherwise the worker ends, which makes room for another
                assign(worker, waiting.pop())
    bar.close()
    return n_errors


def _write(
    folder: str, kind: Any, shard: list[str], outcomes: list, noted: Iterable = ({},)
) -> int:
    """Writes the part of a shard, and counts its errors."""
    rows = [kind.row(*song) for song in zip(shard, outcomes, noted, strict=True)]
    digest = hashlib.sha256("\n".join(shard).encode(errors="surrogateescape"))
    _write_part(folder, f"part-{digest.hexdigest()[:16]}.parquet", rows, kind)
    failed = [each for each in outcomes if isinstance(each, UserError)]
    return sum(not isinstance(each, NoAudioError) for each in failed)


def _write_part(folder: str, name: str, rows: list, kind: Any) -> None:
    """Writes rows, whole or not at all."""
    system, path = _file_system(folder)
    system.makedirs(path, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_table(rows, f"{scratch}/{name}", "parquet", kind)
        system.put_file(f"{scratch}/{name}", f"{path}/.{name}")
    system.mv(f"{path}/.{name}", f"{path}/{name}")


def _songs_done(folder: str, kind: Any, asked: list[str]) -> set[str]:
    """Songs of the parts that exist, without those asked for that failed or changed."""
    names = {as_utf8(song): song for song in asked}
    system, path = _file_system(folder)
    songs = set[str]()
    for part in sorted(system.glob(f"{path}/part-*.parquet")):
        try:
            with system.open(part, "rb") as file:
                rows = list(read_rows(file, "parquet", kind))
            for row in rows:
                kind.check(row)
        except ValueError as error:
            what = "another model, voting, precision, top, timeline or min_posterior"
            reason = f"has results of {what}; name another folder"
            raise UserError(f"{part}: {reason}") from error
        kept = [
            row
            for row in rows
            if row["file"] not in names or is_current(row, _state(names[row["file"]]))
        ]
        if len(kept) < len(rows):
            _write_part(folder, os.path.basename(part), kept, kind)
        songs.update(row["file"] for row in kept)
    return songs


def _state(song: str) -> dict[str, Any]:
    """Size and time of change of a song, as far as its file system states them."""
    if "://" not in song:
        return file_state(song)
    state: dict[str, Any] = {"size": None, "modified": None}
    with suppress(Exception):  # each file system has its own
        system, path = _file_system(song)
        state["size"] = system.size(path)
        state["modified"] = system.modified(path).isoformat()
    return state


def _local_copy(song: str, folder: str, errors: dict[str, AudioFileError]) -> str:
    """Path of a song on this machine; notes the error of one that is not fetched."""
    if "://" not in song:
        return song
    handle, copy = tempfile.mkstemp(os.path.splitext(song)[1], dir=folder)
    os.close(handle)
    try:
        system, path = _file_system(song)
        system.get_file(path, copy)
    except Exception as error:  # each file system has its own
        reason = f"cannot be fetched ({type(error).__name__}: {error})"
        errors[song] = AudioFileError(reason)
    return copy


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        return fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise UserError(f"{address}: no such file system ({error})") from error
