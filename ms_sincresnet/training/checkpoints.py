"""Going on with a run: from whole checkpoints, on the data that it began with."""

import hashlib
import shutil
from pathlib import Path

from speechbrain.utils.checkpoints import CKPT_PREFIX, METAFNAME, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from ms_sincresnet.errors import HparamError

UNFINISHED = "unfinished.yaml"


class WholeCheckpointer(Checkpointer):
    """A ``Checkpointer`` whose checkpoints count only once they are complete.

    SpeechBrain writes a checkpoint's meta file, by which it is recognised, before
    all others; a run that is killed while it saves can then not go on. Here the meta
    file gets its name last.

    Example
    -------
    >>> import tempfile
    >>> import torch
    >>> folder = tempfile.mkdtemp()
    >>> checkpointer = WholeCheckpointer(folder, {"model": torch.nn.Linear(2, 2)})
    >>> _ = checkpointer.save_checkpoint()
    >>> len(checkpointer.list_checkpoints())
    1
    """

    def save_checkpoint(self, *args, **kwargs):
        """Saves a checkpoint.

        Arguments
        ---------
        *args, **kwargs
            As those of ``Checkpointer``.

        Returns
        -------
        speechbrain.utils.checkpoints.Checkpoint
            The checkpoint; None in all processes but the main one.
        """
        checkpoint = super().save_checkpoint(*args, **kwargs)
        if checkpoint is not None:
            (checkpoint.path / UNFINISHED).rename(checkpoint.path / METAFNAME)
        ddp_barrier()  # each process chooses what to delete: all must see this one
        return checkpoint

    def recover_if_possible(self, *args, **kwargs):
        """Loads a checkpoint, and removes what a killed run left unfinished.

        Arguments
        ---------
        *args, **kwargs
            As those of ``Checkpointer``.

        Returns
        -------
        speechbrain.utils.checkpoints.Checkpoint
            The checkpoint; None if there is none.
        """
        if if_main_process():
            for folder in self.checkpoints_dir.glob(f"{CKPT_PREFIX}+*"):
                if not (folder / METAFNAME).exists():
                    shutil.rmtree(folder)
        return super().recover_if_possible(*args, **kwargs)

    def _save_checkpoint_metafile(self, fpath, *args, **kwargs):
        """Writes the meta file under the name of an unfinished one."""
        return super()._save_checkpoint_metafile(
            fpath.with_name(UNFINISHED), *args, **kwargs
        )


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
            f"{save_folder} holds a run on another split of the data (protocol, fold, "
            "seed or tracks differ): going on with it would train on test tracks. Give "
            "another output_folder, or delete this one"
        )
