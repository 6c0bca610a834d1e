"""Clips to maps: layer norm, three scales in order, and what a user may get wrong."""

import copy

import numpy as np
import pytest
import torch

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet import frontend as frontend_file
from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.songs import cut_song
from ms_sincresnet.nnet.filtering import filtered_maps, reference_maps
from ms_sincresnet.nnet.frontend import MSSincNet, normalize_clips

needs_compiler = pytest.mark.skipif(
    simd.LIBRARY is None, reason="installed without a C compiler"
)
KERNEL_SIZES = (251, 501, 1001)
SAMPLE_RATE = 16000


def music(n_samples=16000, batch=2):
    """Noise with a tone and an offset in it, as loud as music is."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(batch, n_samples, generator=generator)
    return noise + 0.3 * torch.sin(0.17 * torch.arange(n_samples)) + 0.02


def small_frontend(**options):
    """A front-end of three scales with eight filters each, no two norms alike."""
    torch.manual_seed(0)
    frontend = MSSincNet(n_filters=8, n_frames=64, **options)
    for norm in frontend.norms:
        for values in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(values)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return frontend


def test_layer_norm_is_numpys():
    wavs = music()
    samples = wavs.double().numpy()
    expected = samples - samples.mean(1, keepdims=True)
    expected /= np.sqrt(samples.var(1, keepdims=True) + 1e-8)
    normalized = normalize_clips(wavs)
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized, expected, rtol=0, atol=5e-6)
    double = normalize_clips(wavs.double())
    assert double.dtype == torch.float64
    np.testing.assert_allclose(double, expected, rtol=0, atol=1e-12)
    assert normalized.mean(1).abs().max() < 1e-6
    assert (normalized.var(1, correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("scale", [0.1, 3.0, 32768.0])
def test_layer_norm_takes_any_scale(scale):
    wavs = music()
    torch.testing.assert_close(
        normalize_clips(scale * wavs), normalize_clips(wavs), rtol=0, atol=1e-4
    )


def test_quiet_music_is_not_damped():
    quiet = music() / music().std() * 1e-3  # 60 dB below full scale
    power = normalize_clips(quiet).square().mean(1)
    torch.testing.assert_close(power, torch.ones(2), rtol=0, atol=0.02)


def test_each_clip_is_normalised_alone():
    wavs = music() * torch.tensor([[1.0], [50.0]])
    together = normalize_clips(wavs)
    assert together[1:].equal(normalize_clips(wavs[1:]))


def test_silence_stays_silent_and_a_constant_small():
    assert normalize_clips(torch.zeros(1, 48000)).eq(0).all()
    assert normalize_clips(torch.full((1, 48000), 0.3)).abs().max() < 0.5


def test_layer_norm_takes_integers_and_half_precision():
    samples = (music() * 32767).to(torch.int16)
    assert normalize_clips(samples).equal(normalize_clips(samples.float()))
    halved = music().bfloat16()
    assert normalize_clips(halved).equal(normalize_clips(halved.float()))


def test_maps_at_full_size():
    with torch.no_grad():
        maps = MSSincNet().eval()(music(48000))
    assert maps.shape == (2, 3, 160, 1024)
    assert maps.isfinite().all()


@pytest.mark.parametrize("hz", [440.0, 1000.0, 5000.0])
def test_a_tone_is_strongest_where_a_band_holds_it(hz):
    time_s = torch.arange(48000) / SAMPLE_RATE
    frontend = MSSincNet().eval()
    with torch.no_grad():
        strength = frontend(torch.sin(2 * torch.pi * hz * time_s)[None])[0].mean(-1)
    for scale, bank in enumerate(frontend.banks):
        low_hz, high_hz = bank.cutoffs()
        strongest = strength[scale].argmax()
        assert low_hz[strongest] < hz < high_hz[strongest]


@pytest.mark.parametrize("backend", ["reference", "fft", "auto"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_each_scale_has_its_own_filters_and_norm(padding, backend):
    frontend = small_frontend(padding=padding, backend=backend).eval()
    wavs = music()
    with torch.no_grad():
        maps = frontend(wavs)
        for scale, kernel_size in enumerate(KERNEL_SIZES):
            bank, norm = frontend.banks[scale], frontend.norms[scale]
            assert bank.kernel_size == kernel_size
            zeros = kernel_size // 2 if padding == "same" else 0
            expected = reference_maps(
                normalize_clips(wavs), bank.filters(), norm, 64, zeros
            )
            rounding = {"rtol": 0, "atol": 1e-5 * expected.max().item()}
            torch.testing.assert_close(maps[:, scale], expected, **rounding)


def test_other_scales_and_cutoffs_can_be_chosen():
    frontend = MSSincNet(
        n_filters=4,
        kernel_sizes=(11, 31),
        n_frames=16,
        sample_rate=8000,
        min_low_hz=20.0,
        min_band_hz=10.0,
    )
    assert frontend(music(800)).shape == (2, 2, 4, 16)
    for bank in frontend.banks:
        low_hz, high_hz = bank.cutoffs()
        assert low_hz[0].item() == pytest.approx(30 + 20)
        assert high_hz[-1].item() == pytest.approx(4000)


@pytest.mark.parametrize("backend", ["reference", "fft"])
@pytest.mark.parametrize("training", [True, False])
def test_autocast_changes_nothing(training, backend):
    frontend = small_frontend(backend=backend).train(training)
    expected = copy.deepcopy(frontend)(music())
    with torch.autocast("cpu", torch.bfloat16):
        maps = frontend(music())
    assert maps.dtype == torch.float32
    assert maps.equal(expected)


@pytest.mark.parametrize("training", [True, False])
def test_double_precision_gives_the_same_to_rounding(training):
    frontend = small_frontend(backend="reference").train(training)
    double = copy.deepcopy(frontend).double()
    wavs = music().double().requires_grad_()
    maps = double(wavs)
    assert maps.dtype == torch.float64
    torch.testing.assert_close(frontend(music()).double(), maps, rtol=0, atol=1e-4)
    maps.sum().backward()
    assert wavs.grad.abs().max() > 0
    assert double.banks[2].low_hz_.grad.dtype == torch.float64


def test_double_precision_samples_suit_a_single_precision_model():
    frontend = small_frontend().eval()
    maps = frontend(music().double())
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, frontend(music()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_works(dtype):
    halved = small_frontend().eval().to(dtype)
    frontend = copy.deepcopy(halved).float()  # with parameters rounded alike
    maps = halved(music())
    assert maps.dtype == dtype
    expected = frontend(music())
    atol = 0.01 * expected.max().item()
    torch.testing.assert_close(maps.float(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("backend", ["reference", "fft"])
@pytest.mark.parametrize("training", [True, False])
def test_silence_gives_finite_maps_and_gradients(training, backend):
    frontend = small_frontend(backend=backend).train(training)
    wavs = music(4000) * torch.tensor([[0.0], [1.0]])
    for silence in (wavs, wavs[:1]):
        frontend.zero_grad()
        maps = frontend(silence)
        assert maps.isfinite().all()
        maps.square().sum().backward()
        for values in (*frontend.buffers(), *(p.grad for p in frontend.parameters())):
            assert values.isfinite().all()


@pytest.mark.parametrize("backend", ["reference", "fft", "auto"])
@pytest.mark.parametrize("training", [True, False])
def test_a_clip_shorter_than_a_kernel_works(training, backend):
    maps = small_frontend(backend=backend).train(training)(music(n_samples=320))
    assert maps.shape == (2, 3, 8, 64)
    assert maps.isfinite().all()


def test_without_padding_such_a_clip_is_refused():
    frontend = small_frontend(padding="valid")
    assert frontend(music(n_samples=1001)).shape == (2, 3, 8, 64)
    with pytest.raises(ValueError, match="at least 1001 samples.* got 1000"):
        frontend(music(n_samples=1000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "zeros"}, "padding must be one of same, valid; got 'zeros'"),
        (
            {"backend": "cuda"},
            "backend must be one of auto, reference, fft, .*; got 'cuda'",
        ),
        ({"init": "mels"}, "init must be .* got 'mels'"),
        ({"kernel_sizes": (251, 500)}, "kernel_size must be odd .* got 500"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MSSincNet(**arguments)


def test_weights_load_into_a_front_end_of_their_lengths():
    saved, frontend = small_frontend(), MSSincNet(n_filters=8, n_frames=64)
    with torch.no_grad():
        saved.banks[1].low_hz_ += 100
    frontend.load_state_dict(saved.state_dict())
    assert frontend.eval()(music()).equal(saved.eval()(music()))


def test_weights_that_do_not_tell_their_lengths_are_refused():
    state = small_frontend().state_dict()
    del state["kernel_sizes"]
    with pytest.raises(RuntimeError, match="kernel_sizes"):
        small_frontend().load_state_dict(state)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kernel_sizes", [(251, 501, 1003), (1001, 501, 251)])
def test_weights_of_other_kernel_lengths_are_refused(kernel_sizes, strict):
    frontend = MSSincNet(n_filters=8, kernel_sizes=kernel_sizes)
    before = copy.deepcopy(frontend.state_dict())
    with pytest.raises(WeightsError) as error:
        frontend.load_state_dict(small_frontend().state_dict(), strict=strict)
    for lengths in (KERNEL_SIZES, kernel_sizes):
        assert str(list(lengths)) in str(error.value)
    for name, value in frontend.state_dict().items():
        assert value.equal(before[name])


def affine_frontend(n_samples=16000, **options):
    """A front-end whose layer norm has learned weights."""
    frontend = small_frontend(affine_samples=n_samples, **options)
    torch.nn.init.normal_(frontend.clip_norm.weight, mean=1.0, std=0.3)
    torch.nn.init.normal_(frontend.clip_norm.bias, std=0.1)
    return frontend


@pytest.mark.parametrize("scale", [1e-3, 1.0, 32768.0])
def test_a_layer_norm_with_weights_is_pytorchs(scale):
    frontend = affine_frontend()
    state = frontend.clip_norm.state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == {
        "weight": [1, 16000],
        "bias": [1, 16000],
    }
    theirs = torch.nn.LayerNorm([1, 16000]).double()
    theirs.load_state_dict(state)
    expected = theirs(scale * music()[:, None].double())[:, 0]
    normalized = frontend.normalize(scale * music())
    assert normalized.dtype == torch.float32
    torch.testing.assert_close(normalized.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "fft", "auto"])
def test_filters_are_applied_to_what_a_layer_norm_with_weights_gives(backend):
    frontend = affine_frontend(backend=backend).eval()
    with torch.no_grad():
        maps = frontend(music())
        for scale, (bank, norm) in enumerate(
            zip(frontend.banks, frontend.norms, strict=True)
        ):
            wavs = frontend.normalize(music())
            expected = reference_maps(
                wavs, bank.filters(), norm, 64, bank.kernel_size // 2
            )
            rounding = {"rtol": 0, "atol": 1e-5 * expected.max().item()}
            torch.testing.assert_close(maps[:, scale], expected, **rounding)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_norms_weights_get_their_gradients(training):
    frontend = affine_frontend(n_samples=4000).double().train(training)
    wavs = music(n_samples=4000).double()
    upstream = torch.randn(2, 3, 8, 64, dtype=torch.float64)

    def loss():
        return (frontend(wavs) * upstream).sum()

    loss().backward()
    for parameter in frontend.clip_norm.parameters():
        sample = parameter.grad.abs().argmax()
        slopes = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.view(-1)[sample] += step
                slopes.append(loss().item() / (2 * step))
                parameter.view(-1)[sample] -= step
        numeric = torch.tensor(sum(slopes), dtype=torch.float64)
        torch.testing.assert_close(
            parameter.grad.view(-1)[sample], numeric, rtol=1e-4, atol=0
        )
    assert all(parameter.grad is not None for parameter in frontend.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_a_backend_without_these_gradients_is_refused(training):
    frontend = affine_frontend(backend="fft").train(training)
    with pytest.raises(ValueError, match="backend='fft' gives no gradient .*'auto'"):
        frontend(music())
    with torch.no_grad():
        assert frontend(music()).shape == (2, 3, 8, 64)
    frontend.clip_norm.requires_grad_(False)
    frontend(music()).sum().backward()
    assert frontend.banks[0].low_hz_.grad is not None


def test_a_clip_of_another_length_than_the_layer_norms_is_refused():
    with pytest.raises(ValueError, match="clips of 16000 samples; got 12000"):
        affine_frontend()(music(n_samples=12000))


CLIP, HOP = 4800, 800  # samples


def song_frontend(**options):
    """A front-end in evaluation for which a song can be filtered once."""
    options = {"n_filters": 4, "kernel_sizes": (51, 201), "n_frames": 16} | options
    torch.manual_seed(0)
    return MSSincNet(**options).eval()


@pytest.fixture
def ways(monkeypatch):
    """Notes in a list for each call of ``clip_maps`` how the song is filtered."""
    taken = []

    def once(*arguments):
        taken.append("once")
        return cut_song(*arguments)

    def clip_by_clip(*arguments):
        taken.append("clip by clip")
        return filtered_maps(*arguments)

    monkeypatch.setattr(frontend_file, "cut_song", once)
    monkeypatch.setattr(frontend_file, "filtered_maps", clip_by_clip)
    return taken


@needs_compiler
@pytest.mark.parametrize("backend", ["auto", "simd"])
def test_a_song_is_filtered_once_where_no_gradient_is_needed(backend, ways):
    frontend, (song,) = song_frontend(backend=backend), music(2 * CLIP, batch=1)
    with torch.no_grad():
        expected = frontend.clip_maps(song, CLIP, HOP)
    with torch.inference_mode():
        assert frontend.clip_maps(song, CLIP, HOP).equal(expected)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert frontend.clip_maps(song, CLIP, HOP).equal(expected)
    # As SpeechBrain's EncoderClassifier runs: frozen, but with gradients enabled.
    maps = frontend.requires_grad_(False).clip_maps(song, CLIP, HOP)
    assert maps.equal(expected)
    assert not maps.requires_grad
    assert ways == 4 * ["once"]
    with torch.no_grad():
        clips = frontend(song.unfold(0, CLIP, HOP))
    torch.testing.assert_close(maps, clips, rtol=0, atol=1e-5 * clips.max().item())


def in_training(frontend, song):
    """Batch statistics are those of the clips."""
    return frontend.train().requires_grad_(False), song


def by_the_definition(frontend, song):
    """The definition is asked for."""
    frontend.backend = "reference"
    return frontend.requires_grad_(False), song


def by_ffts(frontend, song):
    """Another fast path is asked for."""
    frontend.backend = "fft"
    return frontend.requires_grad_(False), song


def with_parameters_to_learn(frontend, song):
    """The filters may need a gradient."""
    return frontend, song


def with_one_parameter_to_learn(frontend, song):
    """A batch norm may need a gradient."""
    frontend.requires_grad_(False).norms[1].bias.requires_grad_()
    return frontend, song


def with_a_song_to_learn(frontend, song):
    """The waveform may need a gradient."""
    return frontend.requires_grad_(False), song.requires_grad_()


def in_double_precision(frontend, song):
    """The compiled loops have single precision."""
    return frontend.double().requires_grad_(False), song.double()


def from_samples_of_double_precision(frontend, song):
    """The compiled loops have single precision."""
    return frontend.requires_grad_(False), song.double()


def with_a_layer_norm_that_has_weights(frontend, song):
    """A song has no layer norm of its own."""
    frontend = song_frontend(affine_samples=CLIP)
    torch.nn.init.normal_(frontend.clip_norm.weight)
    return frontend.requires_grad_(False), song


@pytest.mark.parametrize(
    "prepare",
    [
        in_training,
        by_the_definition,
        by_ffts,
        with_parameters_to_learn,
        with_one_parameter_to_learn,
        with_a_song_to_learn,
        in_double_precision,
        from_samples_of_double_precision,
        with_a_layer_norm_that_has_weights,
    ],
)
def test_else_a_songs_clips_are_filtered_one_by_one(prepare, ways):
    frontend, song = prepare(song_frontend(), music(2 * CLIP, batch=1)[0])
    same = copy.deepcopy(frontend)
    maps = frontend.clip_maps(song, CLIP, HOP)
    assert ways == 2 * ["clip by clip"]
    expected = same(song.unfold(0, CLIP, HOP))
    assert maps.equal(expected)
    for name, value in frontend.named_buffers():
        assert value.equal(same.get_buffer(name))
    learned = [p for p in (*frontend.parameters(), song) if p.requires_grad]
    assert maps.requires_grad == bool(learned)
    if learned:
        grads = torch.autograd.grad(maps.sum(), learned, allow_unused=True)
        assert any(grad is not None for grad in grads)


def test_without_compiled_loops_a_songs_clips_are_filtered_one_by_one(
    ways, monkeypatch
):
    monkeypatch.setattr(simd, "LIBRARY", None)
    frontend, (song,) = song_frontend(), music(2 * CLIP, batch=1)
    with torch.no_grad():
        maps = frontend.clip_maps(song, CLIP, HOP)
        assert ways == 2 * ["clip by clip"]
        assert maps.equal(frontend(song.unfold(0, CLIP, HOP)))
