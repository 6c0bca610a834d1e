"""Augmentations: in training only, one gain a clip, noise on the clip's own scale."""

import pytest
import torch

from ms_sincresnet.data.augment import GaussianNoise, RandomGain

AUGMENTATIONS = [RandomGain(), GaussianNoise(), GaussianNoise(relative=False)]

each_augmentation = pytest.mark.parametrize("augment", AUGMENTATIONS, ids=repr)


def clips(batch=4, n_samples=16000):
    """Clips of noise, each louder than the one before."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, n_samples, generator=generator)
    return noise * 10.0 ** torch.arange(-2, batch - 2)[:, None]


@each_augmentation
def test_evaluation_changes_nothing(augment):
    assert augment.eval()(clips()).equal(clips())


@each_augmentation
def test_training_changes_every_clip_and_not_its_argument(augment):
    wavs = clips()
    augmented = augment.train()(wavs)
    assert wavs.equal(clips())
    assert augmented.shape == wavs.shape
    assert augmented.ne(wavs).any(1).all()


@each_augmentation
def test_a_seed_repeats_it(augment):
    augment.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augment(clips()))
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


def test_each_clip_has_one_gain_within_the_bounds():
    gains = RandomGain(low=0.5, high=1.5)(torch.ones(1000, 3))
    assert gains.eq(gains[:, :1]).all()
    assert 0.5 <= gains.min() < 0.52
    assert 1.48 < gains.max() <= 1.5
    assert gains.mean().item() == pytest.approx(1, abs=0.05)
    default = RandomGain()(torch.ones(1000, 1))
    assert 0.9 <= default.min() < 0.91
    assert 1.09 < default.max() <= 1.1


def test_noise_is_relative_to_the_clip():
    wavs = clips()
    added = GaussianNoise(std=0.02)(wavs) - wavs
    ratio = added.std(1) / wavs.square().mean(1).sqrt()
    torch.testing.assert_close(ratio, torch.full((4,), 0.02), rtol=0.03, atol=0)
    assert added.mean(1).abs().max() < 0.03 * added.std(1).max()


def test_noise_may_be_absolute():
    wavs = clips()
    added = GaussianNoise(std=0.02, relative=False)(wavs) - wavs
    torch.testing.assert_close(added.std(1), torch.full((4,), 0.02), rtol=0.03, atol=0)


def test_noise_is_white_and_gaussian():
    noise = GaussianNoise(std=1.0, relative=False)(torch.zeros(1, 100000))[0]
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
