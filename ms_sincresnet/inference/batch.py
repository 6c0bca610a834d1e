"""Many songs: files found and listed, classified in shared batches, and made rows."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ms_sincresnet.data.audio import read_blocks, walk_audio
from ms_sincresnet.data.playlists import is_playlist, read_list
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.files import as_utf8, file_state
from ms_sincresnet.inference.predictions import SongPrediction

if TYPE_CHECKING:  # SpeechBrain takes seconds to load
    from ms_sincresnet.inference.classifier import GenreClassifier

logger = logging.getLogger(__name__)

Song = str | Path
Outcome = SongPrediction | UserError
Facts = dict[str, Any]

NO_SONGS = "no audio found; name songs, or folders with songs: wav, flac, mp3 …"
_CHUNK_S = 30  # decoded by a thread before it turns to another file


def find_songs(paths: Iterable[Song]) -> list[str]:
    """Songs among files, even missing ones, and in playlists and folders; none twice.

    Paths stay in the order given; within a folder they are in natural order ("9" before
    "10"), its files before its subfolders. Hidden files and folders are skipped.
    """
    songs: dict[str, str] = {}
    real = cache(os.path.realpath)
    for path in map(str, paths):
        if is_playlist(path) and os.path.isfile(path):
            listed = read_list(path)
            found = find_songs(each for each in listed if not is_playlist(each))
        else:
            found = [*walk_audio(path)] if os.path.isdir(path) else [path]
        if not found:
            kind = "folder" if os.path.isdir(path) else "playlist"
            logger.warning("%s: no audio found in this %s", path, kind)
        for song in found:
            folder, name = os.path.split(song)
            songs.setdefault(os.path.join(real(folder or "."), name), song)
    return list(songs.values())


def classify_songs(
    classifier: GenreClassifier,
    files: Iterable[Song],
    *,
    jobs: int = 2,
    facts: dict[Song, Facts] | None = None,
    embeds: bool = False,
) -> Iterator[tuple[Song, Any]]:
    """Files, in order, with their predictions, or with the errors that prevent them.

    "-" is the standard input. ``facts`` get what rows report of each file. Embeddings
    take the place of predictions if ``embeds``.

    Files share batches, and ``jobs`` threads decode the next ones meanwhile; a minute
    of ``jobs + 1`` files is in memory.
    """
    rate, facts = classifier.hparams.sample_rate, {} if facts is None else facts
    run = classifier.embed_songs if embeds else classifier.predict_songs
    with ThreadPoolExecutor(jobs) as pool:
        yield from run(_decode_ahead(pool, files, rate, jobs, facts))


def _decode_ahead(
    pool: ThreadPoolExecutor,
    files: Iterable[Song],
    rate: int,
    jobs: int,
    facts: dict[Song, Facts],
) -> Iterator[tuple[Song, Iterator[torch.Tensor]]]:
    """Files with their blocks, ``jobs`` files after their decoding was started."""
    waiting: deque = deque()
    for file in files:
        facts[file] = file_state(file) | {"warning": None}
        chunks = _chunks(file, rate, facts[file])
        submit = partial(pool.submit, next, chunks, None)
        waiting.append((file, _blocks(submit, submit())))
        if len(waiting) > jobs:
            yield waiting.popleft()
    yield from waiting


def _blocks(submit: Callable[[], Future], future: Future) -> Iterator[torch.Tensor]:
    """Chunks of a file as tensors, each yielded while the next is decoded."""
    while (chunk := future.result()) is not None:
        future = submit()
        yield torch.from_numpy(chunk)


def _chunks(file: Song, rate: int, facts: Facts) -> Iterator[np.ndarray]:
    """Samples of a file, some seconds at a time."""

    def warn(message: str) -> None:
        message = message.removeprefix(f"{Path(path)}: ")
        logger.warning("%s: %s", file, message)
        facts["warning"] = as_utf8(message)

    blocks: list[np.ndarray] = []
    path = file
    try:
        with ExitStack() as stack:
            if file == "-":  # into a file, since some formats are not read in one pass
                copy = stack.enter_context(tempfile.NamedTemporaryFile())
                shutil.copyfileobj(sys.stdin.buffer, copy)
                copy.flush()
                path = copy.name
            for block in read_blocks(path, rate, warn):
                blocks.append(block)
                if sum(map(len, blocks)) >= _CHUNK_S * rate:
                    yield np.concatenate(blocks)
                    blocks = []
    except UserError as error:
        if path == file:
            raise
        raise type(error)(str(error).replace(str(path), str(file))) from error
    except Exception as error:  # one file must not stop the rest
        reason = f"cannot be decoded ({type(error).__name__}: {error})"
        raise AudioFileError(f"{file}: {reason}; leave it out") from error
    if blocks:
        yield np.concatenate(blocks)


def song_row(
    file: Song,
    prediction: Outcome,
    top: int = 3,
    timeline: bool = False,
    facts: Facts | None = None,
    min_posterior: float = 0.0,
) -> dict[str, Any]:
    """A prediction as a row of results, in types that JSON has.

    It has the best ``top`` genres, the ``facts`` of ``classify_songs`` and, if
    ``timeline``, the predictions of the clips. "clips" is the number that voted. Below
    ``min_posterior`` the song is "unsure" and has no genre.
    """
    unknown = dict.fromkeys(("size", "modified", "warning", "unsure", "unlike"))
    facts = {**unknown, **(facts or {})}
    row: dict[str, Any] = {"file": as_utf8(os.fspath(file))}
    if isinstance(prediction, UserError):
        reason = str(prediction).removeprefix(f"{file}: ")
        reason = as_utf8(reason.removeprefix(f"{Path(file)}: "))
        row |= {"genre": None, "duration": None, "clips": 0, "top": [], "error": reason}
        row |= facts
        return row | {"timeline": []} if timeline else row
    genre, shares, posteriors, clips, duration, unlike = prediction
    ranking = [(name == genre, shares[name], posteriors[name], name) for name in shares]
    ranking.sort(key=itemgetter(0, 1, 2), reverse=True)
    unsure = round(posteriors[genre], 6) < min_posterior
    facts["unsure"] = unsure
    facts["unlike"] = None if unlike is None else round(unlike, 3)
    row |= {
        "genre": None if unsure else genre,
        "duration": round(duration, 3),
        "clips": sum(clip.genre is not None for clip in clips),
        "top": [
            {"genre": name, "share": round(share, 6), "posterior": round(posterior, 6)}
            for _, share, posterior, name in ranking[:top]
        ],
        "error": None,
        **facts,
    }
    if timeline:
        names, rows = ("start_s", "end_s", "genre", "posterior"), []
        for start_s, end_s, best, posterior, _ in clips:
            values = round(start_s, 3), round(end_s, 3), best, round(posterior, 6)
            rows.append(dict(zip(names, values, strict=True)))
        row["timeline"] = rows
    return row


def model_identity(classifier: GenreClassifier) -> str:
    """12 digits of a hash of all in a model that its results depend on; its voting."""
    hparams = classifier.hparams
    traits = [classifier.precision, classifier.temperature]
    traits += [getattr(hparams, "usual_norm", None)]
    for each in getattr(hparams, "fused", [hparams]):
        names = ("sample_rate", "clip_samples", "hop_samples", "full_scale")
        traits += [float(getattr(each, name)) for name in names]
        traits += [type(each.model).__name__, each.model.config | {"backend": None}]
        traits += [each.label_encoder.ind2lab]
    digest = hashlib.sha256(json.dumps(traits, sort_keys=True).encode())
    for name, tensor in classifier.mods.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return f"{digest.hexdigest()[:12]}-{hparams.voting}"
