"""GenreBrain: training, validation and test of a system of Table 1."""

import numpy as np
import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import update_learning_rate
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ms_sincresnet.data.clips import silent, split_clips
from ms_sincresnet.data.dataset import PassSampler
from ms_sincresnet.errors import HparamError, UserError
from ms_sincresnet.nnet.sync_batch_norm import share_statistics, sum_over_processes
from ms_sincresnet.nnet.voting import VOTES
from ms_sincresnet.pretrained.card import training_of
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.distributed import rank_and_processes
from ms_sincresnet.training.scores import StageScores, write_report

CHECKPOINTS = ("best", "last")


class GenreBrain(sb.Brain):
    """Trains on random clips, decides on whole songs by voting.

    The paper's section 2.3. ``modules["model"]`` is a system: clips [batch, time] to
    log-posteriors [batch, n_genres]. Batches have ``genre_encoded`` and, in training,
    ``clip``, else ``song``.

    What is random in a training step (augmentation) is a function of seed, epoch, step
    and process; the clips are one of seed and epoch. So a run that is killed goes on
    to the figures of an unbroken one.

    Under ``torchrun`` training is, augmentation apart, that of one process with a batch
    of all processes' clips: batch statistics, loss and gradient are over all of them.
    Each process validates and tests its share of the songs; figures are of all songs.

    These hparams are read: ``dataset``, ``seed``, ``lr_schedule``,
    ``augmentation``, ``clip_samples``, ``hop_samples``, ``valid_hop``, ``test_hop``,
    ``eval_batch_size``, ``voting``, ``checkpoint``, ``train_logger``,
    ``output_folder``, ``model_folder`` and ``label_encoder``.

    Arguments
    ---------
    modules : dict
        {"model": system}.
    opt_class : callable
        Parameters → optimizer.
    hparams : dict
        The hparams.
    run_opts : dict
        SpeechBrain's run options.
    checkpointer : speechbrain.utils.checkpoints.Checkpointer
        Keeps the best epoch, by validation, and the last.

    Raises
    ------
    HparamError
        If device or precision cannot be had on this machine, or ``checkpoint`` or
        ``voting`` is unknown.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> model = MSSincResNet(n_filters=8)
    >>> hparams = {"checkpoint": "best", "voting": "majority", "clip_samples": 48000}
    >>> brain = GenreBrain({"model": model}, hparams=hparams)
    >>> song = torch.randn(64000)
    >>> brain.song_log_posteriors(song, hop_samples=8000, batch_size=2).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        modules=None,
        opt_class=None,
        hparams=None,
        run_opts=None,
        checkpointer=None,
    ):
        try:
            super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise HparamError(
                f"the run options (--device, --precision …) do not fit this machine: "
                f"{error}"
            ) from error
        for name, choices in [("checkpoint", CHECKPOINTS), ("voting", VOTES)]:
            value = getattr(self.hparams, name)
            if value not in choices:
                raise HparamError(
                    f"{name} must be one of {', '.join(choices)}; got {value!r}"
                )
        voting = self.hparams.voting
        self.scores = {stage: StageScores(voting) for stage in sb.Stage}
        if checkpointer is not None:
            checkpointer.add_recoverable("train_scores", self.scores[sb.Stage.TRAIN])

    def compute_forward(self, batch, stage):
        """Log-posteriors of clips.

        Arguments
        ---------
        batch : speechbrain.dataio.batch.PaddedBatch
            Clips in training, else songs.
        stage : speechbrain.Stage
            The stage.

        Returns
        -------
        list of torch.Tensor [clips, n_genres]
            One tensor an item of the batch.
        """
        if stage == sb.Stage.TRAIN:
            clips = batch.clip.data.to(self.device)
            clips = self.hparams.augmentation(clips)
            return list(self.modules.model(clips)[:, None])
        hop_samples = (
            self.hparams.test_hop if stage == sb.Stage.TEST else self.hparams.valid_hop
        )
        songs, lengths = batch.song
        n_samples = (lengths * songs.shape[1]).round().int().tolist()
        return [
            self.song_log_posteriors(
                song[:n], hop_samples, self.hparams.eval_batch_size
            )
            for song, n in zip(songs, n_samples, strict=True)
        ]

    def make_dataloader(self, dataset, stage, *args, **loader_kwargs):
        """As SpeechBrain, with a share of the songs for each process.

        Arguments
        ---------
        dataset : speechbrain.dataio.dataset.DynamicItemDataset
            The data set.
        stage : speechbrain.Stage
            The stage.
        *args, **loader_kwargs
            As in ``Brain``. A ``PassSampler`` knows of the processes itself.

        Returns
        -------
        torch.utils.data.DataLoader
            The loader.
        """
        rank, n_processes = rank_and_processes()
        if stage != sb.Stage.TRAIN and n_processes > 1:
            loader_kwargs["sampler"] = range(rank, len(dataset), n_processes)
        return super().make_dataloader(dataset, stage, *args, **loader_kwargs)

    def _train_loader_specifics(self, dataset, loader_kwargs):
        """As SpeechBrain, which would give each process a share of a share."""
        if isinstance(loader_kwargs.get("sampler"), PassSampler):
            return loader_kwargs
        return super()._train_loader_specifics(dataset, loader_kwargs)

    def _wrap_distributed(self):
        """As SpeechBrain, with batch norms that leave the front-end its fast paths."""
        if not self.distributed_launch:
            return super()._wrap_distributed()
        for name, module in self.modules.items():
            share_statistics(module)
            self.modules[name] = DistributedDataParallel(
                module, find_unused_parameters=self.find_unused_parameters
            )

    @property
    def system(self):
        """The model without what wraps it in training by several processes."""
        model = self.modules.model
        return model.module if isinstance(model, DistributedDataParallel) else model

    def song_log_posteriors(self, song, hop_samples, batch_size):
        """Log-posteriors of all clips of a song that are not silent, as in inference.

        Arguments
        ---------
        song : torch.Tensor [time]
            The song; of a silent one, all clips.
        hop_samples : int
            Samples from one clip to the next.
        batch_size : int
            Clips at a time.

        Returns
        -------
        torch.Tensor [clips, n_genres]
            Log-posteriors.
        """
        clips = split_clips(song, self.hparams.clip_samples, hop_samples)
        quiet = silent(clips)
        batches = (clips if quiet.all() else clips[~quiet]).split(batch_size)
        # What wraps the model would wait for processes that have fewer songs.
        return torch.cat([self.system(b.to(self.device)) for b in batches])

    def compute_objectives(self, predictions, batch, stage):
        """Negative log-likelihood of the clips; takes note of what was right.

        Arguments
        ---------
        predictions : list of torch.Tensor [clips, n_genres]
            What ``compute_forward`` returns.
        batch : speechbrain.dataio.batch.PaddedBatch
            With ``id`` and ``genre_encoded``.
        stage : speechbrain.Stage
            The stage.

        Returns
        -------
        torch.Tensor
            The mean over the clips; in training over those of all processes.
        """
        counts = [len(clips) for clips in predictions]
        clips, labels = torch.cat(predictions), batch.genre_encoded.data.flatten()
        on_cpu = clips.detach().cpu().split(counts)  # one transfer a batch
        for track_id, label, song in zip(batch.id, labels, on_cpu, strict=True):
            self.scores[stage].add(track_id, label, song)
        targets = labels.repeat_interleave(torch.tensor(counts)).to(self.device)
        if stage != sb.Stage.TRAIN:
            return F.nll_loss(clips, targets)
        # The gradient of this sum is that of the sum of the processes' losses, of
        # which DistributedDataParallel takes the mean: as by one process.
        loss = F.nll_loss(clips, targets, reduction="sum")
        n_clips = loss.new_tensor(len(clips))
        loss, n_clips = sum_over_processes(torch.stack([loss, n_clips]))
        return loss / n_clips

    def on_stage_start(self, stage, epoch=None):
        """Sets the epoch's learning rate and begins to count.

        Arguments
        ---------
        stage : speechbrain.Stage
            The stage.
        epoch : int
            The epoch, counted from 1.
        """
        if stage != sb.Stage.TRAIN:
            self.scores[stage].clear()
            return
        if self.step == 0:  # else the epoch goes on where a checkpoint left it
            self.scores[stage].clear()
        self.epoch = epoch
        lr, _ = self.hparams.lr_schedule(epoch)
        update_learning_rate(self.optimizer, lr)

    def on_fit_batch_start(self, batch, should_step):
        """Makes the step's randomness a function of seed, epoch, step and process.

        Arguments
        ---------
        batch : speechbrain.dataio.batch.PaddedBatch
            The batch.
        should_step : bool
            Whether the optimizer will step.
        """
        rank, _ = rank_and_processes()
        entropy = [self.hparams.seed, self.epoch, self.step, rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs the stage; after a validation saves a checkpoint, after a test reports.

        Arguments
        ---------
        stage : speechbrain.Stage
            The stage.
        stage_loss : float
            Mean loss of the steps.
        epoch : int
            The epoch, counted from 1.
        """
        scores = self.scores[stage]
        scores.gather()
        stats = run_on_main(scores.figures)
        if stage == sb.Stage.TRAIN:
            self.train_stats = {**stats, "loss": stage_loss}
        elif stage == sb.Stage.VALID:
            self.hparams.train_logger.log_stats(
                stats_meta={
                    "data": self.hparams.dataset,
                    "epoch": epoch,
                    "lr": self.optimizer.param_groups[0]["lr"],
                },
                train_stats=self.train_stats,
                valid_stats=stats,
            )
            self.checkpointer.save_and_keep_only(
                meta={**stats, "epoch": epoch}, importance_keys=[validation_rank]
            )
        else:
            self.hparams.train_logger.log_stats(
                stats_meta={
                    "data": self.hparams.dataset,
                    "tested epoch": self.tested_epoch,
                },
                test_stats=stats,
            )
            if if_main_process():
                write_report(
                    self.hparams.output_folder,
                    scores,
                    self.genres,
                    dataset=self.hparams.dataset,
                    loss=stats["loss"],
                    epoch=self.tested_epoch,
                )

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Loads the checkpoint to test: the best by validation, or the last.

        Arguments
        ---------
        max_key : str
            Of the checkpoints' meta data: loads the one where it is highest instead.
        min_key : str
            Loads the one where it is lowest instead.

        Raises
        ------
        UserError
            If there is no checkpoint.
        """
        if max_key or min_key:
            key = {"max_key": max_key, "min_key": min_key}
        elif self.hparams.checkpoint == "best":
            key = {"importance_key": validation_rank}
        else:
            key = {}
        checkpoint = self.checkpointer.recover_if_possible(
            ckpt_predicate=lambda checkpoint: "epoch" in checkpoint.meta, **key
        )
        if checkpoint is None:
            raise UserError(
                f"{self.checkpointer.checkpoints_dir}: no checkpoint of a finished "
                "epoch to test; train first"
            )
        self.tested_epoch = checkpoint.meta["epoch"]

    def save_model(self):
        """Writes the model folder, with the weights as they are loaded.

        After ``evaluate`` these are the ones that were tested.
        """
        run_on_main(self._write_model_folder)

    def _write_model_folder(self):
        """Writes the model folder, its card with the figures of the test."""
        hparams, model = vars(self.hparams), self.modules.model
        epoch = getattr(self, "tested_epoch", None)
        save_model_folder(
            hparams["model_folder"],
            getattr(model, "module", model),
            self.genres,
            clip_samples=hparams["clip_samples"],
            hop_samples=hparams["hop_samples"],
            voting=hparams["voting"],
            training=training_of(hparams["output_folder"], hparams, epoch),
        )

    @property
    def genres(self):
        """Names of the genres, in the order of the model's outputs."""
        encoder = self.hparams.label_encoder
        return [encoder.ind2lab[index] for index in range(len(encoder))]


def validation_rank(checkpoint):
    """How good a checkpoint is by its validation.

    Song accuracy decides; clip accuracy breaks ties, then the later epoch.

    Arguments
    ---------
    checkpoint : speechbrain.utils.checkpoints.Checkpoint
        A checkpoint of a ``GenreBrain``.

    Returns
    -------
    tuple of float
        Larger is better. Checkpoints from within an epoch come last.

    Example
    -------
    >>> from speechbrain.utils.checkpoints import Checkpoint
    >>> meta = {"song_accuracy": 0.9, "clip_accuracy": 0.7, "epoch": 3}
    >>> validation_rank(Checkpoint("CKPT+3", meta, {}))
    (0.9, 0.7, 3)
    """
    keys = ("song_accuracy", "clip_accuracy", "epoch")
    return tuple(checkpoint.meta.get(key, -1) for key in keys)
