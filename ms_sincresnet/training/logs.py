"""Training log: a text file, and TensorBoard on request."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.train_logger import FileTrainLogger

from ms_sincresnet.errors import HparamError


class RunLogger(FileTrainLogger):
    """SpeechBrain's text logger, with TensorBoard as well if wanted.

    Arguments
    ---------
    output_folder
        Folder of the run.
    tensorboard
        True to log to TensorBoard as well.

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
            advice = "run `pip install '.[tensorboard]'` in a clone of the repository"
            raise HparamError(f"tensorboard: True needs tensorboard; {advice}")
        events_folder = Path(output_folder) / "tensorboard"
        self.events_folder = events_folder if tensorboard else None
        self.writer: Any = None

    @main_process_only
    def log_stats(
        self, stats_meta: dict[str, Any], verbose: bool = True, **stats: dict
    ) -> None:
        """Logs an epoch or, with "tested epoch" in ``stats_meta``, a test."""
        super().log_stats(stats_meta, verbose=verbose, **stats)
        if not self.events_folder:
            return
        if self.writer is None:  # not earlier: the folder may still be refused
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(self.events_folder)
        # SpeechBrain's logger counts its calls, from 1 again after a resume.
        numbers = {k: v for k, v in stats_meta.items() if not isinstance(v, str)}
        epoch = numbers.pop("epoch", None) or numbers.pop("tested epoch")
        for name, figures in stats.items():
            stage = name.removesuffix("_stats")
            numbers |= {f"{figure}/{stage}": figures[figure] for figure in figures}
        for tag, number in numbers.items():
            self.writer.add_scalar(tag, number, epoch)
        self.writer.flush()  # a kill would lose the rest
