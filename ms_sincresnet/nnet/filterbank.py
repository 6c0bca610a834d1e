"""Cut-off frequencies to band-pass FIR filters, and where the cut-offs start."""

import torch
from torch import nn


def half_hamming_window(kernel_size, device=None):
    """SincNet's Hamming window, built from its left half.

    The paper's eq. (5) as the original SincNet evaluates it: ⌊L/2⌋ points u, evenly
    from 0 to L/2 − 1, give 0.54 − 0.46 cos(2π u / L); the half is mirrored about a
    centre of 1. It is off the textbook's symmetric window, with n / (L − 1), by at most
    2.7e-5 (L = 251), 6.8e-6 (L = 501) and 1.7e-6 (L = 1001); off eq. (5) to the letter,
    with n / L, which is not symmetric, by 0.0089, 0.0045 and 0.0023.

    Arguments
    ---------
    kernel_size : int
        Length L of the window in samples (odd).
    device : torch.device, optional
        Where it is built.

    Returns
    -------
    torch.Tensor [kernel_size]
        The window, in float64.

    Example
    -------
    >>> window = half_hamming_window(251)
    >>> round(window[0].item(), 4), window[125].item()
    (0.08, 1.0)
    """
    half, last = kernel_size // 2, kernel_size / 2 - 1
    u = torch.linspace(0, last, steps=half, dtype=torch.float64, device=device)
    left = 0.54 - 0.46 * torch.cos(2 * torch.pi * u / kernel_size)
    return torch.cat([left, left.new_ones(1), left.flip(0)])


