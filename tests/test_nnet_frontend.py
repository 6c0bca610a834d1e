"""Clips to maps: layer norm, learned and hand-crafted representations, whole songs."""

import copy
import re

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet import frontend as frontend_file
from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.songs import cut_song
from ms_sincresnet.nnet.filtering import filtered_maps
from ms_sincresnet.nnet.frontend import LogMelSpectrogram, MSSincNet, normalize_clips

from .backends import needs_compiler

backends = pytest.mark.parametrize("backend", ["reference", "fft", "auto"])
modes = pytest.mark.parametrize("training", [True, False])
KERNEL_SIZES = (51, 101, 201)


def noise(n_samples, batch=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, n_samples, generator=generator)


def music(n_samples=4000, batch=2):
    """Noise with a tone and an offset in it, as loud as music is."""
    tone = torch.sin(0.17 * torch.arange(n_samples))
    return 0.1 * noise(n_samples, batch) + 0.3 * tone + 0.02


def small_frontend(**options):
    """A front-end of three scales with eight filters each, no two norms alike."""
    torch.manual_seed(0)
    sizes = {"n_filters": 8, "kernel_sizes": KERNEL_SIZES, "n_frames": 64}
    frontend = MSSincNet(**sizes | options)
    for norm in frontend.norms:
        for values in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(values)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return frontend


def affine_frontend(n_samples=4000, **options):
    frontend = small_frontend(affine_samples=n_samples, **options)
    torch.nn.init.normal_(frontend.clip_norm.weight, mean=1.0, std=0.3)
    torch.nn.init.normal_(frontend.clip_norm.bias, std=0.1)
    return frontend


@pytest.mark.parametrize("scale", [1.0, 32768.0, 1e-3 / 0.23])  # the last: quiet
def test_layer_norms_are_pytorchs(scale):
    wavs, frontend = scale * music(), affine_frontend()
    expected = F.layer_norm(wavs.double(), [4000], eps=1e-8)
    for dtype, rounding in [(torch.float32, 5e-6), (torch.float64, 1e-12)]:
        normalized = normalize_clips(wavs.to(dtype))
        assert normalized.dtype == dtype
        torch.testing.assert_close(normalized.double(), expected, rtol=0, atol=rounding)
    normalized = frontend.normalize(wavs)
    assert normalized.dtype == torch.float32
    expected = frontend.clip_norm.double()(wavs[:, None].double())[:, 0]
    torch.testing.assert_close(normalized.double(), expected, rtol=0, atol=1e-5)


@backends
@pytest.mark.parametrize(
    ("padding", "make"), [("same", small_frontend), ("valid", affine_frontend)]
)
def test_each_scale_has_its_own_filters_and_norm(padding, make, backend):
    frontend = make(padding=padding, backend=backend).eval()
    with torch.no_grad():
        maps, wavs = frontend(music()), frontend.normalize(music())
        for scale, kernel_size in enumerate(KERNEL_SIZES):
            bank, norm = frontend.banks[scale], frontend.norms[scale]
            assert bank.kernel_size == kernel_size
            zeros = kernel_size // 2 if padding == "same" else 0
            filtered = F.conv1d(wavs[:, None], bank.filters()[:, None], padding=zeros)
            expected = F.adaptive_avg_pool1d(norm(filtered).relu(), 64)
            rounding = {"rtol": 0, "atol": 1e-5 * expected.max().item()}
            torch.testing.assert_close(maps[:, scale], expected, **rounding)


def test_other_scales_and_cutoffs_can_be_chosen():
    cutoffs = {"sample_rate": 8000, "min_low_hz": 20.0, "min_band_hz": 10.0}
    frontend = MSSincNet(4, kernel_sizes=(11, 31), n_frames=16, **cutoffs)
    assert frontend(music(800)).shape == (2, 2, 4, 16)
    for bank in frontend.banks:
        found = [hz.tolist() for hz in bank.cutoffs()]
        assert (found[0][0], found[1][-1]) == pytest.approx((30 + 20, 4000))


@backends
@modes
def test_maps_of_clips_shorter_than_a_kernel_are_finite(training, backend):
    frontend = small_frontend(backend=backend).train(training)
    maps = frontend(music(64))
    maps.square().sum().backward()
    gradients = [parameter.grad for parameter in frontend.parameters()]
    for values in (maps, *frontend.buffers(), *gradients):
        assert values.isfinite().all()


def test_clips_of_a_wrong_length_and_bad_arguments_are_refused():
    frontend = small_frontend(padding="valid")
    assert frontend(music(201)).shape == (2, 3, 8, 64)
    with pytest.raises(ValueError, match="at least the 201 samples .* got 200"):
        frontend(music(200))
    with pytest.raises(ValueError, match="clips of 4000 samples; got 3000"):
        affine_frontend()(music(3000))
    with pytest.raises(ValueError, match="padding must be same or valid; got 'zeros'"):
        MSSincNet(padding="zeros")
    with pytest.raises(ValueError, match="backend must be .* auto, .*; got 'cuda'"):
        MSSincNet(backend="cuda")


