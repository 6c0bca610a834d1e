"""Choices of ``GenreBrain`` that whole runs in test_recipes.py do not single out."""

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpoint

from ms_sincresnet import GaussianNoise, WarmupStepScheduler
from ms_sincresnet.training.brain import GenreBrain, validation_rank


class Loudness(torch.nn.Module):
    """A stand-in system of two genres: loud and quiet."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, wavs):
        loud = self.gain * (wavs.abs().mean(1) - 0.5)
        return torch.stack([loud, -loud], 1).log_softmax(1)


@pytest.fixture
def brain():
    hparams = {
        "seed": 1,
        "checkpoint": "best",
        "voting": "majority",
        "clip_samples": 4,
        "hop_samples": 2,
        "valid_hop": 4,
        "test_hop": 2,
        "eval_batch_size": 2,
        "augmentation": GaussianNoise(0.5),
        "lr_schedule": WarmupStepScheduler(warmup_epochs=1),
    }
    brain = GenreBrain(
        {"model": Loudness()},
        lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        hparams,
        {"device": "cpu"},
    )
    brain.init_optimizers()
    return brain


def songs(*waveforms):
    """A batch of songs, all of the first genre."""
    return PaddedBatch(
        [
            {"id": f"{n}", "song": wav, "genre_encoded": torch.tensor([0])}
            for n, wav in enumerate(waveforms)
        ]
    )


def test_silent_clips_of_a_song_do_not_vote(brain):
    song = torch.cat([torch.rand(4), torch.zeros(8), torch.rand(4)])
    assert len(brain.song_log_posteriors(song, hop_samples=4, batch_size=2)) == 2
    silence = torch.full((12,), 0.25)
    assert len(brain.song_log_posteriors(silence, hop_samples=4, batch_size=2)) == 3


def test_songs_of_a_batch_are_decided_without_their_padding(brain):
    long, short = torch.rand(20), torch.rand(9)
    together = brain.compute_forward(songs(long, short), sb.Stage.TEST)
    assert [len(clips) for clips in together] == [9, 3]
    (alone,) = brain.compute_forward(songs(short), sb.Stage.TEST)
    torch.testing.assert_close(together[1], alone)


def test_validation_and_test_have_their_own_hops(brain):
    brain.hparams.test_hop = 8
    for stage, n_clips in [(sb.Stage.VALID, 5), (sb.Stage.TEST, 3)]:
        (clips,) = brain.compute_forward(songs(torch.rand(20)), stage)
        assert len(clips) == n_clips


def test_loss_is_the_mean_over_clips_and_scores_are_kept(brain):
    batch = songs(torch.ones(8), torch.zeros(4))
    predictions = brain.compute_forward(batch, sb.Stage.VALID)
    loss = brain.compute_objectives(predictions, batch, sb.Stage.VALID)
    expected = -torch.cat(predictions)[:, 0].mean()
    torch.testing.assert_close(loss, expected)
    assert brain.scores[sb.Stage.VALID].song_accuracy() == 0.5
    assert brain.scores[sb.Stage.VALID].clip_accuracy() == pytest.approx(2 / 3)


def test_a_steps_randomness_depends_on_epoch_and_step_alone(brain):
    def noise(epoch, step):
        brain.epoch, brain.step = epoch, step
        torch.rand(step)  # what came before does not matter
        brain.on_fit_batch_start(None, True)
        return torch.rand(3)

    assert torch.equal(noise(2, 5), noise(2, 5))
    assert not torch.equal(noise(2, 5), noise(2, 6))
    assert not torch.equal(noise(2, 5), noise(3, 5))


def test_each_epoch_has_its_learning_rate(brain):
    rates = []
    for epoch in (1, 2, 32):
        brain.on_stage_start(sb.Stage.TRAIN, epoch)
        rates.append(brain.optimizer.param_groups[0]["lr"])
    assert rates == [1e-5, 5e-3, 2.5e-3]


def test_best_checkpoint_is_by_song_accuracy_then_clips_then_the_later_one():
    def checkpoint(**meta):
        return Checkpoint("CKPT", meta, {})

    best = checkpoint(song_accuracy=0.9, clip_accuracy=0.6, epoch=5)
    others = [
        checkpoint(song_accuracy=0.9, clip_accuracy=0.6, epoch=4),
        checkpoint(song_accuracy=0.9, clip_accuracy=0.5, epoch=9),
        checkpoint(song_accuracy=0.8, clip_accuracy=0.9, epoch=9),
        checkpoint(unixtime=1e9),  # from within an epoch
    ]
    assert max([*others, best], key=validation_rank) is best