def sinc_filters(low_hz, high_hz, kernel_size, sample_rate):
    """Windowed-sinc band-pass impulse responses, one row a filter.

    The paper's eqs. (3) to (5): g[n] = (2 f₂ sinc(2 f₂ n) − 2 f₁ sinc(2 f₁ n)) · w[n],
    with sinc(x) = sin(πx) / (πx), f in cycles a sample and n counted from the centre,
    divided by twice the bandwidth as in SincNet, so that every centre tap is 1.

    The arithmetic is float64 whatever the arguments are: the outer taps of a filter
    of length 1001 have phases of 1500 rad, which float32 resolves to 1e-4 only.

    Arguments
    ---------
    low_hz : torch.Tensor [n_filters]
        Lower cut-off frequencies, in Hz.
    high_hz : torch.Tensor [n_filters]
        Upper cut-off frequencies, in Hz.
    kernel_size : int
        Length L of every filter in samples (odd).
    sample_rate : int
        Sample rate, in Hz.

    Returns
    -------
    torch.Tensor [n_filters, kernel_size]
        The filters, in float64. They are symmetric.

    Example
    -------
    >>> low_hz, high_hz = torch.tensor([500.0]), torch.tensor([1500.0])
    >>> taps = sinc_filters(low_hz, high_hz, kernel_size=251, sample_rate=16000)
    >>> taps.shape, taps[0, 125].item()
    (torch.Size([1, 251]), 1.0)
    """
    f1, f2 = (hz.double()[:, None] / sample_rate for hz in (low_hz, high_hz))
    n = torch.arange(-(kernel_size // 2), 0, dtype=f1.dtype, device=f1.device)
    left = (2 * f2 * torch.sinc(2 * f2 * n) - 2 * f1 * torch.sinc(2 * f1 * n)) / (
        2 * (f2 - f1)
    )
    centre = torch.ones_like(f1)
    taps = torch.cat([left, centre, left.flip(1)], dim=1)
    return taps * half_hamming_window(kernel_size, taps.device)


def mel_cutoffs(n_filters, sample_rate, min_low_hz, min_band_hz):
    """SincNet's initial cut-offs: neighbouring bands, evenly spaced in mel.

    The mel scale (2595 log₁₀(1 + f/700)) from 30 Hz to f_s/2 less ``min_low_hz`` and
    ``min_band_hz``, which the filterbank adds to what it has learned.

    Arguments
    ---------
    n_filters : int
        Number of bands.
    sample_rate : int
        Sample rate, in Hz.
    min_low_hz : float
        Least lower cut-off frequency, in Hz.
    min_band_hz : float
        Least bandwidth, in Hz.

    Returns
    -------
    torch.Tensor [n_filters + 1]
        The edges of the bands, in Hz and float64.

    Example
    -------
    >>> edges_hz = mel_cutoffs(160, 16000, min_low_hz=50.0, min_band_hz=50.0)
    >>> [round(hz, 1) for hz in edges_hz[[0, 1, -1]].tolist()]
    [30.0, 41.3, 7900.0]
    """
    low_hz, high_hz = 30.0, sample_rate / 2 - (min_low_hz + min_band_hz)
    ends = torch.tensor([low_hz, high_hz], dtype=torch.float64)
    low_mel, high_mel = (2595 * torch.log10(1 + ends / 700)).tolist()
    mel = torch.linspace(low_mel, high_mel, n_filters + 1, dtype=torch.float64)
    return 700 * (10 ** (mel / 2595) - 1)


INITS = {"mel": mel_cutoffs}


class SincFilterbank(nn.Module):
    """Band-pass filters of which only the two cut-off frequencies are learned.

    M. Ravanelli, Y. Bengio, "Speaker recognition from raw waveform with SincNet",
    SLT 2018; the paper's section 2.1, eqs. (1) to (5). The lower cut-off is
    min_low_hz + |low_hz_| and the upper one min_band_hz + |band_hz_| above it, at
    most half the sample rate. Parameter names are SincNet's and SpeechBrain's.

    Arguments
    ---------
    n_filters : int
        Filters in the bank, K.
    kernel_size : int
        Taps of each filter, L (odd). 251 taps are 15.7 ms at 16 kHz.
    sample_rate : int
        Sample rate of the waveform, in Hz.
    init : str
        Scale on which the cut-offs start evenly spaced: "mel".
    min_low_hz : float
        Least lower cut-off frequency, in Hz.
    min_band_hz : float
        Least bandwidth, in Hz.

    Raises
    ------
    ValueError
        If ``kernel_size`` is even (the filter would have no centre), or ``init``
        is unknown.

    Example
    -------
    >>> bank = SincFilterbank(n_filters=160, kernel_size=251)
    >>> bank.filters().shape
    torch.Size([160, 251])
    >>> sum(p.numel() for p in bank.parameters())  # two a filter, however long
    320
    """

    def __init__(
        self,
        n_filters=160,
        kernel_size=251,
        sample_rate=16000,
        init="mel",
        min_low_hz=50.0,
        min_band_hz=50.0,
    ):
        super().__init__()
        if not isinstance(n_filters, int) or n_filters < 1:
            raise ValueError(f"n_filters must be a whole number ≥ 1; got {n_filters!r}")
        if not isinstance(kernel_size, int) or kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(
                "kernel_size must be odd and at least 3, so that the filter has a "
                f"centre; got {kernel_size!r}"
            )
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)}; got {init!r}")
        self.n_filters = n_filters
        self.kernel_size = kernel_size
        self.sample_rate = sample_rate
        self.min_low_hz = min_low_hz
        self.min_band_hz = min_band_hz
        edges_hz = INITS[init](n_filters, sample_rate, min_low_hz, min_band_hz)
        self.low_hz_ = nn.Parameter(edges_hz[:-1, None].float())
        self.band_hz_ = nn.Parameter(edges_hz.diff()[:, None].float())

    def cutoffs(self):
        """The cut-off frequencies as they are now.

        Returns
        -------
        low_hz : torch.Tensor [n_filters]
            Lower cut-off frequencies, in Hz and float64.
        high_hz : torch.Tensor [n_filters]
            Upper cut-off frequencies, in Hz and float64.

        Example
        -------
        >>> low_hz, high_hz = SincFilterbank().cutoffs()
        >>> round(low_hz[0].item()), round(high_hz[-1].item())
        (80, 8000)
        """
        low_hz = self.min_low_hz + self.low_hz_.double().abs()
        high_hz = low_hz + self.min_band_hz + self.band_hz_.double().abs()
        high_hz = high_hz.clamp(self.min_low_hz, self.sample_rate / 2)
        return low_hz[:, 0], high_hz[:, 0]

    def filters(self):
        """The impulse responses, computed in float64 and cast, also under autocast.

        Returns
        -------
        torch.Tensor [n_filters, kernel_size]
            The filters, in the parameters' type.

        Example
        -------
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     SincFilterbank().filters().dtype
        torch.float32
        """
        taps = sinc_filters(*self.cutoffs(), self.kernel_size, self.sample_rate)
        return taps.to(self.low_hz_.dtype)

    def extra_repr(self):
        """The sizes, for ``print``.

        Returns
        -------
        str
            What stands in the brackets.
        """
        return (
            f"n_filters={self.n_filters}, kernel_size={self.kernel_size}, "
            f"sample_rate={self.sample_rate}"
        )
