"""Manifests to the data sets of training, validation and test."""

from pathlib import Path

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder

from ms_sincresnet.data.audio import read_song
from ms_sincresnet.data.clips import RandomClipDataset
from ms_sincresnet.errors import HparamError


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

    def manifest(part):
        return {
            "csv_path": str(Path(manifest_folder) / f"{part}.csv"),
            "replacements": {"data_root": str(cache_folder)},
        }

    datasets = {
        "train": RandomClipDataset.from_csv(
            **manifest("train"),
            clip_samples=clip_samples,
            seed=seed,
            cache=cache,
            dynamic_items=[genre_encoded],
            output_keys=["id", "clip", "genre_encoded"],
        )
    }
    for part in ("valid", "test"):
        datasets[part] = DynamicItemDataset.from_csv(
            **manifest(part),
            dynamic_items=[song, genre_encoded],
            output_keys=["id", "song", "genre_encoded"],
        )
    genres = sorted({row["genre"] for row in datasets["train"].data.values()})
    if len(genres) != n_genres:
        raise HparamError(
            f"n_genres is {n_genres}, but the data has {len(genres)} genres: "
            f"{', '.join(genres)}; give --n_genres={len(genres)}"
        )
    label_encoder.update_from_iterable(genres)
    label_encoder.expect_len(n_genres)
    return datasets, label_encoder
