"""Clips to maps: layer norm, learned and hand-crafted representations, whole songs."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.frontend import LogMelSpectrogram, MSSincNet, normalize_clips

from .backends import music, needs_compiler, trained, white_noise

KERNEL_SIZES = (51, 101, 201)


def small_frontend(**options):
    sizes = {"n_filters": 8, "kernel_sizes": KERNEL_SIZES, "n_frames": 64}
    return trained(MSSincNet(**sizes | options))


def affine_frontend(n_samples=4000, **options):
    frontend = small_frontend(affine_samples=n_samples, **options)
    torch.nn.init.normal_(frontend.clip_norm.weight, mean=1.0, std=0.3)
    torch.nn.init.normal_(frontend.clip_norm.bias, std=0.1)
    return frontend


@pytest.mark.parametrize("scale", [1.0, 32768.0, 1e-3 / 0.23])  # the last: quiet
def test_layer_norms_are_pytorchs(scale):
    wavs, frontend = scale * music(2, 4000), affine_frontend()
    expected = F.layer_norm(wavs.double(), [4000], eps=1e-8)
    for dtype, rounding in [(torch.float32, 5e-6), (torch.float64, 1e-12)]:
        normalized = normalize_clips(wavs.to(dtype))
        assert normalized.dtype == dtype
        torch.testing.assert_close(normalized.double(), expected, rtol=0, atol=rounding)
    normalized = frontend.normalize(wavs)
    assert normalized.dtype == torch.float32
    expected = frontend.clip_norm.double()(wavs[:, None].double())[:, 0]
    torch.testing.assert_close(normalized.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "fft", "auto"])
@pytest.mark.parametrize(
    ("padding", "make"), [("same", small_frontend), ("valid", affine_frontend)]
)
def test_each_scale_has_its_own_filters_and_norm(padding, make, backend):
    bounds = {"sample_rate": 8000, "min_low_hz": 20.0, "min_band_hz": 10.0}
    frontend = make(padding=padding, backend=backend, **bounds).eval()
    with torch.no_grad():
        maps, wavs = frontend(music(2, 4000)), frontend.normalize(music(2, 4000))
        for scale, kernel_size in enumerate(KERNEL_SIZES):
            filters = SincFilterbank(8, kernel_size, **bounds).filters()[:, None]
            zeros = kernel_size // 2 if padding == "same" else 0
            filtered = F.conv1d(wavs[:, None], filters, padding=zeros)
            expected = F.adaptive_avg_pool1d(frontend.norms[scale](filtered).relu(), 64)
            rounding = {"rtol": 0, "atol": 1e-5 * expected.max().item()}
            torch.testing.assert_close(maps[:, scale], expected, **rounding)


def test_clips_of_a_wrong_length_and_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least the 201 samples .* got 200"):
        small_frontend(padding="valid")(music(2, 200))
    with pytest.raises(ValueError, match="clips of 4000 samples; got 3000"):
        affine_frontend()(music(2, 3000))
    with pytest.raises(ValueError, match="padding must be same or valid; got 'zeros'"):
        MSSincNet(padding="zeros")
    with pytest.raises(ValueError, match="backend must be .* auto, .*; got 'cuda'"):
        MSSincNet(backend="cuda")


def test_a_layer_norms_weights_learn_by_the_reference_alone():
    frontend = affine_frontend()
    frontend(music(2, 4000)).sum().backward()
    assert all(values.grad.ne(0).any() for values in frontend.clip_norm.parameters())
    frontend.backend = "fft"
    with pytest.raises(ValueError, match="backend='fft' gives no gradient .*'auto'"):
        frontend(music(2, 4000))
    frontend.clip_norm.requires_grad_(False)
    assert frontend(music(2, 4000)).requires_grad


CLIP, HOP = 4800, 800  # samples
SONG = music(2 * CLIP)


def frozen(**options):
    return small_frontend(**options).eval().requires_grad_(False)


@needs_compiler
@pytest.mark.parametrize("backend", ["auto", "simd"])
def test_a_song_is_filtered_once_where_no_gradient_is_needed(backend, songs_filtered):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = small_frontend(backend=backend).eval().clip_maps(SONG, CLIP, HOP)
    # As SpeechBrain's EncoderClassifier runs: frozen, but with gradients enabled.
    frontend = frozen(backend=backend)
    maps = frontend.clip_maps(SONG, CLIP, HOP)
    assert maps.equal(expected)
    assert not maps.requires_grad
    assert songs_filtered.call_count == 2
    clips = frontend(SONG.unfold(0, CLIP, HOP))
    torch.testing.assert_close(maps, clips, rtol=0, atol=1e-5 * clips.max().item())


OTHER_CASES = {
    "training": lambda: (frozen().train(), SONG),
    "fft": lambda: (frozen(backend="fft"), SONG),
    "parameters to learn": lambda: (small_frontend().eval(), SONG),
    "a layer norm with weights": lambda: (frozen(affine_samples=CLIP), SONG),
    "no compiled loops": lambda: (frozen(), SONG),
}


@pytest.mark.parametrize("case", OTHER_CASES)
def test_otherwise_a_songs_clips_are_filtered_separately(
    case, songs_filtered, monkeypatch
):
    if case == "no compiled loops":
        monkeypatch.setattr(simd, "LIBRARY", None)
    frontend, song = OTHER_CASES[case]()
    same = copy.deepcopy(frontend)
    maps = frontend.clip_maps(song, CLIP, HOP)
    songs_filtered.assert_not_called()
    assert maps.equal(same(song.unfold(0, CLIP, HOP)))
    assert maps.requires_grad == case.endswith("to learn")
    for name, value in frontend.named_buffers():
        assert value.equal(same.get_buffer(name))


@pytest.mark.parametrize("sizes", [(160, 512, 128, 16000), (40, 200, 80, 8000)])
def test_the_spectrogram_is_torchaudios(sizes):
    wavs = white_noise(1, 8000).double()
    wavs = torch.cat([wavs, 0.001 * wavs, 0 * wavs], dim=1) + 0.5
    n_mels, window, hop, rate = sizes
    options = {"n_mels": n_mels, "win_length": window, "hop_length": hop}
    theirs = MelSpectrogram(rate, 4 * window, norm="slaney", **options).double()
    expected = (theirs(normalize_clips(wavs)) + 1e-6).log()
    for dtype, rounding in [(torch.float32, 2e-4), (torch.float64, 1e-9)]:
        with torch.autocast("cpu", torch.bfloat16):
            found = LogMelSpectrogram(*sizes).to(dtype)(wavs.to(dtype))[:, 0]
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=rounding)
