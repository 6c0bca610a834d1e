"""A song that is filtered once has the maps of its clips in float64."""

import copy

import pytest
import torch

from ms_sincresnet.nnet.backends import songs
from ms_sincresnet.nnet.backends.songs import piece_size
from ms_sincresnet.nnet.frontend import MSSincNet

from .backends import needs_compiler

CLIP = 4800  # samples
LONG = {"kernel_sizes": (251, 1001), "n_filters": 3, "n_frames": 1024}


def noise(n_samples):
    noise = torch.randn(n_samples, generator=torch.Generator().manual_seed(0))
    return 0.1 * noise + 0.1 * torch.sin(0.17 * torch.arange(n_samples))


def small_frontend(kernel_sizes=(51, 201), n_filters=5, n_frames=64, **options):
    """A front-end in evaluation, its batch norms' weights of both signs and zero."""
    torch.manual_seed(0)
    frontend = MSSincNet(n_filters, kernel_sizes, n_frames, **options).eval()
    for norm in frontend.norms:
        torch.nn.init.normal_(norm.running_mean, std=0.3)
        torch.nn.init.uniform_(norm.running_var, 0.1, 4)
        torch.nn.init.normal_(norm.bias, std=0.5)
        norm.weight.data = torch.linspace(-2, 2, n_filters).round()
    return frontend.requires_grad_(False)


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


@pytest.fixture
def filtered_once(monkeypatch):
    """Fails unless songs are filtered once."""
    loops, make_loop = [], songs._loop_over
    monkeypatch.setattr(
        songs, "_loop_over", lambda *args: loops.append(args) or make_loop(*args)
    )
    yield
    assert loops


@needs_compiler
@pytest.mark.parametrize(
    ("options", "n_clips", "hop_samples", "clip_samples"),
    [
        (LONG | {"padding": "same"}, 2, 8000, 48000),
        (LONG | {"padding": "valid"}, 2, 4000, 24000),
        *(({}, n, hop, CLIP) for n in (1, 2, 7) for hop in (400, 1600, 2400)),
        ({"n_filters": 1, "kernel_sizes": (51,)}, 5, 1200, CLIP),
        ({"n_filters": 33, "n_frames": 7, "kernel_sizes": (51,)}, 5, 1200, CLIP),
        ({"n_frames": 6000, "kernel_sizes": (3, 5)}, 5, 1200, CLIP),
        ({"n_frames": 1, "kernel_sizes": (401, 201, 51)}, 5, 1200, CLIP),
    ],
)
def test_songs_have_the_maps_of_their_clips(
    options, n_clips, hop_samples, clip_samples, filtered_once
):
    wav = noise(clip_samples + (n_clips - 1) * hop_samples + hop_samples // 3)
    check(small_frontend(**options), wav, hop_samples, clip_samples)


SONG = noise(10 * CLIP)
TIME = torch.arange(len(SONG))
HARD_SONGS = {
    "an offset": SONG + 5 * SONG.std(),
    "an offset that wanders": SONG + 8 * SONG.std() * torch.sin(TIME / 3000),
    # Silence of more than a clip before, between and after loud parts.
    "silence": SONG * torch.tensor([0, 1, 0, 0, 1, 1, 0, 0])[TIME * 8 // len(SONG)],
    "silence that ends within a piece": SONG * ((TIME - 4003) % 11117 > 7114),
    "a ramp of 60 dB": SONG * 10 ** (-3 * (1 - (2 * TIME / len(SONG)) % 1)),
    "clicks": torch.where(TIME % 7001 == 0, 100, SONG),
}


@needs_compiler
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("song", HARD_SONGS)
def test_clips_are_independent_of_their_neighbours(song, padding, filtered_once):
    check(small_frontend(padding=padding), HARD_SONGS[song], 800)


@pytest.mark.parametrize(
    ("clip_samples", "hop_samples", "kernel_size"),
    [
        (4800, 700, 201),  # not a part of the clip
        *((4800, no_overlap, 201) for no_overlap in (4800, 9600)),
        (4800, 800, 1001),  # shorter than the filters
        (9574, 4787, 1001),  # a prime
        *((9600, 4800, too_long) for too_long in (2051, 4097)),
    ],
)
def test_other_songs_are_filtered_clip_by_clip(
    clip_samples, hop_samples, kernel_size, monkeypatch
):
    assert piece_size(clip_samples, hop_samples, kernel_size) is None
    monkeypatch.setattr(songs, "_loop_over", None)
    wav = noise(clip_samples + hop_samples + 100)
    frontend = small_frontend((51, kernel_size), n_filters=2)
    check(frontend, wav, hop_samples, clip_samples)
