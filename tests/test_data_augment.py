"""Augmentations: in training only, one gain per clip, noise on the clip's own scale."""

import pytest
import torch

from ms_sincresnet.data.augment import GaussianNoise, RandomGain

# Each clip of noise is louder than the one before.
NOISE = torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
CLIPS = NOISE * 10.0 ** torch.arange(-2, 2)[:, None]


@pytest.mark.parametrize(
    "augment", [RandomGain(), GaussianNoise(), GaussianNoise(relative=False)], ids=repr
)
def test_training_changes_every_clip_and_evaluation_none(augment):
    wavs, drawn = CLIPS.clone(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augment.train()(wavs))
    assert wavs.equal(CLIPS)  # the argument stays as it is
    assert drawn[0].shape == wavs.shape
    assert drawn[0].ne(wavs).any(1).all()
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
    assert augment.eval()(wavs).equal(wavs)


def test_each_clip_has_one_gain_within_the_bounds():
    gains = RandomGain(0.5, 1.5)(torch.ones(1000, 3))
    assert gains.eq(gains[:, :1]).all()
    assert 0.5 <= gains.min() < 0.52
    assert 1.48 < gains.max() <= 1.5
    assert gains.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("relative", [True, False])
def test_noise_is_white_gaussian_and_scaled(relative):
    added = GaussianNoise(std=0.02, relative=relative)(CLIPS) - CLIPS
    scale = CLIPS.square().mean(1).sqrt() if relative else torch.ones(4)
    expected = torch.full((4,), 0.02)
    torch.testing.assert_close(added.std(1) / scale, expected, rtol=0.03, atol=0)
    noise = GaussianNoise(std=1.0, relative=False)(torch.zeros(1, 100000))[0]
    assert noise.mean().abs() < 0.02
    assert noise.square().mean().item() == pytest.approx(1, abs=0.02)
    assert GaussianNoise()(torch.zeros(2, 100)).eq(0).all()
