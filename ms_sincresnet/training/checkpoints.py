"""Checkpoints that are complete, of a run on an unchanged split."""

import hashlib
import logging
from datetime import datetime
from pathlib import Path

from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, Checkpointer
from speechbrain.utils.distributed import ddp_barrier

from ms_sincresnet.errors import HparamError

logger = logging.getLogger(__name__)

UNFINISHED = "unfinished"


class WholeCheckpointer(Checkpointer):
    """A ``Checkpointer`` whose checkpoints count only once they are complete.

    SpeechBrain recognises a checkpoint by its meta file, and writes that first: a run
    that was killed while saving cannot resume. Here a checkpoint gets its name last.

    Example
    -------
    >>> import torch
    >>> folder = getfixture("tmp_path")
    >>> checkpointer = WholeCheckpointer(folder, {"model": torch.nn.Linear(2, 2)})
    >>> _ = checkpointer.save_checkpoint()
    >>> len(checkpointer.list_checkpoints())
    1
    """

    def save_checkpoint(
        self,
        meta: dict = {},  # noqa: B006 (SpeechBrain's signature)
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Saves a checkpoint; returns it in the main process only."""
        saved = super().save_checkpoint(meta, end_of_epoch, UNFINISHED, logging.DEBUG)
        if saved is not None:
            name = name or datetime.now().strftime("%Y-%m-%d+%H-%M-%S.%f")
            folder = saved.path.rename(saved.path.with_name(f"{CKPT_PREFIX}+{name}"))
            files = {key: folder / path.name for key, path in saved.paramfiles.items()}
            saved = Checkpoint(folder, saved.meta, files)
            logger.log(verbosity, "Saved a checkpoint in %s", folder)
        ddp_barrier()  # each process chooses what to delete: all must see this one
        return saved

    def list_checkpoints(self) -> list[Checkpoint]:
        """The complete checkpoints."""
        unfinished = f"{CKPT_PREFIX}+{UNFINISHED}"
        return [c for c in super().list_checkpoints() if c.path.name != unfinished]


def refuse_other_split(save_folder: str | Path, manifest_folder: str | Path) -> None:
    """Raises if a folder's checkpoints were trained on another split.

    Arguments
    ---------
    save_folder
        Folder of the checkpoints; the first call notes the split there.
    manifest_folder
        Holds ``train.csv``, ``valid.csv`` and ``test.csv``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
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
            f"{save_folder}: a run on another split (other protocol, fold, split_seed "
            "or tracks) would resume, and could train on test tracks; give another "
            "output_folder"
        )
