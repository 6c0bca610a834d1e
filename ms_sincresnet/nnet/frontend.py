"""MSSincNet: clips of waveform to the channels of an image."""

import torch
from torch import nn

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.filtering import BACKENDS, filtered_maps

PADDINGS = ("same", "valid")


def normalize_clips(wavs, eps=1e-8):
    """Layer norm of each clip, without affine.

    The paper's section 2.2.1. With so small an ``eps``, quiet music is not damped and
    silence gives zeros.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Clips.
    eps : float
        What is added to the variance.

    Returns
    -------
    torch.Tensor [batch, time]
        Clips of mean 0 and variance 1, in float32 at least.

    Example
    -------
    >>> normalize_clips(torch.zeros(1, 4))
    tensor([[0., 0., 0., 0.]])
    """
    wavs = wavs.to(torch.promote_types(wavs.dtype, torch.float32))
    centred = wavs - wavs.mean(1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + eps)


class MSSincNet(nn.Module):
    """Learned representations of a clip at several scales.

    The paper's section 2.2.2 and Fig. 2. Layer norm of the clip; then, at each scale,
    a filterbank, batch norm, ReLU and adaptive average pooling.

    Arguments
    ---------
    n_filters : int
        Filters of each bank, K.
    kernel_sizes : tuple of int
        Taps of each bank's filters, L; one bank a scale.
    n_frames : int
        Frames of each map.
    sample_rate : int
        Sample rate of the waveform, in Hz.
    init : str
        As in ``SincFilterbank``.
    padding : str
        "same": zeros at the edges keep the clip's length, eq. (6). "valid": none.
    backend : str
        "reference": conv1d → BatchNorm1d → ReLU → adaptive pooling, the definition.
        "fft": the same outputs from FFT blocks. "auto": the fastest that can be used.
    min_low_hz : float
        Least lower cut-off frequency, in Hz.
    min_band_hz : float
        Least bandwidth, in Hz.

    Raises
    ------
    ValueError
        If an argument is not one of those named, or a kernel length is even.

    Example
    -------
    >>> frontend = MSSincNet(n_filters=8).eval()
    >>> frontend(torch.randn(2, 48000)).shape
    torch.Size([2, 3, 8, 1024])
    """

    def __init__(
        self,
        n_filters=160,
        kernel_sizes=(251, 501, 1001),
        n_frames=1024,
        sample_rate=16000,
        init="mel",
        padding="same",
        backend="auto",
        min_low_hz=50.0,
        min_band_hz=50.0,
    ):
        super().__init__()
        for name, value, choices in [
            ("padding", padding, PADDINGS),
            ("backend", backend, BACKENDS),
        ]:
            if value not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}; got {value!r}"
                )
        self.n_frames = n_frames
        self.padding = padding
        self.backend = backend
        self.banks = nn.ModuleList(
            SincFilterbank(
                n_filters, kernel_size, sample_rate, init, min_low_hz, min_band_hz
            )
            for kernel_size in kernel_sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(n_filters) for _ in kernel_sizes)
        # Saved, because the parameters have the same shapes whatever the lengths are.
        self.register_buffer("kernel_sizes", torch.tensor(list(kernel_sizes)))

    def forward(self, wavs):
        """Maps of a batch of clips.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips at ``sample_rate``, on any scale.

        Returns
        -------
        torch.Tensor [batch, scales, n_filters, n_frames]
            The maps, in the parameters' type, also under autocast.

        Raises
        ------
        ValueError
            If ``padding`` is "valid" and the clips are shorter than a kernel.
        """
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = normalize_clips(wavs).to(self.banks[0].low_hz_.dtype)
            maps = [
                self._one_scale(wavs, bank, norm)
                for bank, norm in zip(self.banks, self.norms, strict=True)
            ]
            return torch.stack(maps, dim=1)

    def _one_scale(self, wavs, bank, norm):
        """Filters → batch norm → ReLU → pooling, by the definition or a fast path."""
        padding = bank.kernel_size // 2 if self.padding == "same" else 0
        if wavs.shape[1] + 2 * padding < bank.kernel_size:
            raise ValueError(
                f"with padding='valid' a clip needs at least {bank.kernel_size} "
                f"samples, the longest kernel; got {wavs.shape[1]}"
            )
        return filtered_maps(
            wavs, bank.filters(), norm, self.n_frames, padding, self.backend
        )

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """Refuses weights of other kernel lengths, which would fit by their shapes."""
        saved = state_dict.get(f"{prefix}kernel_sizes")
        if saved is not None and saved.tolist() != self.kernel_sizes.tolist():
            raise WeightsError(
                f"the weights are for kernel_sizes {saved.tolist()}, the model has "
                f"{self.kernel_sizes.tolist()}; build it with the weights' lengths"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
