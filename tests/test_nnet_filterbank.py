"""Filters against NumPy in float64, SciPy's windows and SpeechBrain's SincConv."""

from functools import partial

import numpy as np
import pytest
import scipy.signal
import torch
from speechbrain.nnet.CNN import SincConv
from torch.func import functional_call

from ms_sincresnet.nnet.filterbank import (
    INITS,
    PARAMETRIZATIONS,
    SCALES,
    SincFilterbank,
    half_hamming_window,
    initial_edges,
)
from ms_sincresnet.nnet.frontend import MSSincNet

from .backends import white_noise

SAMPLE_RATE = 16000
each_kernel_size = pytest.mark.parametrize("kernel_size", [251, 501, 1001])
edges = partial(initial_edges, min_low_hz=50, min_band_hz=50)  # the defaults


def spread(bank, *most):
    torch.manual_seed(0)
    for parameter, size in zip(bank.parameters(), most, strict=True):
        torch.nn.init.uniform_(parameter, -size, size)
    return bank


def relative_bank(kernel_size=251, n_filters=160, **options):
    return SincFilterbank(n_filters, kernel_size, parametrization="relative", **options)


BANKS = {
    "initial": lambda size: SincFilterbank(160, size),
    # Negative parameters, and bands beyond half the sample rate.
    "learned": lambda size: spread(SincFilterbank(160, size), 7800, 3000),
    "relative": lambda size: spread(relative_bank(size), 3, 2),
}


def numpy_cutoffs(bank):
    """SincNet's parametrisation, or the relative one, with the defaults of 50 Hz."""
    first, second = (p.detach().double().numpy()[:, 0] for p in bank.parameters())
    if bank.parametrization == "hz":
        low_hz, band_hz = 50 + np.abs(first), 50 + np.abs(second)
    else:
        start_hz, end_hz = (hz.detach().numpy() for hz in relative_bank().cutoffs())
        low_hz = np.clip(start_hz + (end_hz - start_hz) * first, 50, 7950)
        band_hz = np.maximum((end_hz - start_hz) * np.exp(second), 50)
    return low_hz, np.clip(low_hz + band_hz, 50, SAMPLE_RATE / 2)


def numpy_filters(kernel_size, *cutoffs):
    """Eqs. (3) to (5) with SincNet's half window and scale, in float64."""
    half = kernel_size // 2
    n = np.arange(-half, half + 1)
    turns = np.linspace(0, 0.5 - 1 / kernel_size, half)
    left = 0.54 - 0.46 * np.cos(2 * np.pi * turns)
    window = np.concatenate([left, [1], left[::-1]])
    f1, f2 = (hz[:, None] / SAMPLE_RATE for hz in cutoffs)
    band = 2 * f2 * np.sinc(2 * f2 * n) - 2 * f1 * np.sinc(2 * f1 * n)
    return band * window / (2 * (f2 - f1))


@each_kernel_size
@pytest.mark.parametrize("kind", BANKS)
def test_filters_are_those_of_the_equations(kind, kernel_size):
    bank = BANKS[kind](kernel_size)
    with torch.autocast("cpu", torch.bfloat16):  # which changes nothing
        cutoffs, filters = bank.cutoffs(), bank.filters().detach()
    cutoffs = [hz.detach().numpy() for hz in cutoffs]
    rounding = 1e-12 if bank.parametrization == "hz" else 1e-5
    for found, expected in zip(cutoffs, numpy_cutoffs(bank), strict=True):
        np.testing.assert_allclose(found, expected, rtol=rounding)
    assert filters.dtype == torch.float32
    expected = numpy_filters(kernel_size, *cutoffs)
    np.testing.assert_allclose(filters, expected, rtol=0, atol=5e-7)


@each_kernel_size
def test_filters_are_speechbrains_to_its_rounding(kernel_size):
    bank = SincFilterbank(160, kernel_size)
    conv = SincConv(out_channels=160, kernel_size=kernel_size, in_channels=1)
    conv.load_state_dict(bank.state_dict())  # the names of the parameters are the same
    conv.device = "cpu"
    theirs = conv._get_sinc_filters()[:, 0]
    torch.testing.assert_close(bank.filters(), theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("symmetric", "stated"), [(True, 2.7e-5), (False, 0.0089)])
def test_the_window_differs_from_the_textbooks_as_stated(symmetric, stated):
    window = half_hamming_window(251).numpy()
    textbook = scipy.signal.windows.hamming(251, sym=symmetric)
    assert 0.95 * stated < np.abs(window - textbook).max() <= stated


def test_mel_edges_are_sincnets_to_the_bit():
    ends_hz = torch.tensor([30, 7900], dtype=torch.float64)
    ends = (2595 * torch.log10(1 + ends_hz / 700)).tolist()
    mel = torch.linspace(*ends, 161, dtype=torch.float64)
    expected = 700 * (10 ** (mel / 2595) - 1)
    low_hz_, band_hz_ = SincFilterbank().parameters()
    assert torch.equal(low_hz_[:, 0], expected[:-1].float())
    assert torch.equal(band_hz_[:, 0], expected.diff().float())


def test_scales_are_as_published_and_invertible():
    hz = torch.linspace(30, 24000, 999, dtype=torch.float64)
    published = {"mel": 1000, "linear": 1000, "bark": 8.5, "erb": 15.6}
    for name, (to_scale, to_hz) in SCALES.items():
        value = to_scale(torch.tensor(1000.0)).item()
        assert value == pytest.approx(published[name], rel=0.004)
        torch.testing.assert_close(to_hz(to_scale(hz)), hz, rtol=1e-12, atol=0)
    assert edges("linear", 4, 16000).diff().tolist() == pytest.approx([1967.5] * 4)


