"""A song filtered once gives the maps of its clips, each filtered alone in float64."""

import copy

import numpy as np
import pytest
import torch

from ms_sincresnet.nnet import frontend as frontend_file
from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.songs import cut_song, maps_of_clips, piece_size
from ms_sincresnet.nnet.filtering import reference_maps
from ms_sincresnet.nnet.frontend import MSSincNet

needs_compiler = pytest.mark.skipif(
    simd.LIBRARY is None, reason="installed without a C compiler"
)
CLIP = 4800  # samples


def noise(n_samples, seed=0):
    """Noise with a tone in it."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.1 * torch.randn(n_samples, generator=generator)
    return noise + 0.1 * torch.sin(0.17 * torch.arange(n_samples))


def small_frontend(kernel_sizes=(51, 201), n_filters=5, n_frames=64, **options):
    """A front-end in evaluation, its batch norms' weights of both signs and zero."""
    torch.manual_seed(0)
    frontend = MSSincNet(n_filters, kernel_sizes, n_frames, **options).eval()
    for norm in frontend.norms:
        torch.nn.init.normal_(norm.running_mean, std=0.3)
        torch.nn.init.uniform_(norm.running_var, 0.1, 4)
        torch.nn.init.normal_(norm.bias, std=0.5)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(-2, 2, n_filters).round())
            assert norm.weight.min() < 0 < norm.weight.max()
            assert norm.weight.eq(0).any()
    return frontend.requires_grad_(False)


def clip_by_clip(frontend, wav, clip_samples, hop_samples):
    """The definition of each clip's maps in float64."""
    frontend = copy.deepcopy(frontend).double()
    frontend.backend = "reference"
    clips = wav.double().unfold(0, clip_samples, hop_samples)
    return torch.cat([frontend(clip[None]) for clip in clips])


def expect_equal(found, expected, tolerance=1e-5):
    """Compares each map of each clip by the largest of its values."""
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    errors = (found - expected).abs().amax((2, 3)) / expected.amax((2, 3))
    assert errors.max() < tolerance


@pytest.fixture
def ways(monkeypatch):
    """Notes in a list for each call of ``clip_maps`` that the song is filtered once."""
    taken = []

    def spy(*arguments):
        taken.append("once")
        return cut_song(*arguments)

    monkeypatch.setattr(frontend_file, "cut_song", spy)
    return taken


@needs_compiler
@pytest.mark.parametrize(
    ("hop_samples", "padding"),
    [
        (8000, "same"),
        (4000, "valid"),
        (16000, "valid"),
        (24000, "same"),
        (48000, "same"),
    ],
)
def test_clips_of_three_seconds_are_those_filtered_alone(hop_samples, padding, ways):
    frontend = small_frontend((251, 1001), 3, n_frames=1024, padding=padding)
    wav = noise(48000 + hop_samples + 1234)
    found = frontend.clip_maps(wav, 48000, hop_samples)
    assert ways == ["once"]
    expect_equal(found, clip_by_clip(frontend, wav, 48000, hop_samples))


def with_an_offset(wav):
    """As a badly adjusted recorder leaves it."""
    return wav + 5 * wav.std()


def with_a_wandering_offset(wav):
    """An offset that changes by many standard deviations within a clip."""
    return wav + 8 * wav.std() * torch.sin(torch.arange(len(wav)) / 3000)


def with_silence(wav):
    """Digital silence, of more than a clip, before, between and after loud parts."""
    parts = torch.arange(len(wav)) * 8 // len(wav)
    return wav * torch.tensor([0, 1, 0, 0, 1, 1, 0, 0])[parts]


def with_silence_of_odd_lengths(wav):
    """Digital silence that does not end where a piece does."""
    wav = wav.clone()
    wav[:701] = wav[4003:11117] = 0
    return wav


def with_a_ramp(wav):
    """From silence to loudness by 60 dB, and suddenly back."""
    return wav * 10 ** (-3 * (1 - torch.linspace(0, 2, len(wav)) % 1))


def with_clicks(wav):
    """One sample a thousand times as loud now and then."""
    wav = wav.clone()
    wav[::7001] = 100
    return wav


@needs_compiler
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "change",
    [
        with_an_offset,
        with_a_wandering_offset,
        with_silence,
        with_silence_of_odd_lengths,
        with_a_ramp,
        with_clicks,
    ],
)
def test_no_clip_hears_its_neighbours(change, padding, ways):
    frontend = small_frontend(padding=padding)
    wav = change(noise(10 * CLIP))
    found = frontend.clip_maps(wav, CLIP, 800)
    assert ways == ["once"]
    expect_equal(found, clip_by_clip(frontend, wav, CLIP, 800))


@needs_compiler
def test_a_silent_clip_is_silent_whatever_is_beside_it():
    frontend = small_frontend()
    wav = with_silence(1000 * noise(16 * CLIP))
    silent = wav.unfold(0, CLIP, 800).eq(0).all(1)
    assert silent.sum() > 10
    assert not silent.all()
    found = frontend.clip_maps(wav, CLIP, 800)[silent]
    alone = frontend.clip_maps(torch.zeros(CLIP), CLIP, 800)
    assert found.equal(alone.expand_as(found))


@needs_compiler
@pytest.mark.parametrize("n_clips", [1, 2, 7])
@pytest.mark.parametrize("hop_samples", [400, 1600, 2400, CLIP])
def test_songs_of_any_number_of_clips(hop_samples, n_clips, ways):
    frontend = small_frontend()
    wav = noise(CLIP + (n_clips - 1) * hop_samples)
    found = frontend.clip_maps(wav, CLIP, hop_samples)
    assert ways == ["once"]
    assert len(found) == n_clips
    expect_equal(found, clip_by_clip(frontend, wav, CLIP, hop_samples))