def test_weights_load_only_into_a_front_end_of_their_kernel_lengths():
    saved = small_frontend().eval()
    state = saved.state_dict()
    frontend = MSSincNet(n_filters=8, kernel_sizes=KERNEL_SIZES, n_frames=64).eval()
    frontend.load_state_dict(state)
    assert frontend(music()).equal(saved(music()))
    for kernel_sizes in [(51, 101, 203), (201, 101, 51)]:
        other = MSSincNet(n_filters=8, kernel_sizes=kernel_sizes)
        lengths = re.escape(f"{list(KERNEL_SIZES)}, the model has {list(kernel_sizes)}")
        with pytest.raises(WeightsError, match=lengths):
            other.load_state_dict(state, strict=False)
    del state["kernel_sizes"]
    with pytest.raises(RuntimeError, match="kernel_sizes"):
        frontend.load_state_dict(state)


@modes
def test_a_layer_norms_weights_get_their_gradients(training):
    sizes = {"n_filters": 2, "kernel_sizes": (11,), "n_frames": 8}
    frontend = affine_frontend(64, **sizes).double().train(training)
    names = ["clip_norm.weight", "clip_norm.bias"]
    torch.autograd.gradcheck(
        lambda *values: functional_call(
            frontend, dict(zip(names, values, strict=True)), music(64).double()
        ),
        [frontend.get_parameter(name).detach().requires_grad_() for name in names],
    )


def test_a_backend_without_these_gradients_is_refused():
    frontend = affine_frontend(backend="fft")
    with pytest.raises(ValueError, match="backend='fft' gives no gradient .*'auto'"):
        frontend(music())
    with torch.no_grad():
        assert frontend(music()).shape == (2, 3, 8, 64)
    frontend.clip_norm.requires_grad_(False)
    frontend(music()).sum().backward()
    assert frontend.banks[0].low_hz_.grad is not None


CLIP, HOP = 4800, 800  # samples
SONG = music(2 * CLIP, batch=1)[0]


@pytest.fixture
def ways(monkeypatch):
    """Ways in which songs were filtered, in order."""
    taken = []

    def spied(way, function):
        return lambda *arguments: taken.append(way) or function(*arguments)

    once, clip_by_clip = spied("once", cut_song), spied("clip by clip", filtered_maps)
    monkeypatch.setattr(frontend_file, "cut_song", once)
    monkeypatch.setattr(frontend_file, "filtered_maps", clip_by_clip)
    return taken


@needs_compiler
@pytest.mark.parametrize("backend", ["auto", "simd"])
def test_a_song_is_filtered_once_where_no_gradient_is_needed(backend, ways):
    frontend = small_frontend(backend=backend).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = frontend.clip_maps(SONG, CLIP, HOP)
    # As SpeechBrain's EncoderClassifier runs: frozen, but with gradients enabled.
    maps = frontend.requires_grad_(False).clip_maps(SONG, CLIP, HOP)
    assert maps.equal(expected)
    assert not maps.requires_grad
    assert ways == 2 * ["once"]
    clips = frontend(SONG.unfold(0, CLIP, HOP))
    torch.testing.assert_close(maps, clips, rtol=0, atol=1e-5 * clips.max().item())


def frozen(**options):
    return small_frontend(**options).eval().requires_grad_(False)


OTHER_CASES = {
    "training": lambda: (frozen().train(), SONG),
    "fft": lambda: (frozen(backend="fft"), SONG),
    "parameters to learn": lambda: (small_frontend().eval(), SONG),
    "samples of double precision": lambda: (frozen(), SONG.double()),
    "a layer norm with weights": lambda: (frozen(affine_samples=CLIP), SONG),
    "no compiled loops": lambda: (frozen(), SONG),
}


@pytest.mark.parametrize("case", OTHER_CASES)
def test_otherwise_a_songs_clips_are_filtered_separately(case, ways, monkeypatch):
    if case == "no compiled loops":
        monkeypatch.setattr(simd, "LIBRARY", None)
    frontend, song = OTHER_CASES[case]()
    same = copy.deepcopy(frontend)
    maps = frontend.clip_maps(song, CLIP, HOP)
    assert ways == 3 * ["clip by clip"]
    assert maps.equal(same(song.unfold(0, CLIP, HOP)))
    assert maps.requires_grad == case.endswith("to learn")
    for name, value in frontend.named_buffers():
        assert value.equal(same.get_buffer(name))


@pytest.mark.parametrize("sizes", [(160, 512, 128, 16000), (40, 200, 80, 8000)])
def test_the_spectrogram_is_torchaudios(sizes):
    wavs = torch.cat([noise(8000), 0.001 * noise(8000)], dim=1).double() + 0.5
    n_mels, window, hop, rate = sizes
    options = {"n_mels": n_mels, "win_length": window, "hop_length": hop}
    theirs = MelSpectrogram(rate, 4 * window, norm="slaney", **options).double()
    expected = (theirs(normalize_clips(wavs)) + 1e-6).log()
    for dtype, rounding in [(torch.float32, 2e-4), (torch.float64, 1e-9)]:
        found = LogMelSpectrogram(*sizes).to(dtype)(wavs.to(dtype))[:, 0]
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=rounding)


def test_a_spectrogram_ignores_gain_offset_and_autocast():
    spectrogram, wavs = LogMelSpectrogram(), noise(8000, batch=2)
    expected = spectrogram(wavs)
    found = spectrogram(torch.stack([3000 * wavs[0], 0.01 * wavs[1] + 0.1]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert spectrogram(wavs).equal(expected)
    silence = spectrogram(torch.zeros(1, 8000))
    assert silence.min().item() == silence.max().item() == pytest.approx(np.log(1e-6))
