"""Data sets, sampler and loader of random clips, the same ones after a resume.

A clip depends on the seed and one integer alone, for any number of workers:
``index = (epoch * n_passes + nth_pass) * n_tracks + track``.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor, distributed
from torch.utils.data import Sampler

from ms_sincresnet.data.audio import SAMPLE_RATE
from ms_sincresnet.data.cache import TracksInMemory, read_clip, read_song
from ms_sincresnet.data.clips import SILENT_STD, silent
from ms_sincresnet.errors import DataFolderError, HparamError

CACHES = ("disk", "memory")


def genre_datasets(
    manifest_folder: str | Path,
    cache_folder: str | Path,
    *,
    n_genres: int,
    clip_samples: int,
    seed: int,
    cache: str = "disk",
    clip_grid: int = 1,
    teacher: Callable[[str, int], Tensor] | None = None,
) -> tuple[dict[str, DynamicItemDataset], CategoricalEncoder]:
    """Data sets of the three parts, and the encoder of their genres.

    Arguments
    ---------
    manifest_folder, cache_folder
        Folders of the three manifests, and of the 16 kHz copies that they name.
    n_genres
        Number of genres that the model distinguishes.
    clip_samples, seed
        Length of a training clip, in samples, and seed of the clips' positions.
    cache
        "disk", or "memory" to hold the training tracks in memory.
    clip_grid
        Samples between possible starts of a training clip.
    teacher
        Targets of a training clip, by its track and first sample.

    Returns
    -------
    By part that is not empty, a data set of ``id``, ``clip`` (in "train") or ``song``,
    ``genre_encoded`` and, with a teacher, ``teacher``; and the encoder, with the genres
    in alphabetical order.

    Example
    -------
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "1.wav", np.ones(16000) / 2, 16000)
    >>> row = "jazz.1,1.0,$data_root/1.wav,jazz"
    >>> for part in ("train", "valid", "test"):
    ...     _ = (folder / f"{part}.csv").write_text(f"ID,duration,wav,genre\\n{row}\\n")
    >>> datasets, _ = genre_datasets(folder, folder, n_genres=1, clip_samples=8, seed=0)
    >>> datasets["train"][0]["clip"].shape
    torch.Size([8])
    """
    tracks = {
        part: _read_manifest(Path(manifest_folder, f"{part}.csv"), cache_folder)
        for part in ("train", "valid", "test")
    }
    genres = sorted({track["genre"] for track in tracks["train"].values()})
    if len(genres) != n_genres:
        raise HparamError(
            f"n_genres is {n_genres}, but the data has {len(genres)} genres: "
            f"{', '.join(genres)}. Give --n_genres={len(genres)}."
        )
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(genres)
    encoder.expect_len(n_genres)
    options: Any = {"clip_samples": clip_samples, "seed": seed, "cache": cache}
    train = RandomClipDataset(tracks["train"], **options, grid=clip_grid)
    datasets: dict[str, DynamicItemDataset] = {"train": train}
    for part in ("valid", "test"):
        if tracks[part]:  # none with the protocol "all"
            datasets[part] = DynamicItemDataset(tracks[part])
    for part, dataset in datasets.items():
        # No closures: worker processes that are spawned could not unpickle them.
        dataset.add_dynamic_item(read_song, "wav", "song")
        dataset.add_dynamic_item(encoder.encode_label_torch, "genre", "genre_encoded")
        audio = "clip" if part == "train" else "song"
        keys = ["id", audio, "genre_encoded"]
        if part == "train" and teacher is not None:
            dataset.add_dynamic_item(teacher, ["id", "start"], "teacher")
            keys.append("teacher")
        dataset.set_output_keys(keys)
    return datasets, encoder


class RandomClipDataset(DynamicItemDataset):
    """Track ``i % n_tracks`` for any index ``i``, with the random clip of ``i`` alone.

    A silent clip is drawn again, up to ten times, since evaluation drops silent clips.
    """

    def __init__(
        self,
        data: dict[str, dict],
        *,
        clip_samples: int,
        seed: int,
        cache: str,
        grid: int = 1,
    ) -> None:
        if cache not in CACHES:
            raise HparamError(f"cache must be disk or memory; got {cache!r}")
        super().__init__(data)
        self.clip_samples, self.seed, self.cache = clip_samples, seed, cache
        self.grid = grid
        self._read_clip = read_clip
        if cache == "memory":
            paths = [track["wav"] for track in data.values()]
            self._read_clip = TracksInMemory(paths).read_clip
        self.pipeline.add_static_keys(["clip", "start"])
        self.set_output_keys(["id", "clip"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        data_id = self.data_ids[index % len(self)]
        items = {"id": data_id, **self.data[data_id]}
        if "clip" in self.pipeline.output_mapping:
            clip = self._read_random_clip(items["wav"], items["duration"], index)
            items["clip"], items["start"] = clip
        return self.pipeline.compute_outputs(items)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # By default, Python would ask for larger and larger indices, all of them valid.
        return (self[index] for index in range(len(self)))

    def _read_random_clip(
        self, wav: str, duration: float, index: int
    ) -> tuple[Tensor, int]:
        """The clip that belongs to an index, and its first sample."""
        last_start = max(0, round(duration * SAMPLE_RATE) - self.clip_samples)
        generator = np.random.default_rng([self.seed, index])
        for _ in range(10):
            start = self.grid * int(generator.integers(last_start // self.grid + 1))
            clip = self._read_clip(wav, start, self.clip_samples)
            if last_start == 0 or not _is_silent(clip):
                break
        return clip, start


class PassSampler(Sampler):
    """Indices of an epoch: passes over the tracks, each in a fresh random order.

    So the clips of a batch come from as many tracks as possible. Each of n processes
    takes every nth index, so that together they see the steps of a single process.

    Arguments
    ---------
    n_tracks, n_passes
        Number of tracks in the data set, and clips of each per epoch.
    seed
        Seed of the orders.
    batch_size
        Clips per process and step; a last step with fewer than processes is dropped.
    rank, n_processes
        Number of this process, from 0, and of those that share the epoch; by default
        those of ``torchrun``.

    Example
    -------
    >>> sampler = PassSampler(n_tracks=3, n_passes=2, seed=0)
    >>> sampler.set_epoch(1)
    >>> list(sampler)
    [8, 6, 7, 9, 10, 11]
    """

    def __init__(
        self,
        n_tracks: int,
        n_passes: int,
        seed: int,
        *,
        batch_size: int = 1,
        rank: int | None = None,
        n_processes: int = 1,
    ) -> None:
        if rank is None:
            rank, n_processes = rank_and_processes()
        self.n_tracks, self.n_passes = n_tracks, n_passes
        self.seed, self.epoch = seed, 0
        n_clips = n_tracks * n_passes
        in_last_step = n_clips % (batch_size * n_processes)
        if in_last_step < n_processes:
            n_clips -= in_last_step
        self.share = range(rank, n_clips, n_processes)

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[int]:
        indices: list[int] = []
        for nth_pass in range(self.n_passes):
            generator = np.random.default_rng([self.seed, self.epoch, nth_pass])
            first_index = (self.epoch * self.n_passes + nth_pass) * self.n_tracks
            indices += (first_index + generator.permutation(self.n_tracks)).tolist()
        return (indices[place] for place in self.share)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration; SpeechBrain counts from 1."""
        self.epoch = epoch


