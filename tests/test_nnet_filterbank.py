"""Filters against NumPy in float64, SciPy's windows and SpeechBrain's SincConv."""

import numpy as np
import pytest
import scipy.signal
import torch
from speechbrain.nnet.CNN import SincConv

from ms_sincresnet.nnet.filterbank import (
    SincFilterbank,
    half_hamming_window,
    mel_cutoffs,
    sinc_filters,
)

KERNEL_SIZES = (251, 501, 1001)
SAMPLE_RATE = 16000

each_kernel_size = pytest.mark.parametrize("kernel_size", KERNEL_SIZES)


def learned_bank(kernel_size):
    """A bank with cut-offs anywhere: negative parameters, bands beyond f_s / 2."""
    generator = torch.Generator().manual_seed(kernel_size)
    bank = SincFilterbank(n_filters=160, kernel_size=kernel_size)
    with torch.no_grad():
        bank.low_hz_.uniform_(-7800, 7800, generator=generator)
        bank.band_hz_.uniform_(-3000, 3000, generator=generator)
    return bank


def numpy_cutoffs(bank):
    """SincNet's parametrisation, with the defaults of 50 Hz, in float64."""
    low_hz_, band_hz_ = (
        parameter.detach().double().numpy()[:, 0]
        for parameter in (bank.low_hz_, bank.band_hz_)
    )
    low_hz = 50 + np.abs(low_hz_)
    return low_hz, np.clip(low_hz + 50 + np.abs(band_hz_), 50, SAMPLE_RATE / 2)


def numpy_filters(bank):
    """Eqs. (3) to (5) with SincNet's half window and scale, in float64."""
    half = bank.kernel_size // 2
    n = np.arange(-half, half + 1)

    def low_pass(cutoff_hz):
        f = cutoff_hz[:, None] / SAMPLE_RATE
        with np.errstate(invalid="ignore"):
            sinc = np.sin(2 * np.pi * f * n) / (2 * np.pi * f * n)
        return 2 * f * np.where(n == 0, 1, sinc)

    u = np.linspace(0, bank.kernel_size / 2 - 1, half)
    left = 0.54 - 0.46 * np.cos(2 * np.pi * u / bank.kernel_size)
    window = np.concatenate([left, [1], left[::-1]])
    low_hz, high_hz = numpy_cutoffs(bank)
    band = (high_hz - low_hz)[:, None] / SAMPLE_RATE
    return (low_pass(high_hz) - low_pass(low_hz)) * window / (2 * band)


@each_kernel_size
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make_bank", [SincFilterbank, learned_bank])
def test_filters_are_those_of_the_equations(make_bank, dtype, kernel_size):
    bank = make_bank(kernel_size=kernel_size)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        filters = bank.filters()
    assert filters.dtype == torch.float32
    np.testing.assert_allclose(
        filters.detach().numpy(), numpy_filters(bank), rtol=0, atol=5e-7
    )


@each_kernel_size
@pytest.mark.parametrize(("n_filters", "rounding"), [(80, 1e-5), (160, 2e-5)])
def test_filters_are_speechbrains_to_its_rounding(n_filters, rounding, kernel_size):
    """SincConv's float32 phases err by up to 5.5e-6 of 80 filters, 1.1e-5 of 160."""
    bank = SincFilterbank(n_filters, kernel_size)
    conv = SincConv(out_channels=n_filters, kernel_size=kernel_size, in_channels=1)
    conv.load_state_dict(bank.state_dict())  # the names of the parameters are the same
    conv.device = "cpu"
    theirs = conv._get_sinc_filters()[:, 0]
    torch.testing.assert_close(bank.filters(), theirs, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    ("kernel_size", "off_symmetric", "off_eq_5"),
    [(251, 2.7e-5, 0.0089), (501, 6.8e-6, 0.0045), (1001, 1.7e-6, 0.0023)],
)
def test_the_window_is_as_far_off_the_textbooks_as_said(
    kernel_size, off_symmetric, off_eq_5
):
    window = half_hamming_window(kernel_size).numpy()
    for symmetric, stated in [(True, off_symmetric), (False, off_eq_5)]:
        textbook = scipy.signal.windows.hamming(kernel_size, sym=symmetric)
        assert 0.95 * stated < np.abs(window - textbook).max() <= stated


