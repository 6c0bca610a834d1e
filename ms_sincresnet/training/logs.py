"""Training log: a text file, and TensorBoard on request."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.train_logger import FileTrainLogger, TensorboardLogger

from ms_sincresnet.errors import HparamError


class RunLogger(FileTrainLogger):
    """SpeechBrain's text logger, together with its TensorBoard logger if wanted.

    Arguments
    ---------
    output_folder
        Folder of the run, for ``train_log.txt`` and ``tensorboard``.
    tensorboard
        True to log to TensorBoard as well.

    Raises
    ------
    HparamError
        If TensorBoard is wanted and not installed.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> logger = RunLogger(folder)
    >>> logger.log_stats({"epoch": 1}, train_stats={"loss": 2.25})
    >>> print((folder / "train_log.txt").read_text().strip())
    epoch: 1 - train loss: 2.2500
    """

    def __init__(self, output_folder: str | Path, tensorboard: bool = False):
        super().__init__(str(Path(output_folder) / "train_log.txt"), precision=4)
        if tensorboard and find_spec("tensorboard") is None:
            raise HparamError(
                "tensorboard: True needs the package tensorboard; run "
                "`pip install '.[tensorboard]'` in a clone of the repository"
            )
        self.events_folder = Path(output_folder) / "tensorboard"
        self.with_tensorboard = tensorboard
        self.tensorboard: TensorboardLogger | None = None

    @main_process_only
    def log_stats(
        self, stats_meta: dict[str, Any], verbose: bool = True, **stats: dict
    ) -> None:
        """Logs an epoch or, with "tested epoch" in ``stats_meta``, a test."""
        super().log_stats(stats_meta, verbose=verbose, **stats)
        if not self.with_tensorboard:
            return
        if self.tensorboard is None:  # not earlier: the folder may still be refused
            self.tensorboard = TensorboardLogger(str(self.events_folder))
        numbers = {k: v for k, v in stats_meta.items() if not isinstance(v, str)}
        # SpeechBrain counts its calls, and would start at 1 again after a resume.
        last = numbers.pop("epoch", None) or numbers.pop("tested epoch")
        self.tensorboard.global_step = {"meta": last - 1} | {
            stage: dict.fromkeys(stats.get(f"{stage}_stats") or {}, last - 1)
            for stage in ("train", "valid", "test")
        }
        self.tensorboard.log_stats(numbers, **stats)
        self.tensorboard.writer.flush()  # a kill would lose the rest
