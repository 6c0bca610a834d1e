"""Manifests to the data sets of training, validation and test."""

import csv
import math
from pathlib import Path

from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder

from ms_sincresnet.data.cache import read_song
from ms_sincresnet.data.clips import RandomClipDataset
from ms_sincresnet.errors import DataFolderError, HparamError


def genre_datasets(
    manifest_folder, cache_folder, *, n_genres, clip_samples, seed, cache="disk"
):
    """Data sets of the three parts, and the encoder of their genres.

    Arguments
    ---------
    manifest_folder : str or pathlib.Path
        Holds ``train.csv``, ``valid.csv`` and ``test.csv``.
    cache_folder : str or pathlib.Path
        Holds the cached audio that these name.
    n_genres : int
        Number of genres that the model tells apart.
    clip_samples : int
        Samples of a clip.
    seed : int
        Seed of the clips' positions.
    cache : str
        "disk", or "memory": the training tracks are held in memory, and their clips
        are the same. Songs come from the disk: each is heard once an epoch at most.

    Returns
    -------
    datasets : dict
        "train" gives ``id``, ``clip`` and ``genre_encoded``; "valid" and "test" give
        ``id``, ``song`` and ``genre_encoded``.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Genres in alphabetical order.

    Raises
    ------
    DataFolderError
        If a manifest is missing or damaged.
    HparamError
        If ``cache`` is unknown, or the data has another number of genres.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "1.wav", np.ones(16000) / 2, 16000)
    >>> row = "jazz.1,1.0,$data_root/1.wav,jazz"
    >>> for part in ("train", "valid", "test"):
    ...     _ = (folder / f"{part}.csv").write_text(f"ID,duration,wav,genre\\n{row}\\n")
    >>> datasets, _ = genre_datasets(folder, folder, n_genres=1, clip_samples=8, seed=0)
    >>> datasets["train"][0]["clip"].shape, datasets["test"][0]["song"].shape
    (torch.Size([8]), torch.Size([16000]))
    """
    label_encoder = CategoricalEncoder()

    # No functions of this scope, as workers that are not forked could not get them.
    song = {"func": read_song, "takes": "wav", "provides": "song"}
    genre_encoded = {
        "func": label_encoder.encode_label_torch,
        "takes": "genre",
        "provides": "genre_encoded",
    }

    tracks = {
        part: _read_manifest(Path(manifest_folder) / f"{part}.csv", cache_folder)
        for part in ("train", "valid", "test")
    }
    datasets = {
        "train": RandomClipDataset(
            tracks["train"],
            clip_samples=clip_samples,
            seed=seed,
            cache=cache,
            dynamic_items=[genre_encoded],
            output_keys=["id", "clip", "genre_encoded"],
        )
    }
    for part in ("valid", "test"):
        datasets[part] = DynamicItemDataset(
            tracks[part],
            dynamic_items=[song, genre_encoded],
            output_keys=["id", "song", "genre_encoded"],
        )
    genres = sorted({track["genre"] for track in tracks["train"].values()})
    if len(genres) != n_genres:
        raise HparamError(
            f"n_genres is {n_genres}, but the data has {len(genres)} genres: "
            f"{', '.join(genres)}; give --n_genres={len(genres)}"
        )
    label_encoder.update_from_iterable(genres)
    label_encoder.expect_len(n_genres)
    return datasets, label_encoder


def _read_manifest(path, cache_folder):
    """Tracks of a manifest, by ID, as SpeechBrain reads them."""
    try:
        tracks = load_data_csv(path, {"data_root": cache_folder})
        complete = tracks and all(
            track["wav"] and track["genre"] and 0 < track["duration"] < math.inf
            for track in tracks.values()
        )
    except (csv.Error, LookupError, OSError, TypeError, ValueError) as error:
        raise DataFolderError(
            f"{path}: not readable as a manifest ({error}). Run the preparation again."
        ) from error
    if not complete:
        raise DataFolderError(
            f"{path}: expected tracks with a duration, a path and a genre each. Run "
            "the preparation again."
        )
    return tracks
