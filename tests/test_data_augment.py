"""Augmentations: in training only, one gain per clip, noise on the clip's own scale."""

import pytest
import torch

from ms_sincresnet.data.augment import GaussianNoise, RandomGain

AUGMENTATIONS = [RandomGain(), GaussianNoise(), GaussianNoise(relative=False)]

each_augmentation = pytest.mark.parametrize("augment", AUGMENTATIONS, ids=repr)


def clips():
    """Four clips of noise, each louder than the one before."""
    noise = torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    return noise * 10.0 ** torch.arange(-2, 2)[:, None]


@each_augmentation
def test_training_changes_every_clip_and_evaluation_none(augment):
    wavs = clips()
    augmented = augment.train()(wavs)
    assert wavs.equal(clips())  # the argument stays as it is
    assert augmented.shape == wavs.shape
    assert augmented.ne(wavs).any(1).all()
    assert augment.eval()(wavs).equal(wavs)


@each_augmentation
def test_a_seed_repeats_it(augment):
    augment.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augment(clips()))
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


@pytest.mark.parametrize(
    ("gain", "low", "high"),
    [(RandomGain(), 0.9, 1.1), (RandomGain(low=0.5, high=1.5), 0.5, 1.5)],
)
def test_each_clip_has_one_gain_within_the_bounds(gain, low, high):
    gains = gain(torch.ones(1000, 3))
    assert gains.eq(gains[:, :1]).all()
    assert low <= gains.min() < low + 0.02
    assert high - 0.02 < gains.max() <= high
    assert gains.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("relative", [True, False])
def test_noise_is_white_gaussian_and_scaled(relative):
    wavs = clips()
    added = GaussianNoise(std=0.02, relative=relative)(wavs) - wavs
    scale = wavs.square().mean(1).sqrt() if relative else torch.ones(4)
    torch.testing.assert_close(
        added.std(1) / scale, torch.full((4,), 0.02), rtol=0.03, atol=0
    )
    noise = GaussianNoise(std=1.0, relative=False)(torch.zeros(1, 100000))[0]
    assert noise.mean().abs() < 0.02
    assert noise.square().mean().item() == pytest.approx(1, abs=0.02)
    assert noise.pow(4).mean().item() == pytest.approx(3, abs=0.15)
    assert (noise[1:] * noise[:-1]).mean().abs() < 0.02


@pytest.mark.parametrize("augment", AUGMENTATIONS[:2], ids=repr)
def test_silence_stays_silent(augment):
    assert augment.train()(torch.zeros(2, 100)).eq(0).all()


@pytest.mark.parametrize(
    ("augmentation", "arguments", "message"),
    [
        (RandomGain, {"low": 1.2, "high": 1.1}, r"low .* got 1\.2 and 1\.1"),
        (GaussianNoise, {"std": -0.02}, r"std must not be negative; got -0\.02"),
    ],
)
def test_bad_arguments_are_named(augmentation, arguments, message):
    with pytest.raises(ValueError, match=message):
        augmentation(**arguments)
