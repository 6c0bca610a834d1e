"""GenreBrain: training, validation and test of a model of Table 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.nnet.schedulers import update_learning_rate
from speechbrain.utils.checkpoints import Checkpoint, Checkpointer, ckpt_recency
from speechbrain.utils.distributed import if_main_process, infer_device, run_on_main
from speechbrain.utils.run_opts import RunOptions
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ms_sincresnet.data.dataset import PassSampler, clip_batch, rank_and_processes
from ms_sincresnet.errors import HparamError, UserError
from ms_sincresnet.models import GenreModel
from ms_sincresnet.models.songs import score_songs
from ms_sincresnet.nnet.resnet import ResNetEmbedding
from ms_sincresnet.nnet.sync_batch_norm import share_statistics, sum_over_processes
from ms_sincresnet.nnet.voting import VOTES
from ms_sincresnet.pretrained.card import training_of
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.cutoffs import filterbanks, record_cutoffs
from ms_sincresnet.training.scores import StageScores, write_report

CHECKPOINTS = ("best", "last")


class GenreBrain(sb.Brain):
    """Trains on random clips and names whole songs by voting.

    The paper's section 2.3. Batches have ``genre_encoded`` and, in training, ``clip``,
    otherwise ``song``. Augmentation depends on seed, epoch, step and process alone, so
    a run that was killed ends with the figures of an uninterrupted one.

    Under ``torchrun``, batch statistics, loss and gradient are over the clips of all
    processes. Each process scores its share of the songs; figures are of all songs.

    Arguments
    ---------
    modules
        {"model": model}: from clips [batch, time] to log-posteriors [batch, n_genres];
        and, if wanted, "teacher": a ``TeacherHead``.
    opt_class
        Takes the parameters and returns an optimizer.
    hparams
        As in the recipes' yaml files, and ``label_encoder``.
    run_opts
        SpeechBrain's run options.
    checkpointer
        Keeps the best epoch by validation, and the last one.

    Raises
    ------
    HparamError
        If device, precision, ``checkpoint`` or ``voting`` cannot be used.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> model = MSSincResNet(n_filters=8)
    >>> hparams = {"checkpoint": "best", "voting": "majority", "clip_samples": 48000}
    >>> hparams |= {"test_hop": 8000, "eval_batch_size": 2}
    >>> brain = GenreBrain({"model": model.eval()}, hparams=hparams)
    >>> batch = PaddedBatch([{"id": "noise", "song": torch.randn(64000)}])
    >>> [clips.shape for clips in brain.compute_forward(batch, sb.Stage.TEST)]
    [torch.Size([3, 10])]
    """

    def __init__(
        self,
        modules: dict[str, nn.Module] | None = None,
        opt_class: Callable | None = None,
        hparams: dict[str, Any] | None = None,
        run_opts: RunOptions | dict | None = None,
        checkpointer: Checkpointer | None = None,
    ):
        check_run_options(run_opts)
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        for name, choices in [("checkpoint", CHECKPOINTS), ("voting", VOTES)]:
            value = getattr(self.hparams, name)
            if value not in choices:
                raise HparamError(
                    f"{name} must be one of {', '.join(choices)}; got {value!r}"
                )
        self.validates = True  # False with the protocol "all"
        self._frozen_epochs = getattr(self.hparams, "frozen_epochs", 0)
        for module in self.model.modules():
            if isinstance(module, ResNetEmbedding):
                module.recompute = getattr(self.hparams, "recompute", False)
        self.scores = {stage: StageScores(self.hparams.voting) for stage in sb.Stage}
        if checkpointer is not None:
            checkpointer.add_recoverable("train_scores", self.scores[sb.Stage.TRAIN])

    def on_fit_start(self) -> None:
        """As in SpeechBrain, but batch norms that are shared keep the fast paths."""
        if "teacher" in self.modules:
            self.model.embedding.register_forward_hook(self._keep_embeddings)
        if not self.distributed_launch:
            super().on_fit_start()
            return
        # Layers that are frozen at first have no gradient then.
        unused = self.find_unused_parameters or self._frozen_epochs > 0
        for name, module in self.modules.items():
            share_statistics(module)
            self.modules[name] = DistributedDataParallel(
                module, find_unused_parameters=unused
            )
        self.init_optimizers()
        if self.checkpointer is not None:
            self.checkpointer.recover_if_possible()

    def init_optimizers(self) -> None:
        """As in SpeechBrain, but the cut-offs have a rate and a decay of their own."""
        super().init_optimizers()
        cutoffs = [p for bank in filterbanks(self.model) for p in bank.parameters()]
        if self.opt_class is None or not cutoffs:
            return
        own = {*map(id, cutoffs)}
        for group in self.optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        # "lr_factor" is saved with the group, and on_stage_start multiplies by it.
        group = {"params": cutoffs, "lr_factor": self.hparams.cutoff_lr_factor}
        group["weight_decay"] = self.hparams.cutoff_weight_decay
        self.optimizer.add_param_group(group)

    def _keep_embeddings(self, module: nn.Module, _: Any, embeddings: Tensor) -> None:
        """Keeps a step's embeddings for the teacher."""
        if module.training:
            self.embeddings = embeddings

    @property
    def model(self) -> GenreModel:
        """The model, without the wrapper that joins several processes."""
        model = self.modules.model
        return model.module if isinstance(model, DistributedDataParallel) else model

    @property
    def genres(self) -> list[str]:
        """Names of the genres, in the order of the model's outputs."""
        encoder = self.hparams.label_encoder
        return [encoder.ind2lab[index] for index in range(len(encoder))]

    def make_dataloader(
        self, dataset: Any, stage: sb.Stage, *args: Any, **options: Any
    ) -> DataLoader:
        """As in SpeechBrain, but songs are shared out and a ``PassSampler`` is kept."""
        rank, n_processes = rank_and_processes()
        if stage != sb.Stage.TRAIN and n_processes > 1:
            options["sampler"] = range(rank, len(dataset), n_processes)
        if not isinstance(options.get("sampler"), PassSampler):
            return super().make_dataloader(dataset, stage, *args, **options)
        self.train_sampler = options["sampler"]
        options["collate_fn"] = clip_batch
        if dataset.cache == "memory":  # workers would be slower
            options["num_workers"] = 0
        # It is shared out already: SpeechBrain would take a share of this share.
        loader = make_dataloader(dataset, **options)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable(f"dataloader-{stage.name}", loader)
        return loader

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Sets the epoch's learning rate and clears the scores."""
        if stage != sb.Stage.TRAIN:
            self.scores[stage].clear()
            return
        if self.step == 0:  # otherwise the epoch resumes from a checkpoint within it
            self.scores[stage].clear()
        self.epoch = epoch
        run, model = self.hparams.output_folder, self.model
        if epoch == 1 and self.step == 0:
            run_on_main(record_cutoffs, [run, model, 0])
        lr, _ = self.hparams.lr_annealing(epoch)
        for nth, group in enumerate(self.optimizer.param_groups):
            update_learning_rate(self.optimizer, lr * group.get("lr_factor", 1), [nth])
        if self._frozen_epochs:
            model.embedding.requires_grad_(bool(epoch and epoch > self._frozen_epochs))

    def on_fit_batch_start(self, batch: PaddedBatch, should_step: bool) -> None:
        """Seeds the step by seed, epoch, step and process."""
        rank, _ = rank_and_processes()
        entropy = [self.hparams.seed, self.epoch, self.step, rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def compute_forward(self, batch: PaddedBatch, stage: sb.Stage) -> list[Tensor]:
        """Log-posteriors [clips, n_genres] of each item's clips."""
        if stage == sb.Stage.TRAIN:
            clips = self.hparams.wav_augment(batch.clip.data.to(self.device))
            return list(self.modules.model(clips)[:, None])
        hparams, is_test = self.hparams, stage == sb.Stage.TEST
        songs, lengths = batch.song
        n_samples = (lengths * songs.shape[1]).round().int().tolist()
        items = zip(batch.id, songs.to(self.device), n_samples, strict=True)
        scored = score_songs(
            self.model,  # the wrapper would wait for processes that have fewer songs
            ((track_id, [song[:n]]) for track_id, song, n in items),
            clip_samples=hparams.clip_samples,
            hop_samples=hparams.test_hop if is_test else hparams.valid_hop,
            batch_size=hparams.eval_batch_size,
        )
        return [log_posteriors for _, log_posteriors in scored]

    def compute_objectives(
        self, predictions: list[Tensor], batch: PaddedBatch, stage: sb.Stage
    ) -> Tensor:
        """Mean negative log-likelihood of the clips, in training of all processes."""
        counts = [len(clips) for clips in predictions]
        clips, labels = torch.cat(predictions), batch.genre_encoded.data.flatten()
        on_cpu = clips.detach().cpu().split(counts)  # one transfer per batch
        for track_id, label, song in zip(batch.id, labels, on_cpu, strict=True):
            self.scores[stage].add(track_id, label, song)
        targets = labels.repeat_interleave(torch.tensor(counts)).to(self.device)
        if stage != sb.Stage.TRAIN:
            return F.nll_loss(clips, targets)
        # The gradient of this sum is that of the sum of the processes' losses, and
        # DistributedDataParallel takes the mean of it: as with one process.
        loss = F.nll_loss(clips, targets, reduction="sum")
        n_clips = loss.new_tensor(len(clips))
        loss, n_clips = sum_over_processes(torch.stack([loss, n_clips]))
        loss = loss / n_clips
        if "teacher" in self.modules:
            targets = batch.teacher.data.to(self.device)
            loss = loss + self.modules.teacher(self.embeddings, targets)
        return loss

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Logs the stage, saves a checkpoint after validation, reports after a test."""
        scores = self.scores[stage]
        scores.gather()
        stats = run_on_main(scores.figures)
        log_stats = self.hparams.train_logger.log_stats
        meta = {"data": self.hparams.dataset}
        if stage == sb.Stage.TRAIN:
            self.train_stats = {**stats, "loss": stage_loss}
            run = self.hparams.output_folder
            self.train_stats |= run_on_main(record_cutoffs, [run, self.model, epoch])
        if stage == sb.Stage.VALID or not self.validates:
            meta |= {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
            valid_stats = stats if stage == sb.Stage.VALID else None
            log_stats(meta, train_stats=self.train_stats, valid_stats=valid_stats)
            self.checkpointer.save_and_keep_only(
                meta={**stats, "epoch": epoch}, importance_keys=[validation_rank]
            )
        elif stage == sb.Stage.TEST:
            log_stats({**meta, "tested epoch": self.tested_epoch}, test_stats=stats)
            if if_main_process():
                about = {"dataset": self.hparams.dataset, "epoch": self.tested_epoch}
                write_report(self.hparams.output_folder, scores, self.genres, **about)

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Loads the checkpoint to test: the best by validation, or the last."""
        rule = checkpoint_rule(self.hparams.checkpoint)
        if max_key or min_key:
            rule |= {"importance_key": None, "max_key": max_key, "min_key": min_key}
        checkpoint = self.checkpointer.recover_if_possible(**rule)
        if checkpoint is None:
            folder = self.checkpointer.checkpoints_dir
            raise UserError(f"{folder}: no checkpoint of a finished epoch to test")
        self.tested_epoch = checkpoint.meta["epoch"]

    def save_model(self) -> None:
        """Writes the model folder; after ``evaluate``, with the weights it tested."""
        hparams = vars(self.hparams)
        epoch = getattr(self, "tested_epoch", None)
        run, folder = hparams["output_folder"], hparams["model_folder"]
        run_on_main(write_model, [folder, self.model, self.genres, run, hparams, epoch])


def write_model(
    folder: str | Path,
    model: GenreModel,
    genres: list[str],
    run: str | Path,
    hparams: dict[str, Any],
    epoch: int | None,
    half: bool = False,
) -> None:
    """Writes the model folder of an epoch of a run, with the figures of its test."""
    save_model_folder(
        folder,
        model,
        genres,
        clip_samples=hparams["clip_samples"],
        hop_samples=hparams["hop_samples"],
        voting=hparams["voting"],
        training=training_of(run, hparams, epoch),
        half=half,
    )


def check_run_options(run_opts: RunOptions | dict | None) -> None:
    """Raises if this machine lacks the device or cannot compute in the precision."""
    options = run_opts.as_dict() if isinstance(run_opts, RunOptions) else run_opts or {}
    device = options.get("device") or infer_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # depends on PyTorch's build
        reason = str(error).partition("\n")[0].partition(". ")[0]
        message = f"--device={device}: not available on this machine ({reason})"
        raise HparamError(message) from error
    for name in ("precision", "eval_precision"):
        if options.get(name) == "fp16" and device == "cpu":
            raise HparamError(f"--{name}=fp16 needs a GPU; on the CPU, give bf16")


def checkpoint_rule(choice: str) -> dict[str, Any]:
    """Options to find the best or last of the checkpoints of finished epochs."""
    return {
        "importance_key": validation_rank if choice == "best" else ckpt_recency,
        "ckpt_predicate": lambda checkpoint: "epoch" in checkpoint.meta,
    }


def validation_rank(checkpoint: Checkpoint) -> tuple[float, ...]:
    """Song accuracy, then clip accuracy, then epoch; lowest from within an epoch."""
    meta = checkpoint.meta
    return tuple(meta.get(k, -1) for k in ("song_accuracy", "clip_accuracy", "epoch"))
