"""Manifests for GTZAN: ten genres, 100 tracks of 30 s each.

G. Tzanetakis, P. Cook, "Musical genre classification of audio signals", IEEE
Transactions on Speech and Audio Processing 10(5), 2002.

Any data set that has a folder of tracks for each genre can be prepared with it.
"""

import logging
from pathlib import Path

import pandas as pd
from numpy.typing import ArrayLike

from ms_sincresnet.data.folds import split_fold
from ms_sincresnet.data.prepare import audio_files, find_tracks, prepare_manifests
from ms_sincresnet.errors import DataFolderError, HparamError

logger = logging.getLogger(__name__)

GENRES = frozenset(("blues", "classical", "country", "disco", "hiphop", "jazz"))
GENRES |= {"metal", "pop", "reggae", "rock"}
LAYOUTS = ("Data/genres_original", "genres_original", "genres", ".")
KNOWN_BAD = "jazz.00054"
PROTOCOLS = ("random", "filtered", "all")
LISTS_FOLDER = Path(__file__).parent / "filtered"

HOW_TO_GET = """\
GTZAN's original site is gone. Its tracks are available from
  - the Hugging Face Hub: marsyas/gtzan (the archive genres.tar.gz), or its parquet
    mirrors such as confit/gtzan (write each row's audio to genres/<genre>/<name>.wav);
  - Kaggle: andradaolteanu/gtzan-dataset-music-genre-classification;
  - a mini copy of 100 tracks: https://github.com/TempoBeatDownbeat/gtzan_mini
Unpack it, then run
  python train.py hparams/ms_sincresnet.yaml --data_folder=<the unpacked folder>
To try the recipe without it, on synthesised music, run
  python train.py hparams/quickstart.yaml"""


def prepare_gtzan(
    data_folder: str | Path,
    manifest_folder: str | Path,
    cache_folder: str | Path,
    *,
    protocol: str = "random",
    fold: int = 0,
    n_folds: int = 10,
    valid_fraction: float = 0.1,
    split_seed: int = 1234,
    keep_twins: bool = True,
) -> None:
    """Writes ``train.csv``, ``valid.csv`` and ``test.csv`` for one split of GTZAN.

    - "random" deals all tracks into stratified folds.
    - "filtered" is the one split in filtered/README.md: 443 tracks to train, 197 to
      validate, 290 to test. All other tracks are ignored.
    - "all" trains on all tracks: nothing is left to validate or test.

    Arguments
    ---------
    data_folder
        GTZAN in any of its layouts.
    manifest_folder, cache_folder
        Folders of the manifests and ``report.json``, and of the 16 kHz copies.
    protocol
        "random", or "filtered" or "all", which ignore the arguments after ``fold``.
    fold, n_folds, valid_fraction, split_seed
        As in ``split_fold``; ``fold`` is 0 for the other protocols.
    keep_twins
        Re-encoded twins, one recording in two files that differ, stay on one side of a
        split, as identical tracks do. ``report.json`` names them.

    Raises
    ------
    DataFolderError
        If there is no data, or no usable track of a genre or a part.
    HparamError
        If ``protocol``, ``fold``, ``n_folds`` or ``valid_fraction`` is out of range.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> root = getfixture("tmp_path")
    >>> for nth, genre in enumerate(["jazz", "rock"] * 4):
    ...     path = root / "genres" / genre / f"{genre}.{nth:05d}.au"
    ...     path.parent.mkdir(parents=True, exist_ok=True)
    ...     soundfile.write(path, np.random.default_rng(nth).normal(size=80) / 9, 16000)
    >>> folders = root, root / "manifests", root / "cache"
    >>> prepare_gtzan(*folders, n_folds=2, valid_fraction=0.5)
    >>> pd.read_csv(root / "manifests" / "valid.csv").ID.tolist()
    ['jazz.00000', 'rock.00007']
    """
    if protocol not in PROTOCOLS:
        raise HparamError(
            f"protocol: expected one of {', '.join(PROTOCOLS)}; got {protocol!r}"
        )
    if protocol != "random" and fold != 0:
        raise HparamError(
            f"fold: the protocol {protocol!r} is one split, expected 0, got {fold!r}. "
            "Leave fold out, or set protocol to random."
        )
    root = find_gtzan(data_folder)
    tracks = find_tracks(root, GENRES)
    genres = set(tracks.genre)
    if genres & GENRES and genres != GENRES:
        logger.warning(
            f"{root}: expected GTZAN's ten genres; missing: "
            f"{', '.join(sorted(GENRES - genres)) or 'none'}; not GTZAN's: "
            f"{', '.join(sorted(genres - GENRES)) or 'none'}"
        )
    options = {"data_folder": str(Path(data_folder).absolute()), "protocol": protocol}
    if protocol == "filtered":
        tracks = _find_listed(tracks, root)
    elif protocol == "random":
        sizes = {"fold": fold, "n_folds": n_folds, "valid_fraction": valid_fraction}
        options |= {**sizes, "split_seed": split_seed, "keep_twins": keep_twins}

    def assign_parts(tracks: pd.DataFrame) -> ArrayLike:
        """Parts of the tracks; a recording has one once its tracks are decoded."""
        if protocol == "filtered":
            return _assign_listed(tracks, root)
        if protocol == "all":
            return ["train"] * len(tracks)
        groups = tracks.get("recording" if keep_twins else "sha256")
        return split_fold(tracks.genre, **sizes, seed=split_seed, groups=groups)

    split = {"assign_parts": assign_parts, "options": options}
    report = prepare_manifests(tracks, manifest_folder, cache_folder, **split)
    if KNOWN_BAD in [track["ID"] for track in report["left_out"]]:
        logger.info(f"{KNOWN_BAD} does not decode in the common copies of GTZAN")