def rank_and_processes() -> tuple[int, int]:
    """Rank of this process, 0 for the main one, and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def clip_batch(examples: list[dict]) -> PaddedBatch:
    """SpeechBrain's batch of items of equal length; padding would double the time."""
    return PaddedBatch(
        examples, padding_func=lambda x: (torch.stack(x), torch.ones(len(x)))
    )


def _is_silent(clip: Tensor) -> bool:
    """The mask of ``silent`` for one clip, in a tenth of the time if there is sound."""
    n_samples = clip.numel()
    few = clip.numpy()[:: max(1, n_samples // 16)].tolist()
    # Two samples that differ by d alone make a variance of d² / 2n.
    is_loud = (max(few) - min(few)) ** 2 > 2 * n_samples * SILENT_STD**2
    return not is_loud and bool(silent(clip))


def _read_manifest(path: Path, cache_folder: str | Path) -> dict[str, dict]:
    """Tracks of a manifest by ID, as SpeechBrain reads them."""
    try:
        kept = {
            name: f"${name}"
            for name in re.findall(r"\$([\w.]+)", path.read_text("utf-8"))
        }
        tracks = load_data_csv(path, kept | {"data_root": cache_folder})
        complete = (tracks or path.stem != "train") and all(
            track["wav"] and track["genre"] and 0 < track["duration"] < math.inf
            for track in tracks.values()
        )
        if not complete:
            raise ValueError("a track lacks its duration, path or genre")
    except (csv.Error, LookupError, OSError, TypeError, ValueError) as error:
        raise DataFolderError(
            f"{path}: not readable as a manifest ({error}). Run the preparation again."
        ) from error
    return tracks