@pytest.mark.parametrize(
    ("hop_samples", "kernel_sizes"),
    [
        (700, (51, 201)),  # not a part of the clip
        (7000, (51, 201)),  # between clips is a gap
        (800, (51, 1001)),  # filters longer than the hop
        (CLIP, (51, 4095)),  # too long for the FFT
        (CLIP, (51, 4097)),
        (CLIP, (51, 5001)),
    ],
)
def test_other_hops_and_lengths_are_filtered_clip_by_clip(
    hop_samples, kernel_sizes, ways
):
    frontend = small_frontend(kernel_sizes)
    wav = noise(CLIP + 2 * hop_samples + 100)
    found = frontend.clip_maps(wav, CLIP, hop_samples)
    assert ways == []
    assert len(found) == 3
    expect_equal(found, clip_by_clip(frontend, wav, CLIP, hop_samples))


@needs_compiler
@pytest.mark.parametrize(
    ("n_filters", "n_frames", "kernel_sizes"),
    [(1, 64, (51,)), (33, 7, (51,)), (6, 6000, (3, 5)), (6, 1, (401, 201, 51))],
)
def test_other_sizes_of_the_maps(n_filters, n_frames, kernel_sizes, ways):
    torch.manual_seed(0)
    frontend = MSSincNet(n_filters, kernel_sizes, n_frames).eval()
    with torch.no_grad():
        found = frontend.clip_maps(noise(2 * CLIP), CLIP, 1200)
        expect_equal(found, clip_by_clip(frontend, noise(2 * CLIP), CLIP, 1200))
    assert ways == ["once"]


@needs_compiler
def test_a_song_need_not_be_contiguous(ways):
    frontend, wav = small_frontend(), noise(3 * CLIP)
    channel = torch.stack([wav, wav], -1)[:, 0]
    expected = frontend.clip_maps(wav, CLIP, 800)
    found = frontend.clip_maps(channel, CLIP, 800)
    assert ways == ["once", "once"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@needs_compiler
def test_the_same_to_the_bit_in_any_number_of_threads_and_each_time():
    frontend, wav = small_frontend(n_filters=40), noise(3 * CLIP)
    expected = frontend.clip_maps(wav, CLIP, 800)
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            assert frontend.clip_maps(wav, CLIP, 800).equal(expected)
    finally:
        torch.set_num_threads(before)


@needs_compiler
def test_filters_that_are_not_symmetric():
    generator = torch.Generator().manual_seed(0)
    filters = torch.randn(5, 51, generator=generator)
    offsets = torch.randn(5, generator=generator)
    scales = torch.rand(3, generator=generator) + 0.5
    wav = 3 + noise(CLIP + 2 * 800)
    song = cut_song(wav, CLIP, 800, 800)
    for padding in (0, 10, 25, 50):
        found = maps_of_clips(song, scales, [(filters, offsets, padding)], 64)[:, 0]
        clips = wav.double().unfold(0, CLIP, 800)
        clips = (clips - clips.mean(1, keepdim=True)) * scales[:, None]
        added = torch.nn.BatchNorm1d(5, eps=0).double().eval().requires_grad_(False)
        added.bias.copy_(offsets)
        expected = reference_maps(clips, filters.double(), added, 64, padding)
        expect_equal(found[:, None], expected[:, None])


@pytest.mark.parametrize(
    ("clip_samples", "hop_samples", "kernel_size"),
    [
        *((48000, hop, 1001) for hop in (1000, 2000, 4000, 8000, 16000, 24000, 48000)),
        *((48000, 8000, kernel_size) for kernel_size in (1, 251, 2001)),
        (66150, 11025, 1001),
        (48000, 8000, 999),
    ],
)
def test_pieces_make_up_hop_and_clip_and_fit_the_fft(
    clip_samples, hop_samples, kernel_size
):
    samples = piece_size(clip_samples, hop_samples, kernel_size)
    assert hop_samples % samples == clip_samples % samples == 0
    # Of one piece, what comes before and after it must not meet.
    assert kernel_size - 1 <= samples <= 4096 - kernel_size + 1


@pytest.mark.parametrize(
    ("clip_samples", "hop_samples", "kernel_size"),
    [
        (48000, 7000, 1001),
        (48000, 96000, 1001),
        (48000, 500, 1001),
        (44887, 44887, 1001),  # a prime
        (48000, 24000, 2051),
        (48000, 24000, 4097),
        (48000, 24000, 9001),
    ],
)
def test_where_there_are_no_such_pieces(clip_samples, hop_samples, kernel_size):
    assert piece_size(clip_samples, hop_samples, kernel_size) is None


@pytest.mark.parametrize("offset", [0.0, 3.0, -100.0])
def test_statistics_of_the_clips_are_numpys(offset):
    wav = noise(3 * CLIP + 77) + offset
    song = cut_song(wav, CLIP, 1600, 800)
    clips = wav.double().unfold(0, CLIP, 1600).numpy()
    assert (song.span, song.hop, len(song.means)) == (6, 2, 18)
    assert len(clips) == len(song.clip_means)
    error = 1e-6 * max(abs(offset), 0.1)
    np.testing.assert_allclose(song.clip_means, clips.mean(1), rtol=0, atol=error)
    np.testing.assert_allclose(song.clip_variances, clips.var(1), rtol=1e-4)
    whole = (song.centred + song.means[:, None]).flatten()
    torch.testing.assert_close(whole, wav[: 3 * CLIP], rtol=0, atol=10 * error)
    assert song.centred.mean(1).abs().max() < error
