"""Going on with a run only on the data that it began with."""

import hashlib
from pathlib import Path

from ms_sincresnet.errors import HparamError


def refuse_other_split(save_folder, manifest_folder):
    """Raises if the folder's checkpoints were trained on another split.

    A model that goes on after a change of fold has seen tracks of the new test part.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Folder of the checkpoints; at its first use the split is noted there.
    manifest_folder : str or pathlib.Path
        Holds ``train.csv``, ``valid.csv`` and ``test.csv``.

    Raises
    ------
    HparamError
        If the manifests are not those of the first use.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for part in ("train", "valid", "test"):
    ...     _ = (folder / f"{part}.csv").write_text("ID,duration,wav,genre\\n")
    >>> refuse_other_split(folder / "save", folder)
    """
    digest = hashlib.sha256()
    for part in ("train", "valid", "test"):
        digest.update((Path(manifest_folder) / f"{part}.csv").read_bytes())
    note = Path(save_folder) / "split.sha256"
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(digest.hexdigest())
    elif note.read_text() != digest.hexdigest():
        raise HparamError(
            f"{save_folder} holds a run on another split of the data (fold, seed or "
            "tracks differ): going on with it would train on test tracks. Give another "
            "output_folder, or delete this one"
        )
