"""Whole catalogues: which files are songs, what each is taken for, and a row of it."""

import codecs
import hashlib
import json
import logging
import os
import re
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ms_sincresnet.data.audio import AUDIO_SUFFIXES, FOREIGN_SUFFIXES, read_blocks
from ms_sincresnet.errors import AudioFileError, UserError
from ms_sincresnet.files import as_utf8

logger = logging.getLogger(__name__)

_CHUNK_S = 30  # what a thread decodes before it turns to another file


def find_songs(paths):
    """Finds songs: files as they are named, and the audio files in folders.

    Arguments
    ---------
    paths : iterable of str or pathlib.Path
        A file is taken whatever its name, also one that is not there, so that it gets
        its error in its turn. A folder stands for the files in it and in the folders
        below whose suffix is one of audio, but for hidden ones.

    Returns
    -------
    list of str
        Paths, as they were named; folders in natural order, in which "9" comes before
        "10", the files of a folder before the folders in it. None is there twice,
        whatever links lead to its folder.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("10.wav", "9.MP3", "cover.jpg", ".hidden.wav"):
    ...     (folder / name).touch()
    >>> [os.path.basename(song) for song in find_songs([folder])]
    ['9.MP3', '10.wav']
    """
    songs, real = {}, cache(os.path.realpath)
    for path in map(os.fspath, paths):
        found = [path]
        if os.path.isdir(path):
            found = list(_songs_in(path))
            if not found:
                logger.warning("%s: no audio found in this folder", path)
        for song in found:
            folder, name = os.path.split(song)
            songs.setdefault(os.path.join(real(folder or "."), name), song)
    return list(songs.values())


def _songs_in(folder):
    """Yields the songs in a folder and those below; links may make a loop of them."""
    folders, seen = [folder], set()
    while folders:
        folder = folders.pop()
        try:
            state = os.stat(folder)
            names = sorted(os.listdir(folder), key=_natural)
        except OSError as error:
            reason = error.strerror
            logger.warning("%s: this folder cannot be read (%s)", folder, reason)
            continue
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        paths = [os.path.join(folder, name) for name in names if name[0] != "."]
        below = dict.fromkeys(path for path in paths if os.path.isdir(path))
        yield from (path for path in paths if is_audio(path) and path not in below)
        folders += reversed(below)


def _natural(name):
    """A key to sort names by: numbers by their value, letters whatever their case."""
    parts = re.split("([0-9]+)", name.casefold())
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def is_audio(path):
    """Whether a file's name is one of audio, and not a hidden one.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    bool
        Whether it is.

    Example
    -------
    >>> [name for name in ("a.wav", "B.MP3", "._a.wav", "a.txt") if is_audio(name)]
    ['a.wav', 'B.MP3']
    """
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    return suffix in AUDIO_SUFFIXES | FOREIGN_SUFFIXES and not name.startswith(".")


def read_list(path):
    """Reads a list of paths, one a line.

    Arguments
    ---------
    path : str or pathlib.Path
        A text file; "-" is the standard input.

    Returns
    -------
    list of str
        The paths. Empty lines are left out.

    Raises
    ------
    UserError
        If it cannot be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "songs.txt"
    >>> _ = path.write_text("a.wav\\n\\nmore songs\\n")
    >>> read_list(path)
    ['a.wav', 'more songs']
    """
    try:
        text = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    lines = text.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").split(b"\n")
    return [os.fsdecode(line) for line in lines if line]


def classify_songs(classifier, files, *, jobs=2):
    """Names the genres of files, whose clips share batches, while others are decoded.

    No more of a file is held than a minute, and no more files than ``jobs`` and one, so
    the memory needed grows neither with the files nor with their number.

    Arguments
    ---------
    classifier : GenreClassifier
        The model.
    files : iterable of str or pathlib.Path
        Audio files.
    jobs : int
        Threads that decode.

    Yields
    ------
    file : str or pathlib.Path
        The file, in the order of ``files``.
    prediction : SongPrediction or AudioFileError
        What it was taken for, or why it cannot be used.

    Example
    -------
    >>> from ms_sincresnet import GenreClassifier, MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> classifier = GenreClassifier.from_hparams(folder)
    >>> ((_, error),) = classify_songs(classifier, ["nowhere.wav"])
    >>> error
    AudioFileError('nowhere.wav: no such file. Check the path.')
    """
    rate = classifier.hparams.sample_rate
    with ThreadPoolExecutor(jobs) as pool:
        yield from classifier.predict_songs(_decode_ahead(pool, files, rate, jobs))


