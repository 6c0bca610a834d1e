"""Manifests for GTZAN: ten genres, 100 tracks of 30 s each.

G. Tzanetakis, P. Cook, "Musical genre classification of audio signals", IEEE
Transactions on Speech and Audio Processing 10(5), 2002.

Any data set that has a folder of tracks for each genre can be prepared with it.
"""

import logging
from functools import partial
from pathlib import Path

import pandas as pd

from ms_sincresnet.data.folds import split_fold
from ms_sincresnet.data.prepare import (
    PARTS,
    audio_files,
    find_tracks,
    genre_folders,
    prepare_manifests,
)
from ms_sincresnet.errors import DataFolderError, HparamError

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
PROTOCOLS = ("random", "filtered")
LISTS_FOLDER = Path(__file__).parent / "filtered"

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
    protocol="random",
    fold=0,
    n_folds=10,
    valid_fraction=0.1,
    seed=1234,
    n_jobs=None,
):
    """Writes ``train.csv``, ``valid.csv`` and ``test.csv`` for one split of GTZAN.

    Genre folders are looked for in ``Data/genres_original``, ``genres_original``,
    ``genres`` and in the data folder itself. Tracks are decoded once, to 16 kHz mono.
    Those that cannot be decoded (``jazz.00054.wav`` in the common copies) are left out,
    named in a warning and in ``report.json``.

    The protocol decides what is tested:

    - "random" deals all tracks into stratified folds. Tracks of identical audio, of
      which GTZAN has 14 pairs, stay on one side of the split; the report names them.
    - "filtered" is the one split of C. Kereliuk, B. L. Sturm, J. Larsen, "Deep Learning
      and Music Adversaries", IEEE Transactions on Multimedia 17(11), 2015: 443 tracks
      to train, 197 to validate, 290 to test, without GTZAN's repeated and distorted
      tracks, and no artist in two parts. All other tracks are passed over.

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
    protocol : str
        "random" or "filtered". The latter leaves no choice: ``n_folds``,
        ``valid_fraction`` and ``seed`` change nothing.
    fold : int
        The fold to test, from 0 to ``n_folds - 1``. 0 for "filtered".
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
        If there is no data, if a genre has no track that can be used, or if "filtered"
        lacks a whole part or all training tracks of a genre.
    HparamError
        If ``protocol``, ``fold``, ``n_folds`` or ``valid_fraction`` cannot be used.

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
    _check_protocol(protocol, fold)
    root = find_genres(data_folder)
    tracks = find_tracks(root)
    _warn_of_other_genres(tracks, root)
    options = {"data_folder": str(Path(data_folder).absolute()), "protocol": protocol}
    if protocol == "filtered":
        genres = set(tracks.genre) & set(GENRES)
        tracks = _find_listed(tracks, root)
        assign_parts = partial(_assign_listed, genres=genres, root=root)
    else:
        split = {
            "fold": fold,
            "n_folds": n_folds,
            "valid_fraction": valid_fraction,
            "seed": seed,
        }
        options |= split

        def assign_parts(tracks):
            """Splits tracks; identical ones go together once their audio is known."""
            return split_fold(tracks.genre, groups=tracks.get("sha256"), **split)

    report = prepare_manifests(
        tracks,
        manifest_folder,
        cache_folder,
        assign_parts=assign_parts,
        options=options,
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


def filtered_parts():
    """Part of each track of the filtered split.

    Returns
    -------
    parts : dict
        "train", "valid" or "test" by ID, in order of the lists.

    Example
    -------
    >>> parts = filtered_parts()
    >>> len(parts), parts["blues.00012"]
    (930, 'test')
    """
    return {
        track_id: part
        for part in PARTS
        for track_id in (LISTS_FOLDER / f"{part}.txt").read_text().split()
    }


def _check_protocol(protocol, fold):
    """Raises if there is no such protocol, or if a fold is asked of a fixed split."""
    if protocol not in PROTOCOLS:
        raise HparamError(
            f"protocol: expected one of {', '.join(PROTOCOLS)}; got {protocol!r}"
        )
    if protocol == "filtered" and fold != 0:
        raise HparamError(
            "fold: the protocol 'filtered' is one split without folds, so expected 0; "
            f"got {fold!r}. Leave fold out, or set protocol to random."
        )


def _find_listed(tracks, root):
    """The tracks that the filtered split uses; says how many are not there."""
    parts = pd.Series(filtered_parts())
    listed = tracks[tracks.ID.isin(parts.index)].reset_index(drop=True)
    if listed.empty:
        raise DataFolderError(
            f"{root}: the protocol 'filtered' needs files with GTZAN's own names, such "
            f"as blues/blues.00029.wav; found none, but {tracks.path.iloc[0]}. Rename "
            "the files, or set protocol to random."
        )
    logger.info(
        "%s: %d tracks are not of the filtered split and are passed over",
        root,
        len(tracks) - len(listed),
    )
    found = parts[listed.ID].value_counts()
    if len(listed) < len(parts):
        logger.warning(
            "%s: of the filtered split found %s; the first that is missing: %s",
            root,
            ", ".join(
                f"{found.get(part, 0)} of {size} {part}"
                for part, size in parts.value_counts(sort=False).items()
            ),
            parts.index.difference(listed.ID)[0],
        )
    return listed


def _assign_listed(tracks, genres, root):
    """Parts of the filtered split; raises if a part has no track, or train no genre."""
    parts = tracks.ID.map(filtered_parts())
    lacking = [part for part in ("valid", "test") if part not in parts.values]
    trained = set(tracks.genre[parts == "train"])
    lacking += [f"{genre} in train" for genre in sorted(genres - trained)]
    if lacking:
        raise DataFolderError(
            f"{root}: the protocol 'filtered' needs tracks in valid and test, and of "
            f"each genre in train; found none that can be used for {', '.join(lacking)}"
            ". Give the whole of GTZAN, or set protocol to random."
        )
    return parts


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
