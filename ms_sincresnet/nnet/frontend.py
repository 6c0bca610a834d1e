"""Clips of waveform to the channels of an image, learned or hand-crafted."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.backends.songs import cut_song, maps_of_clips
from ms_sincresnet.nnet.devices import capable
from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.filtering import BACKENDS, filtered_maps, fold_norm, song_piece
from ms_sincresnet.nnet.sync_batch_norm import SharedBatchNorm1d, mean_over_processes


def scale_to_unit_variance(variances: Tensor, eps: float = 1e-8) -> Tensor:
    """Factors to variance 1; so small an ``eps`` does not damp quiet music."""
    return torch.rsqrt(variances + eps)


def normalize_clips(wavs: Tensor, eps: float = 1e-8) -> Tensor:
    """Layer norm of each clip [batch, time], without affine, in at least float32."""
    wavs = wavs.to(torch.promote_types(wavs.dtype, torch.float32))
    centred = wavs - wavs.mean(1, keepdim=True)
    variances = centred.square().mean(1, keepdim=True)
    return centred * scale_to_unit_variance(variances, eps)


class MSSincNet(nn.Module):
    """Learned representations of a clip at several scales.

    Layer norm of the clip; then, at each scale, a filterbank, batch norm, ReLU and
    adaptive average pooling: the paper's section 2.2.2 and Fig. 2. Its parameters stay
    on the CPU instead of MPS, which has no float64; inputs and outputs may be there.

    Arguments
    ---------
    n_filters
        Filters of each bank, K.
    kernel_sizes
        Taps of each bank's filters, L; one bank per scale.
    n_frames
        Frames of each map.
    sample_rate, init, min_low_hz, min_band_hz, parametrization
        As in ``SincFilterbank``.
    padding
        "same": zeros at the edges keep the clip's length, eq. (6). "valid": no zeros.
    backend
        "reference": the definition. "fft", "simd", "tensor_cores": the same outputs,
        faster. "auto": the fastest that suits the device and the precision.
    affine_samples
        Clip length if the layer norm has a weight and a bias per sample, as in the
        authors' released code; learning them takes the definition's time.

    Raises
    ------
    ValueError
        If ``padding``, ``backend`` or ``init`` is unknown, or a kernel length is even.

    Example
    -------
    >>> frontend = MSSincNet(n_filters=8).eval()
    >>> frontend(torch.randn(2, 48000)).shape
    torch.Size([2, 3, 8, 1024])
    """

    kernel_sizes: Tensor

    def __init__(
        self,
        n_filters: int = 160,
        kernel_sizes: tuple[int, ...] = (251, 501, 1001),
        n_frames: int = 1024,
        sample_rate: int = 16000,
        init: str = "mel",
        padding: str = "same",
        backend: str = "auto",
        min_low_hz: float = 50.0,
        min_band_hz: float = 50.0,
        affine_samples: int | None = None,
        parametrization: str = "hz",
    ):
        super().__init__()
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be same or valid; got {padding!r}")
        if backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            raise ValueError(f"backend must be one of {known}; got {backend!r}")
        self.n_frames, self.padding, self.backend = n_frames, padding, backend
        # The authors' shape, and nn.LayerNorm's eps, which differs from ours.
        self.clip_norm = nn.LayerNorm([1, affine_samples]) if affine_samples else None
        options = (sample_rate, init, min_low_hz, min_band_hz, parametrization)
        self.banks: Any = nn.ModuleList(
            SincFilterbank(n_filters, length, *options) for length in kernel_sizes
        )
        self.norms: Any = nn.ModuleList(nn.BatchNorm1d(n_filters) for _ in kernel_sizes)
        # Saved because parameters have the same shapes for all kernel lengths.
        self.register_buffer("kernel_sizes", torch.tensor(list(kernel_sizes)))

    def forward(self, wavs: Tensor) -> Tensor:
        """Maps [batch, scales, n_filters, n_frames] of clips [batch, time]."""
        device, half = wavs.device, torch.is_autocast_enabled(wavs.device.type)
        wavs = capable(wavs)
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = self.normalize(wavs).to(self.norms[0].weight.dtype)
            maps = []
            for filters, norm, padding in self._scales():
                if wavs.shape[1] + 2 * padding < filters.shape[1]:
                    raise ValueError(
                        "with padding='valid' a clip needs at least the "
                        f"{filters.shape[1]} samples of a kernel; got {wavs.shape[1]}"
                    )
                options = (self.n_frames, padding, self.backend, half)
                maps.append(filtered_maps(wavs, filters, norm, *options))
            return torch.stack(maps, dim=1).to(device)

    def clip_maps(self, wav: Tensor, clip_samples: int, hop_samples: int) -> Tensor:
        """Maps [clips, scales, n_filters, n_frames] of all clips of a song [time]."""
        cut, device, wav = (clip_samples, hop_samples), wav.device, capable(wav)
        with torch.autocast(wav.device.type, enabled=False):
            scales = [*self._scales()]
            piece = song_piece(wav, scales, *cut, self.backend)
            # A layer norm's weights start again with each clip.
            if piece is not None and self.clip_norm is None:
                song = cut_song(wav, *cut, piece)
                gains = scale_to_unit_variance(song.clip_variances)
                banks = [(*fold_norm(filters, norm), n) for filters, norm, n in scales]
                return maps_of_clips(song, gains, banks, self.n_frames).to(device)
        return self(wav.unfold(0, *cut)).to(device)

    def normalize(self, wavs: Tensor) -> Tensor:
        """Layer norm of clips [batch, time], with or without affine."""
        norm: Any = self.clip_norm
        if norm is None:
            return normalize_clips(wavs)
        if wavs.shape[1] != norm.weight.shape[1]:
            raise ValueError(
                f"the layer norm has weights for clips of {norm.weight.shape[1]} "
                f"samples; got {wavs.shape[1]}"
            )
        wavs = normalize_clips(wavs, norm.eps) * norm.weight + norm.bias
        if wavs.requires_grad and self.backend not in ("auto", "reference"):
            raise ValueError(
                f"backend={self.backend!r} gives no gradient to the weights of the "
                "layer norm. Use backend='auto'"
            )
        return wavs

    def zeros_at_the_edges(self, bank: SincFilterbank) -> int:
        """Zeros on either side of a clip for one of ``banks``."""
        return bank.kernel_size // 2 if self.padding == "same" else 0

    def _scales(self) -> Iterator[tuple[Tensor, nn.BatchNorm1d, int]]:
        """Filters, batch norm and padding of each scale."""
        for bank, norm in zip(self.banks, self.norms, strict=True):
            filters = bank.filters()
            shared = isinstance(norm, SharedBatchNorm1d) and norm.training
            if shared and filters.requires_grad:
                # The limits of cut-offs take the whole gradient, not a process's share.
                filters.register_hook(mean_over_processes)
            yield filters, norm, self.zeros_at_the_edges(bank)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves to a device, but to the CPU instead of a limited one."""
        return super()._apply(lambda values: capable(fn(values)), recurse)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuses weights of other kernel lengths, which would fit by their shapes."""
        saved = state_dict.get(f"{prefix}kernel_sizes")
        if saved is not None and saved.tolist() != self.kernel_sizes.tolist():
            raise WeightsError(
                f"the weights are for kernel_sizes {saved.tolist()}, the model has "
                f"{self.kernel_sizes.tolist()}; build it with the weights' lengths"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class LogMelSpectrogram(nn.Module):
    """Log-mel-spectrogram of normalised clips, the paper's sections 3.3 and 4.1.

    Bands of equal area (Slaney) reach from 0 Hz to half the sample rate. Frames are
    padded to four windows: the lowest of 160 bands are narrower than the 31 Hz between
    the bins of 512 samples, and would be empty.
    """

    window: Tensor
    bands: Tensor

    def __init__(
        self,
        n_mels: int = 160,
        window_samples: int = 512,
        hop_samples: int = 128,
        sample_rate: int = 16000,
    ):
        super().__init__()
        self.hop_samples, self.n_fft = hop_samples, 4 * window_samples
        bands = melscale_fbanks(
            self.n_fft // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate, "slaney"
        )
        # Neither is learned, and both follow from the arguments: not saved.
        self.register_buffer("window", torch.hann_window(window_samples), False)
        self.register_buffer("bands", bands.T.contiguous(), False)

    def forward(self, wavs: Tensor) -> Tensor:
        """Natural logarithms [batch, 3, n_mels, frames]; equal channels."""
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = normalize_clips(wavs).to(self.window.dtype)
            sizes = (self.n_fft, self.hop_samples, len(self.window))
            spectra = torch.stft(wavs, *sizes, self.window, return_complex=True)
            # White noise of a clip's power gives 25 in every band, 74 dB above 1e-6.
            mel = torch.log(self.bands @ spectra.abs().square() + 1e-6)
        return mel[:, None].expand(-1, 3, -1, -1)
