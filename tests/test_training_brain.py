"""Choices of ``GenreBrain`` that whole runs in test_recipes.py do not single out."""

from functools import partial

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpoint
from torch import nn

from ms_sincresnet import GaussianNoise, WarmupStepScheduler
from ms_sincresnet.errors import HparamError
from ms_sincresnet.training.brain import GenreBrain, validation_rank


class Loudness(nn.Module):
    """A model of two genres, loud and quiet."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def frontend(self, wavs):
        return self.gain * (wavs.abs().mean(1) - 0.5)

    def embedding(self, loudness):
        return loudness[:, None, None]

    def classifier(self, embeddings):
        return torch.cat([embeddings, -embeddings], -1).log_softmax(-1)


# The output folder is for cut-offs, which this model lacks.
HPARAMS = {"output_folder": ".", "checkpoint": "best", "voting": "majority", "seed": 1}
HPARAMS |= {"clip_samples": 4, "hop_samples": 2, "valid_hop": 4, "test_hop": 2}
HPARAMS |= {"eval_batch_size": 2, "wav_augment": GaussianNoise(0.5)}
HPARAMS |= {"lr_annealing": WarmupStepScheduler(warmup_epochs=1)}


def make_brain(run_opts=None, **hparams):
    options = HPARAMS | hparams, {"device": "cpu"} if run_opts is None else run_opts
    sgd = partial(torch.optim.SGD, lr=1.0)
    return GenreBrain({"model": Loudness()}, sgd, *options)


@pytest.fixture
def brain():
    brain = make_brain()
    brain.init_optimizers()
    return brain


def songs(*waveforms):
    genre = torch.tensor([0])
    rows = ({"id": str(n), "song": wav} for n, wav in enumerate(waveforms))
    return PaddedBatch([row | {"genre_encoded": genre} for row in rows])


@torch.no_grad()
def forward(brain, stage, *waveforms):
    return brain.compute_forward(songs(*waveforms), stage)


def test_silent_clips_of_a_song_do_not_vote(brain):
    song = torch.cat([torch.rand(4), torch.zeros(8), torch.rand(4)])
    assert len(forward(brain, sb.Stage.VALID, song)[0]) == 2
    (silence,) = forward(brain, sb.Stage.VALID, torch.full((12,), 0.25))
    assert silence.exp().tolist() == [[pytest.approx(0.5)] * 2]


@pytest.mark.parametrize(
    ("stage", "counts"), [(sb.Stage.VALID, [5, 3]), (sb.Stage.TEST, [9, 4])]
)
def test_songs_of_a_batch_are_cut_by_the_stages_hop_without_padding(
    brain, stage, counts
):
    long, short = torch.rand(20), torch.rand(9)
    together = forward(brain, stage, long, short)
    assert [len(clips) for clips in together] == counts
    (alone,) = forward(brain, stage, short)
    torch.testing.assert_close(together[1], alone)


def test_loss_is_the_mean_over_clips_and_scores_are_kept(brain):
    loud = torch.tensor([1.0, 0.9] * 4)
    batch, stage = songs(loud, loud[:4] / 100), sb.Stage.VALID
    with torch.no_grad():
        predictions = brain.compute_forward(batch, stage)
    loss = brain.compute_objectives(predictions, batch, stage)
    expected = -torch.cat(predictions)[:, 0].mean()
    torch.testing.assert_close(loss, expected)
    figures = brain.scores[stage].figures()
    assert figures["song_accuracy"] == 0.5
    assert figures["clip_accuracy"] == pytest.approx(2 / 3)


def test_a_steps_randomness_depends_on_epoch_and_step_alone(brain):
    def noise(epoch, step):
        brain.epoch, brain.step = epoch, step
        torch.rand(step)  # what came before does not matter
        brain.on_fit_batch_start(None, True)
        return torch.rand(3)

    assert torch.equal(noise(2, 5), noise(2, 5))
    assert not torch.equal(noise(2, 5), noise(2, 6))
    assert not torch.equal(noise(2, 5), noise(3, 5))


def test_best_checkpoint_is_by_song_accuracy_then_clips_then_the_later_one():
    def checkpoint(**meta):
        return Checkpoint("CKPT", meta, {})

    best = checkpoint(song_accuracy=0.9, clip_accuracy=0.6, epoch=5)
    others = [
        checkpoint(song_accuracy=songs, clip_accuracy=clips, epoch=epoch)
        for songs, clips, epoch in [(0.9, 0.6, 4), (0.9, 0.5, 9), (0.8, 0.9, 9)]
    ]
    others.append(checkpoint(unixtime=1e9))  # from within an epoch
    assert max([*others, best], key=validation_rank) is best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "lst"}, "checkpoint .*best, last.*'lst'"),
        ({"voting": "max"}, "voting .*majority, mean.*'max'"),
        ({"run_opts": {"device": "cuda:7"}}, "--device=cuda:7.*not available"),
        ({"run_opts": {"device": "cpu", "precision": "fp16"}}, "=fp16.*bf16"),
    ],
)
def test_what_cannot_be_done_is_named(options, message):
    with pytest.raises(HparamError, match=message):
        make_brain(**options)