def test_octave_bands_are_cut_into_equal_parts():
    octaves_hz = [30, 200, 400, 800, 1600, 3200, 7900]  # Jiang et al.
    assert edges("octave", 6, 16000).tolist() == octaves_hz
    assert edges("octave", 8, 48000).tolist() == [*octaves_hz[:-1], 6400, 12800, 23900]
    thirds_hz = edges("octave", 18, 16000)
    np.testing.assert_allclose(thirds_hz[::3], octaves_hz)
    widths_hz = thirds_hz.diff().reshape(-1, 3)
    np.testing.assert_allclose(widths_hz, np.diff(octaves_hz)[:, None].repeat(3, 1) / 3)


def test_nase_bands_are_mpeg_7s():
    # Half octaves about 1 kHz, 16 from 62.5 Hz to 16 kHz, and one on either side.
    half_octaves_hz = [1000 * 2 ** (m / 2) for m in range(-8, 9)]
    expected = [30, *half_octaves_hz, 23900]
    assert edges("nase", 18, 48000).tolist() == pytest.approx(expected, rel=1e-12)
    # They reach the end of the range where that is below 16 kHz.
    expected = [30, *np.geomspace(62.5, 7900, 160)]
    np.testing.assert_allclose(edges("nase", 160, 16000), expected)


@pytest.mark.parametrize("sample_rate", [8000, 22050, 48000])
@pytest.mark.parametrize("init", INITS)
def test_every_initial_bank_fits_any_sample_rate(init, sample_rate):
    for n_filters in (1, 2, 3, 7, 160):
        edges_hz = edges(init, n_filters, sample_rate).numpy()
        assert edges_hz.shape == (n_filters + 1,)
        assert (np.diff(edges_hz) > 0).all()
        assert edges_hz[[0, -1]] == pytest.approx([30, sample_rate / 2 - 100])
        bank = SincFilterbank(n_filters, sample_rate=sample_rate, init=init)
        low_hz, high_hz = (hz.detach().numpy() for hz in bank.cutoffs())
        assert low_hz[0] == pytest.approx(80)
        assert high_hz.max() == high_hz[-1] == pytest.approx(sample_rate / 2)
        assert (high_hz - low_hz >= 50).all()
        assert (np.diff(low_hz) > 0).all() and (np.diff(high_hz) > 0).all()
        assert bank.filters().isfinite().all()


def test_least_cutoff_and_bandwidth_can_be_chosen():
    bank = SincFilterbank(n_filters=4, min_low_hz=20.0, min_band_hz=10.0)
    for parameter in bank.parameters():
        torch.nn.init.zeros_(parameter)
    assert [hz.tolist() for hz in bank.cutoffs()] == [[20.0] * 4, [30.0] * 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 250}, "kernel_size must be odd and ≥ 3; got 250"),
        ({"n_filters": 2.5}, r"n_filters .* got 2\.5"),
        ({"init": "mels"}, "of mel, linear, .*, random; got 'mels'"),
        ({"parametrization": "bark"}, "must be hz or relative; got 'bark'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SincFilterbank(**arguments)


@each_kernel_size
@pytest.mark.parametrize("init", ["mel", "linear", "nase"])
def test_relative_filters_start_as_those_in_hz(init, kernel_size):
    bank = SincFilterbank(160, kernel_size, init=init)
    assert torch.equal(relative_bank(kernel_size, init=init).filters(), bank.filters())


@pytest.mark.parametrize("log_band", [0.0, 9.0, -9.0, 1e30])
@pytest.mark.parametrize("shift", [0.0, 99.0, -99.0, -1e30])
def test_beyond_the_limits_descent_leads_back(shift, log_band):
    bank = relative_bank(n_filters=8)
    torch.nn.init.constant_(bank.low_shift_, shift)
    torch.nn.init.constant_(bank.log_band_, log_band)
    low_hz, high_hz = bank.cutoffs()
    assert low_hz.min() >= 50 - 1e-6 and high_hz.max() <= 8000
    assert (high_hz - low_hz).min() >= 50 - 1e-6
    filters = bank.filters()
    assert filters.isfinite().all()
    for sign in (1, -1):  # of two opposite losses
        loss = (sign * filters[:, ::7]).sum()
        grads = torch.autograd.grad(loss, bank.parameters(), retain_graph=True)
        for value, grad in zip((shift, log_band), grads, strict=True):
            assert grad.isfinite().all()
            if abs(value) > 9 and shift == 0 or value == shift != 0:
                assert (grad * value >= 0).all()  # the step is against it
                assert (grad * value > 0).any()


@pytest.mark.parametrize("backend", ["reference", "fft"])
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_gradients_of_the_cutoffs_in_float64(parametrization, backend):
    sizes = {"n_filters": 6, "kernel_sizes": (51,), "n_frames": 4, "backend": backend}
    frontend = MSSincNet(**sizes, init="linear", parametrization=parametrization)
    frontend, wavs = frontend.double(), white_noise(2, 200).double()
    start = [0.1, -0.3] if parametrization == "relative" else [500.0, 300.0]
    steps = 1 + white_noise(2, 6, 1).abs().double() / 5
    names = [f"banks.0.{name}" for name, _ in frontend.banks[0].named_parameters()]
    torch.autograd.gradcheck(
        lambda *values: functional_call(
            frontend, dict(zip(names, values, strict=True)), wavs
        ),
        [(x * step).requires_grad_() for x, step in zip(start, steps, strict=True)],
    )


def test_weights_bring_their_first_cutoffs_along():
    saved = spread(relative_bank(init="nase"), 0.5, 0.5)
    loaded = relative_bank(init="mel")
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.filters(), saved.filters())