def _decode_ahead(pool, files, rate, jobs):
    """Yields files and their blocks, ``jobs`` files later than decoding starts."""
    waiting = deque()
    for file in files:
        chunks = _chunks(file, rate)
        first = pool.submit(next, chunks, None)
        waiting.append((file, _blocks(pool, chunks, first)))
        if len(waiting) > jobs:
            yield waiting.popleft()
    yield from waiting


def _blocks(pool, chunks, future):
    """Yields a file's chunks, of which the next is decoded meanwhile."""
    while (chunk := future.result()) is not None:
        future = pool.submit(next, chunks, None)
        yield torch.from_numpy(chunk)


def _chunks(file, rate):
    """Yields a file's samples, some seconds at a time."""
    blocks, n_samples = [], 0
    try:
        for block in read_blocks(file, rate):
            blocks.append(block)
            n_samples += len(block)
            if n_samples >= _CHUNK_S * rate:
                yield np.concatenate(blocks)
                blocks, n_samples = [], 0
    except UserError:
        raise
    except Exception as error:  # of a catalogue, one file must not stop the rest
        raise AudioFileError(
            f"{file}: cannot be decoded ({type(error).__name__}: {error}). Replace it, "
            "or leave it out."
        ) from error
    if blocks:
        yield np.concatenate(blocks)


def song_row(file, prediction, top=3, timeline=False):
    """What a song was taken for, as a row of a table that json can hold.

    Arguments
    ---------
    file : str or pathlib.Path
        The file.
    prediction : SongPrediction or UserError
        What ``classify_songs`` yields for it.
    top : int
        How many genres are told, by their shares of the votes and then by their
        posteriors; the first is the genre voted for.
    timeline : bool
        Whether the clips are told.

    Returns
    -------
    dict
        "file", in UTF-8; "genre", None if there is an error; "duration" in s; "clips"
        that voted, as silent ones do not; "top", a list of "genre", "share" and
        "posterior"; "error", None if there is none; and "timeline", a list of
        "start_s", "end_s", "genre" and "posterior".

    Example
    -------
    >>> row = song_row("song.wav", AudioFileError("song.wav: silent throughout"))
    >>> row["genre"], row["error"]
    (None, 'silent throughout')
    """
    row = {
        "file": as_utf8(os.fspath(file)),
        "genre": None,
        "duration": None,
        "clips": 0,
        "top": [],
        "error": None,
    }
    if isinstance(prediction, UserError):
        told = str(prediction).removeprefix(f"{file}: ").removeprefix(f"{Path(file)}: ")
        return row | {"error": as_utf8(told)} | ({"timeline": []} if timeline else {})
    genre, shares, posteriors, clips, duration = prediction
    ranking = sorted(
        shares,
        key=lambda name: (name == genre, shares[name], posteriors[name]),
        reverse=True,
    )
    row["genre"] = genre
    row["duration"] = round(duration, 3)
    row["clips"] = sum(clip.genre is not None for clip in clips)
    row["top"] = [
        {
            "genre": name,
            "share": round(shares[name], 6),
            "posterior": round(posteriors[name], 6),
        }
        for name in ranking[:top]
    ]
    if timeline:
        row["timeline"] = [
            {
                "start_s": round(clip.start_s, 3),
                "end_s": round(clip.end_s, 3),
                "genre": clip.genre,
                "posterior": round(clip.posterior, 6),
            }
            for clip in clips
        ]
    return row


def model_identity(classifier):
    """Names a model and its voting, so that results of two models are not mixed.

    Arguments
    ---------
    classifier : GenreClassifier
        The model.

    Returns
    -------
    str
        The first 12 digits of a SHA-256 of weights, genres and clips, and the voting.

    Example
    -------
    >>> from ms_sincresnet import GenreClassifier, MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> identity = model_identity(GenreClassifier.from_hparams(folder))
    >>> re.fullmatch("[0-9a-f]{12}-majority", identity)[0] == identity
    True
    """
    hparams = classifier.hparams
    traits = [hparams.sample_rate, hparams.clip_samples, hparams.hop_samples]
    traits.append(sorted(hparams.label_encoder.ind2lab.items()))
    digest = hashlib.sha256(json.dumps(traits).encode())
    for name, tensor in classifier.mods.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return f"{digest.hexdigest()[:12]}-{hparams.voting}"