@each_kernel_size
def test_a_filter_passes_its_band_and_stops_the_rest(kernel_size):
    low_hz, high_hz = torch.tensor([1000.0]), torch.tensor([3000.0])
    taps = sinc_filters(low_hz, high_hz, kernel_size, SAMPLE_RATE)[0].numpy()
    hz = np.array([200, 700, 1300, 2000, 2700, 3300, 5000, 7900])
    _, response = scipy.signal.freqz(taps, worN=hz, fs=SAMPLE_RATE)
    gain = np.abs(response) * 2 * (3000 - 1000) / SAMPLE_RATE  # SincNet's division
    np.testing.assert_allclose(gain, [0, 0, 1, 1, 1, 0, 0, 0], atol=0.01)


@pytest.mark.parametrize("kernel_size", [3, 25])
def test_gradients_of_the_cutoffs(kernel_size):
    low_hz = torch.tensor([60.0, 1000.0, 5000.0], dtype=torch.float64)
    high_hz = torch.tensor([200.0, 1200.0, 7900.0], dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda low_hz, high_hz: sinc_filters(low_hz, high_hz, kernel_size, SAMPLE_RATE),
        (low_hz.requires_grad_(), high_hz.requires_grad_()),
        eps=1e-3,  # Hz
        atol=1e-10,  # where gradients are about 1e-6 to 1e-3 a Hz
        rtol=1e-6,
    )


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_cutoffs_start_evenly_spaced_in_mel_from_30_hz(sample_rate):
    bank = SincFilterbank(n_filters=40, sample_rate=sample_rate)
    top_hz = sample_rate / 2 - 100  # 50 Hz are added to the cut-off, 50 to the band
    mel = np.linspace(*(2595 * np.log10(1 + np.array([30, top_hz]) / 700)), 41)
    edges_hz = 700 * (10 ** (mel / 2595) - 1)
    low_hz_, band_hz_ = (p.detach().numpy()[:, 0] for p in bank.parameters())
    np.testing.assert_allclose(low_hz_, edges_hz[:-1], rtol=1e-6)
    np.testing.assert_allclose(band_hz_, np.diff(edges_hz), rtol=1e-6)


def test_the_top_of_the_mel_scale_leaves_room_for_what_is_added():
    edges_hz = mel_cutoffs(5, 16000, min_low_hz=20.0, min_band_hz=10.0)
    assert edges_hz[0].item() == pytest.approx(30)
    assert edges_hz[-1].item() == pytest.approx(7970)


@pytest.mark.parametrize("make_bank", [SincFilterbank, learned_bank])
def test_cutoffs_are_sincnets(make_bank):
    bank = make_bank(kernel_size=251)
    low_hz, high_hz = bank.cutoffs()
    expected_low_hz, expected_high_hz = numpy_cutoffs(bank)
    assert low_hz.shape == high_hz.shape == (160,)
    np.testing.assert_allclose(low_hz.detach().numpy(), expected_low_hz, rtol=1e-12)
    np.testing.assert_allclose(high_hz.detach().numpy(), expected_high_hz, rtol=1e-12)
    assert high_hz.max() == 8000


def test_least_cutoff_and_bandwidth_can_be_chosen():
    bank = SincFilterbank(n_filters=4, min_low_hz=20.0, min_band_hz=10.0)
    torch.nn.init.zeros_(bank.low_hz_)
    torch.nn.init.zeros_(bank.band_hz_)
    low_hz, high_hz = bank.cutoffs()
    assert low_hz.tolist() == [20.0] * 4
    assert high_hz.tolist() == [30.0] * 4


def test_only_the_cutoffs_are_saved():
    state = SincFilterbank(n_filters=7).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "low_hz_": (7, 1),
        "band_hz_": (7, 1),
    }


def test_attributes_tell_the_sizes():
    bank = SincFilterbank(n_filters=7, kernel_size=501, sample_rate=22050)
    assert (bank.n_filters, bank.kernel_size, bank.sample_rate) == (7, 501, 22050)
    assert repr(bank).endswith("(n_filters=7, kernel_size=501, sample_rate=22050)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 250}, "kernel_size must be odd .* got 250"),
        ({"kernel_size": 251.0}, r"kernel_size must be odd .* got 251\.0"),
        ({"kernel_size": 1}, "kernel_size must be odd and at least 3.* got 1"),
        ({"n_filters": 0}, "n_filters .* got 0"),
        ({"n_filters": 2.5}, r"n_filters .* got 2\.5"),
        ({"init": "mels"}, "init must be one of mel.* got 'mels'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SincFilterbank(**arguments)
