"""SincNet on frames of a clip, against its definition by hand."""

import copy
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn
from torch.nn import functional as F

from ms_sincresnet.nnet.sincnet import FrameNetwork

from .backends import trained, white_noise

FRAME, HOP, TAPS = 800, 80, 51


def small_network(**options):
    torch.manual_seed(0)
    small = {"n_genres": 4, "n_filters": 5, "kernel_size": TAPS, "train_frames": 3}
    return FrameNetwork(**small | {"frame_samples": FRAME, "frame_hop": HOP} | options)


@pytest.fixture(scope="module")
def network():
    """A network in evaluation, not to be changed, that looks as after training."""
    network = trained(small_network())
    for norm in (network.frame_norm, network.layers[3], network.layers[7]):
        nn.init.normal_(norm.weight, mean=1, std=0.1)
        nn.init.normal_(norm.bias, std=0.1)
    return network.eval()


@pytest.fixture
def double(network):
    return copy.deepcopy(network).double()


def log_posteriors_by_hand(network, maps):
    """Log-posteriors of frames from their maps, layer by layer."""
    x, layers = F.leaky_relu(network.frame_norm(maps), 0.2), network.layers
    for conv, norm in ((1, 3), (5, 7)):
        x = F.conv1d(x, layers[conv].weight, layers[conv].bias)
        x = x[:, :, : x.shape[2] // 3 * 3].unflatten(2, (-1, 3)).amax(3)
        x = F.leaky_relu(layers[norm](x), 0.2)
    x = x.flatten(1)
    for linear in (10, 13, 16):
        x = F.leaky_relu(layers[linear + 1](x @ layers[linear].weight.T), 0.2)
    return F.linear(x, layers[19].weight, layers[19].bias).log_softmax(1)


def test_maps_are_maxima_of_three_filtered_samples(double):
    frames = 0.01 * white_noise(2, FRAME).double() + 3
    expected = []
    for frame in frames.numpy():
        frame = (frame - frame.mean()) / np.sqrt(frame.var() + 1e-8)
        for taps in double.bank.filters().detach().numpy():
            filtered = scipy.signal.correlate(frame, taps, mode="valid")
            expected.append(filtered[: len(filtered) // 3 * 3].reshape(-1, 3).max(1))
    found = double.frame_maps(frames).detach().numpy()
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), atol=1e-10)


NOISE = white_noise(2000)
LOUD_START = torch.arange(2000) < 900
CLIPS = {
    "on an offset": 0.02 * NOISE + 5,
    "offset that jumps": 0.1 * NOISE - 1.0 * LOUD_START,
    "near silence in a loud clip": NOISE * LOUD_START + 1e-3,
    "silence": torch.zeros(2000),
}


@pytest.mark.parametrize("kind", CLIPS)
def test_a_clip_is_filtered_once_for_all_its_frames(network, double, kind):
    frames = CLIPS[kind].unfold(0, FRAME, HOP)
    expected = double.frame_maps(frames.double())
    found = torch.cat(list(double.clip_maps(CLIPS[kind].double())))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    # Single precision is enough, in units of a frame's standard deviation.
    maps = torch.cat(list(network.clip_maps(CLIPS[kind])))
    for found in (maps, network.frame_maps(frames)):
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=6e-4)


@pytest.mark.parametrize("kernel_size", [49, 51, 53])
def test_clips_may_end_anywhere_in_a_hop(kernel_size):
    # The kernel's length decides whether pooling leaves 0, 1 or 2 samples over.
    network = small_network(kernel_size=kernel_size).eval()
    for n_samples in range(FRAME, FRAME + HOP + 1):
        wav = white_noise(n_samples)
        with torch.no_grad():
            found = torch.cat(list(network.clip_maps(wav)))
            expected = network.frame_maps(wav.unfold(0, FRAME, HOP))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_evaluation_is_the_mean_posterior_of_all_frames(double):
    wavs = white_noise(2, 2000).double()
    wavs[1] *= torch.linspace(0, 1, 2000)
    expected = []
    for wav in wavs:
        frames = wav.unfold(0, FRAME, HOP)
        assert len(frames) == 16
        by_hand = log_posteriors_by_hand(double, double.frame_maps(frames))
        expected.append(by_hand.exp().mean(0, keepdim=True).log())
    torch.testing.assert_close(double(wavs), torch.stack(expected), rtol=0, atol=1e-10)


def test_training_is_the_mean_over_random_frames(double, monkeypatch):
    network, wavs = double.train(), white_noise(4, 2000).double()
    spy = Mock(wraps=network.frame_maps)
    monkeypatch.setattr(network, "frame_maps", spy)
    found = network(wavs)
    (frames,) = spy.call_args.args
    assert frames.shape == (4 * 3, FRAME)
    for clip, some in zip(wavs, frames.split(3), strict=True):
        of_clip = clip.unfold(0, FRAME, HOP)
        assert all((of_clip == frame).all(1).any() for frame in some)
    by_hand = log_posteriors_by_hand(network, spy(frames))
    expected = by_hand.reshape(4, 3, 4).mean(1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_clips_may_have_any_type_and_any_length_from_a_frame_on(training):
    network = small_network().train(training)
    for clips in (white_noise(2, FRAME), white_noise(2, 4000).double()):
        assert network(clips).shape == (2, 1, 4)
        assert network(clips).dtype == torch.float32
    with pytest.raises(ValueError, match=r"at least the 800 samples .* got 799"):
        network(white_noise(2, FRAME - 1))


def test_frames_too_short_for_the_layers_are_refused():
    least = 3 * (3 * (3 * 1 + 4) + 4) + TAPS - 1  # backwards from one sample
    assert small_network(frame_samples=least).layers[7].normalized_shape == (60, 1)
    with pytest.raises(ValueError, match=f"frames of {least - 1} .* of 51 taps"):
        small_network(frame_samples=least - 1)


def test_autocast_leaves_the_filters_alone(network):
    wavs = white_noise(2, 2000)
    expected, maps = network(wavs), list(network.clip_maps(wavs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        found = network(wavs)
        assert all(map(torch.equal, network.clip_maps(wavs[0]), maps))
    assert not found.equal(expected), "the layers behind are in bfloat16"
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