def find_gtzan(data_folder: str | Path) -> Path:
    """The folder of GTZAN's genre folders, in any layout."""
    for root in (Path(data_folder, layout) for layout in LAYOUTS if data_folder):
        if any(path.parent.parent == root for path in audio_files(root)):
            return root
    raise DataFolderError(
        f"data_folder: expected the folder of GTZAN, unpacked; got {str(data_folder)!r}"
        ". Searched for genre folders with audio files in it, or in genres, "
        f"genres_original or Data/genres_original below it; found none.\n{HOW_TO_GET}"
    )


def filtered_parts() -> dict[str, str]:
    """Part ("train", "valid" or "test") of each track of the filtered split, by ID."""
    names = {part: LISTS_FOLDER / f"{part}.txt" for part in ("train", "valid", "test")}
    return {i: part for part, path in names.items() for i in path.read_text().split()}


def _find_listed(tracks: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Tracks of the filtered split; logs how many are missing and how many unused."""
    parts = pd.Series(filtered_parts())
    listed = tracks[tracks.ID.isin(parts.index)].reset_index(drop=True)
    if listed.empty:
        raise DataFolderError(
            f"{root}: the protocol 'filtered' needs GTZAN's own names, such as "
            f"blues/blues.00029.wav, found {tracks.path.iloc[0]}. Rename the files, or "
            "set protocol to random."
        )
    n_ignored = len(tracks) - len(listed)
    logger.info(f"{root}: {n_ignored} tracks are not in the filtered split: ignored")
    if missing := sorted({*parts.index} - {*listed.ID}):
        found = parts[listed.ID]
        shares = [f"{sum(found == p)} of {sum(parts == p)} {p}" for p in parts.unique()]
        logger.warning(
            f"{root}: of the filtered split found {', '.join(shares)}; the first one "
            f"missing: {missing[0]}"
        )
    return listed


def _assign_listed(tracks: pd.DataFrame, root: Path) -> pd.Series:
    """Parts of the filtered split, none empty and with all ten genres in training."""
    parts = tracks.ID.map(filtered_parts())
    lacking = [part for part in ("valid", "test") if part not in parts.values]
    trained = set(tracks.genre[parts == "train"])
    lacking += [f"{genre} in train" for genre in sorted(GENRES - trained)]
    if lacking:
        raise DataFolderError(
            f"{root}: the protocol 'filtered' found nothing usable for "
            f"{', '.join(lacking)}. Use all of GTZAN, or set protocol to random."
        )
    return parts
