"""The compiled loops, for clips and for songs, beside PyTorch in float64."""

import copy

import pytest
import torch

from ms_sincresnet.nnet.backends.simd import filter_and_pool
from ms_sincresnet.nnet.frontend import MSSincNet

from . import backends
from .backends import maps_and_gradients, music, needs_compiler, trained, white_noise

pytestmark = needs_compiler


def problem(batch, n_samples, n_filters, kernel_size):
    """Integers and offsets of halves, so that rounding switches no activation."""
    shapes = (batch, n_samples), (n_filters, kernel_size), (n_filters,)
    wavs, filters, offsets = (white_noise(*s).clamp(-2, 2).round() for s in shapes)
    return [wavs, filters, 0.5 + offsets]


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize(
    ("batch", "n_samples", "n_filters", "kernel_size", "padding", "n_frames"),
    [
        (1, 97, 1, 5, 0, 8),
        (2, 300, 11, 7, 3, 1024),  # more frames than samples
        (2, 4096, 32, 1, 0, 64),  # a full block
        (3, 5003, 33, 251, 125, 61),  # a prime
        (9, 200, 2, 11, 5, 16),  # more clips than sums of gradients
        (1, 2048, 3, 2048, 0, 16),  # a single output
        (1, 3, 2, 251, 125, 5),  # shorter than half a filter
    ],
)
def test_maps_and_gradients_are_those_of_pytorch(
    batch, n_samples, n_filters, kernel_size, padding, n_frames
):
    factors = problem(batch, n_samples, n_filters, kernel_size)
    maps, *grads = maps_and_gradients(filter_and_pool, factors, n_frames, padding)
    factors = [x.double() for x in factors]
    call = (backends.filter_and_pool, factors, n_frames, padding)
    expected, *expected_grads = maps_and_gradients(*call)
    assert maps.dtype == torch.float32
    assert maps.shape == expected.shape == (batch, n_filters, n_frames)
    largest = expected.max().item()
    torch.testing.assert_close(maps.double(), expected, rtol=0, atol=1e-6 * largest)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.shape == expected_grad.shape
        assert (grad - expected_grad).norm() < 1e-6 * expected_grad.norm()


def test_the_same_to_the_bit_in_any_number_of_threads_and_each_time():
    factors = torch.randn(10, 5003), torch.randn(40, 101), torch.randn(40)
    steps, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 1, 2, 3):
            torch.set_num_threads(n_threads)
            steps.append(maps_and_gradients(filter_and_pool, factors, 64, 50))
    finally:
        torch.set_num_threads(before)
    for step in steps[1:]:
        assert all(map(torch.equal, step, steps[0]))


@pytest.mark.parametrize("spoilt", ["filters", "wavs"])
def test_nan_is_not_hidden(spoilt):
    arguments = {"wavs": torch.randn(1, 600), "filters": torch.randn(1, 7)}
    arguments[spoilt][0, 3] = torch.nan
    maps = filter_and_pool(**arguments, offsets=torch.zeros(1), n_frames=8)
    assert maps.isnan().all()


CLIP = 4800  # samples


def small_frontend(kernel_sizes=(51, 201), n_filters=5, n_frames=64, **options):
    frontend = MSSincNet(n_filters, kernel_sizes, n_frames, **options)
    return trained(frontend).eval().requires_grad_(False)


def check(frontend, wav, hop_samples, clip_samples=CLIP):
    """Compares each map with the definition in float64, by its largest value."""
    exact = copy.deepcopy(frontend).double()
    exact.backend = "reference"
    clips = wav.double().unfold(0, clip_samples, hop_samples)
    expected = torch.cat([exact(clip[None]) for clip in clips])
    found = frontend.clip_maps(wav, clip_samples, hop_samples)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    errors = (found - expected).abs().amax((2, 3)) / expected.amax((2, 3))
    assert errors.max() < 1e-5


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize(
    ("options", "n_clips", "hop_samples", "clip_samples"),
    [
        ({"kernel_sizes": (251, 1001), "n_frames": 1024}, 2, 8000, 48000),
        *(({}, n, hop, CLIP) for n in (1, 7) for hop in (400, 2400)),
        ({"n_filters": 33, "n_frames": 7, "kernel_sizes": (51,)}, 5, 1200, CLIP),
        ({"n_frames": 6000, "kernel_sizes": (3, 5)}, 5, 1200, CLIP),
        ({"n_frames": 1, "kernel_sizes": (401, 201, 51)}, 5, 1200, CLIP),
    ],
)
def test_songs_have_the_maps_of_their_clips(
    options, n_clips, hop_samples, clip_samples, songs_filtered
):
    wav = music(clip_samples + (n_clips - 1) * hop_samples + hop_samples // 3)
    check(small_frontend(**options), wav, hop_samples, clip_samples)
    songs_filtered.assert_called_once()


SONG = music(10 * CLIP)
TIME = torch.arange(len(SONG))
HARD_SONGS = {
    "an offset that wanders": SONG + 8 * SONG.std() * torch.sin(TIME / 3000),
    # More than a clip of it before, between and after loud parts.
    "silence": SONG * torch.tensor([0, 1, 0, 0, 1, 1, 0, 0])[TIME * 8 // len(SONG)],
    "silence that ends within a piece": SONG * ((TIME - 4003) % 11117 > 7114),
    "a ramp of 60 dB": SONG * 10 ** (-3 * (1 - (2 * TIME / len(SONG)) % 1)),
    "clicks": torch.where(TIME % 7001 == 0, 100, SONG),
}


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("song", HARD_SONGS)
def test_clips_are_independent_of_their_neighbours(song, padding, songs_filtered):
    check(small_frontend(padding=padding), HARD_SONGS[song], 800)
    songs_filtered.assert_called_once()


@pytest.mark.parametrize(
    ("clip_samples", "hop_samples", "kernel_size"),
    [
        (4800, 700, 201),  # not a part of the clip
        (4800, 4800, 201),  # no overlap
        (4800, 800, 1001),  # shorter than the filters
        (9600, 4800, 2051),  # too long filters
    ],
)
def test_other_songs_are_filtered_clip_by_clip(
    clip_samples, hop_samples, kernel_size, songs_filtered
):
    wav = music(clip_samples + hop_samples + 100)
    frontend = small_frontend((51, kernel_size), n_filters=2)
    check(frontend, wav, hop_samples, clip_samples)
    songs_filtered.assert_not_called()
