"""Manifests for GTZAN: ten genres, 100 tracks of 30 s each.

G. Tzanetakis, P. Cook, "Musical genre classification of audio signals", IEEE
Transactions on Speech and Audio Processing 10(5), 2002.

Any data set that has a folder of tracks for each genre can be prepared with it.
"""

import logging
from pathlib import Path

from ms_sincresnet.data.folds import split_fold
from ms_sincresnet.data.manifest import (
    audio_files,
    find_tracks,
    genre_folders,
    prepare_manifests,
)
from ms_sincresnet.errors import DataFolderError

logger = logging.getLogger(__name__)

GENRES = (
    "blues",
    "classical",
    "country",
    "disco",
    "hiphop",
    "jazz",
    "metal",
    "pop",
    "reggae",
    "rock",
)
LAYOUTS = ("Data/genres_original", "genres_original", "genres", ".")
KNOWN_BAD = "jazz.00054"

HOW_TO_GET = """\
GTZAN's first home is gone. Today its tracks can be had from
  - the Hugging Face Hub: marsyas/gtzan (the archive genres.tar.gz), or its parquet
    mirrors such as confit/gtzan (write each row's audio to genres/<genre>/<name>.wav);
  - Kaggle: andradaolteanu/gtzan-dataset-music-genre-classification;
  - a mini copy of 100 tracks: https://github.com/TempoBeatDownbeat/gtzan_mini
Unpack it, then type
  python train.py hparams/ms_sincresnet.yaml --data_folder=<the unpacked folder>
To try without it, on synthesised music, type
  python train.py hparams/quickstart.yaml"""


def prepare_gtzan(
    data_folder,
    manifest_folder,
    cache_folder,
    *,
    fold=0,
    n_folds=10,
    valid_fraction=0.1,
    seed=1234,
    n_jobs=None,
):
    """Writes ``train.csv``, ``valid.csv`` and ``test.csv`` for one fold of GTZAN.

    Genre folders are looked for in ``Data/genres_original``, ``genres_original``,
    ``genres`` and in the data folder itself. Tracks are decoded once, to 16 kHz mono.
    Those that cannot be decoded (``jazz.00054.wav`` in the common copies) are left out,
    named in a warning and in ``report.json``. Tracks of identical audio, of which GTZAN
    has 14 pairs, stay on one side of the split; the report names them.

    A second call does nothing. A call with other options, or after a change of the
    data, writes the manifests anew.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where GTZAN lies.
    manifest_folder : str or pathlib.Path
        Where manifests and ``report.json`` go.
    cache_folder : str or pathlib.Path
        Where the 16 kHz copies go: ``$data_root`` in the manifests.
    fold : int
        The fold to test, from 0 to ``n_folds - 1``.
    n_folds : int
        Stratified folds, from 2 up to the size of the smallest genre.
    valid_fraction : float
        Share of the training part that validates instead, between 0 and 1.
    seed : int
        Seed of the folds and of the validation part.
    n_jobs : int, optional
        Threads that decode; as many as there are processors without it.

    Raises
    ------
    DataFolderError
        If there is no data, or if a genre has no track that can be used.
    HparamError
        If ``fold``, ``n_folds`` or ``valid_fraction`` cannot be used.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> root = getfixture("tmp_path")
    >>> for genre in ["jazz", "rock"]:
    ...     (root / "genres" / genre).mkdir(parents=True)
    ...     for track in range(4):
    ...         noise = np.random.default_rng(track).normal(size=22050) / 10
    ...         path = root / "genres" / genre / f"{genre}.{track:05d}.au"
    ...         soundfile.write(path, noise, 22050)
    >>> prepare_gtzan(
    ...     root, root / "manifests", root / "cache", n_folds=2, valid_fraction=0.5
    ... )
    >>> print((root / "manifests" / "valid.csv").read_text())
    ID,duration,wav,genre
    jazz.00001,1.0,$data_root/jazz/jazz.00001.wav,jazz
    rock.00001,1.0,$data_root/rock/rock.00001.wav,rock
    <BLANKLINE>
    """
    root = find_genres(data_folder)
    tracks = find_tracks(root)
    _warn_of_other_genres(tracks, root)
    split = {
        "fold": fold,
        "n_folds": n_folds,
        "valid_fraction": valid_fraction,
        "seed": seed,
    }

    def assign_parts(tracks):
        """Splits tracks; identical ones go together once their audio is known."""
        return split_fold(tracks.genre, groups=tracks.get("sha256"), **split)

    report = prepare_manifests(
        tracks,
        manifest_folder,
        cache_folder,
        assign_parts=assign_parts,
        options={"data_folder": str(Path(data_folder).absolute()), **split},
        n_jobs=n_jobs,
    )
    if KNOWN_BAD in [track["ID"] for track in report["left_out"]]:
        logger.info(
            "%s does not decode in the common copies of GTZAN: nobody trains on it",
            KNOWN_BAD,
        )


def find_genres(data_folder):
    """Finds the folder of the genre folders.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where GTZAN lies, in any of its layouts.

    Returns
    -------
    root : pathlib.Path
        The folder itself or one below it.

    Raises
    ------
    DataFolderError
        If there is none; the message says how to get GTZAN.

    Example
    -------
    >>> data_folder = getfixture("tmp_path")
    >>> (data_folder / "Data" / "genres_original" / "jazz").mkdir(parents=True)
    >>> (data_folder / "Data" / "genres_original" / "jazz" / "jazz.00000.wav").touch()
    >>> find_genres(data_folder).relative_to(data_folder).as_posix()
    'Data/genres_original'
    """
    if not data_folder:
        raise DataFolderError(f"data_folder: expected GTZAN, got none.\n{HOW_TO_GET}")
    data_folder = Path(data_folder)
    if not data_folder.is_dir():
        found = "a file: unpack it" if data_folder.exists() else "no such folder"
        raise DataFolderError(
            f"data_folder: {data_folder}: expected GTZAN, found {found}.\n{HOW_TO_GET}"
        )
    for root in (data_folder / layout for layout in LAYOUTS):
        if root.is_dir() and any(map(audio_files, genre_folders(root))):
            return root
    raise DataFolderError(
        f"data_folder: {data_folder}: expected genre folders with audio files in it, "
        "or in genres, genres_original or Data/genres_original below it; found none.\n"
        f"{HOW_TO_GET}"
    )


def _warn_of_other_genres(tracks, root):
    """Warns if a copy of GTZAN lacks genres or has others."""
    found = set(tracks.genre)
    missing, other = sorted(set(GENRES) - found), sorted(found - set(GENRES))
    if found & set(GENRES) and (missing or other):
        logger.warning(
            "%s: expected GTZAN's ten genres; missing: %s; not GTZAN's: %s",
            root,
            ", ".join(missing) or "none",
            ", ".join(other) or "none",
        )
