"""Log-mel-spectrograms, against SciPy's transform and triangles written out here."""

import copy

import numpy as np
import pytest
import scipy.signal
import torch

from ms_sincresnet.nnet.frontend import LogMelSpectrogram


def noise(n_samples=48000, batch=1):
    """White noise of mean 0 and variance 1, or nearly."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, n_samples, generator=generator)


def mel_edges_hz(n_mels, sample_rate):
    """Lower edge, centre and upper edge of band m: items m, m + 1 and m + 2."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top, n_mels + 2) / 2595) - 1)


def reference(wav, n_mels=160, window_samples=512, hop_samples=128, sample_rate=16000):
    """The log-mel-spectrogram [n_mels, frames] of a clip, in float64."""
    wav = wav.numpy().astype(np.float64)
    wav = (wav - wav.mean()) / np.sqrt(wav.var() + 1e-8)
    window = scipy.signal.get_window("hann", window_samples)
    bins_hz, _, spectra = scipy.signal.stft(
        np.pad(wav, window_samples // 2, mode="reflect"),
        fs=sample_rate,
        window=window,
        nperseg=window_samples,
        noverlap=window_samples - hop_samples,
        nfft=4 * window_samples,
        boundary=None,
        padded=False,
    )
    power = np.abs(spectra * window.sum()) ** 2
    edges_hz = mel_edges_hz(n_mels, sample_rate)
    mel = []
    for low, centre, high in zip(edges_hz, edges_hz[1:], edges_hz[2:], strict=False):
        triangle = np.interp(bins_hz, [low, centre, high], [0, 1, 0], 0, 0)
        mel.append(2 / (high - low) * triangle @ power)
    return np.log(np.stack(mel) + 1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "n_mels": 40,
            "window_samples": 200,
            "hop_samples": 80,
            "sample_rate": 8000,
        },
    ],
    ids=["paper", "other"],
)
def test_it_is_the_spectrogram_of_scipy_and_numpy(options):
    wav = torch.cat([noise(8000), 0.001 * noise(8000)], dim=1) + 0.5
    found = LogMelSpectrogram(**options)(wav)
    expected = reference(wav[0], **options)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=0, atol=1.5e-4)
    # torchaudio computes the triangles in float32, whatever they are cast to.
    double = LogMelSpectrogram(**options).double()(wav.double())
    np.testing.assert_allclose(double[0, 0].numpy(), expected, rtol=0, atol=5e-5)


def test_the_shape_is_that_of_an_image():
    maps = LogMelSpectrogram(n_channels=2)(noise(48000, batch=4))
    assert maps.shape == (4, 2, 160, 1 + 48000 // 128)
    assert maps[:, 0].equal(maps[:, 1])
    assert not maps[0].equal(maps[1])


@pytest.mark.parametrize("band", [20, 60, 100, 159])
def test_a_tone_is_loudest_in_its_band(band):
    hz = mel_edges_hz(160, 16000)[band + 1]
    tone = torch.sin(2 * torch.pi * hz * torch.arange(8000) / 16000)
    maps = LogMelSpectrogram()(tone[None])[0, 0, :, 2:-2]  # reflected at the edges
    assert maps.argmax(0).tolist() == [band] * maps.shape[1]


def test_white_noise_is_as_loud_in_every_band():
    """Of equal area, and none empty: the lowest ones are 22 Hz wide."""
    power = LogMelSpectrogram()(noise(480000))[0, 0].double().exp().mean(1)
    # Squares of the window, times the bins in a triangle of area 1.
    assert power.mean() == pytest.approx(512 * 3 / 8 * 2048 / 16000, rel=0.02)
    assert power.min() > 0.8 * power.mean() and power.max() < 1.2 * power.mean()


def test_gain_and_offset_do_not_matter():
    spectrogram, wavs = LogMelSpectrogram(), noise(batch=2)
    found = spectrogram(torch.stack([3000 * wavs[0], 0.01 * wavs[1] + 0.1]))
    torch.testing.assert_close(found, spectrogram(wavs), rtol=0, atol=1e-3)


def test_silence_is_the_logarithm_of_the_floor():
    maps = LogMelSpectrogram()(torch.zeros(1, 8000))
    assert maps.min().item() == maps.max().item() == pytest.approx(np.log(1e-6))


def test_autocast_changes_nothing():
    spectrogram, wavs = LogMelSpectrogram(), noise(8000)
    with torch.autocast("cpu", torch.bfloat16):
        found = spectrogram(wavs)
    assert found.dtype == torch.float32
    assert found.equal(spectrogram(wavs))
    half = spectrogram(wavs.bfloat16())
    assert half.equal(spectrogram(wavs.bfloat16().float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clips_of_any_type_are_taken(dtype):
    spectrogram = LogMelSpectrogram().to(dtype)
    for wavs in (noise(8000), noise(8000).double()):
        assert spectrogram(wavs).dtype == dtype


def test_nothing_is_learned_or_saved():
    spectrogram = LogMelSpectrogram()
    assert not list(spectrogram.parameters())
    assert not spectrogram.state_dict()
    assert copy.deepcopy(spectrogram)(noise(8000)).equal(spectrogram(noise(8000)))
