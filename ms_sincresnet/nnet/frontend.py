"""MSSincNet: clips of waveform to the channels of an image."""

import torch
from torch import nn

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.op import needs_gradient
from ms_sincresnet.nnet.backends.songs import cut_song, maps_of_clips, piece_size
from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.filtering import BACKENDS, filtered_maps, fold_norm

PADDINGS = ("same", "valid")


def scale_to_unit_variance(variances, eps=1e-8):
    """What clips of mean 0 are multiplied with in the layer norm.

    With so small an ``eps``, quiet music is not damped and silence gives zeros.

    Arguments
    ---------
    variances : torch.Tensor
        Variances of the clips.
    eps : float
        What is added to them.

    Returns
    -------
    torch.Tensor
        The scales.

    Example
    -------
    >>> scale_to_unit_variance(torch.tensor([4.0]))
    tensor([0.5000])
    """
    return torch.rsqrt(variances + eps)


def normalize_clips(wavs, eps=1e-8):
    """Layer norm of each clip, without affine.

    The paper's section 2.2.1.

    Arguments
    ---------
    wavs : torch.Tensor [batch, time]
        Clips.
    eps : float
        What is added to their variances.

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
    variances = centred.square().mean(1, keepdim=True)
    return centred * scale_to_unit_variance(variances, eps)


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
        "fft", "simd", "tensor_cores": the same outputs, faster. "auto": the fastest of
        these that can be used.
    min_low_hz : float
        Least lower cut-off frequency, in Hz.
    min_band_hz : float
        Least bandwidth, in Hz.
    affine_samples : int or None
        Samples of a clip, each with a weight and a bias of its own in the layer norm,
        as in the authors' released code; to learn them takes the definition's time.
        None: a layer norm without, for clips of any length.

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
        affine_samples=None,
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
        # Of the authors' shape, and with nn.LayerNorm's eps, which is not ours.
        self.clip_norm = None
        if affine_samples is not None:
            self.clip_norm = nn.LayerNorm([1, affine_samples])
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
            If ``padding`` is "valid" and the clips are shorter than a kernel, or if
            they are not as long as the layer norm's weights; if these need a gradient
            and ``backend`` gives none.
        """
        half = torch.is_autocast_enabled(wavs.device.type)
        with torch.autocast(wavs.device.type, enabled=False):
            wavs = self.normalize(wavs).to(self.banks[0].low_hz_.dtype)
            maps = [
                self._one_scale(wavs, bank, norm, half)
                for bank, norm in zip(self.banks, self.norms, strict=True)
            ]
            return torch.stack(maps, dim=1)

    def clip_maps(self, wav, clip_samples, hop_samples):
        """Maps of all clips of a song.

        In evaluation by the compiled loops, the song is filtered once for all of them.

        Arguments
        ---------
        wav : torch.Tensor [time]
            A song of a clip at least, at ``sample_rate``.
        clip_samples : int
            Samples of a clip.
        hop_samples : int
            Samples from the start of one clip to the next.

        Returns
        -------
        torch.Tensor [clips, scales, n_filters, n_frames]
            What the front-end makes of each clip.

        Example
        -------
        >>> frontend = MSSincNet(n_filters=8).eval()
        >>> frontend.clip_maps(torch.randn(64000), 48000, 8000).shape
        torch.Size([3, 3, 8, 1024])
        """
        piece = piece_size(clip_samples, hop_samples, max(self.kernel_sizes.tolist()))
        if (
            self.backend not in ("auto", "simd")
            or self.training
            or needs_gradient(self, wav)
            or piece is None
            or self.clip_norm is not None  # whose weights start anew with each clip
            or not simd.suits(wav, self.banks[0].low_hz_)
        ):
            return self(wav.unfold(0, clip_samples, hop_samples))
        with torch.autocast(wav.device.type, enabled=False):
            song = cut_song(wav, clip_samples, hop_samples, piece)
            scales = scale_to_unit_variance(song.clip_variances)
            banks = [
                (*fold_norm(bank.filters(), norm), self.zeros_at_the_edges(bank))
                for bank, norm in zip(self.banks, self.norms, strict=True)
            ]
            return maps_of_clips(song, scales, banks, self.n_frames)

    def normalize(self, wavs):
        """The layer norm of clips, with or without affine.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips.

        Returns
        -------
        torch.Tensor [batch, time]
            What is filtered, in float32 at least.

        Raises
        ------
        ValueError
            As ``forward``, on account of the layer norm's weights.

        Example
        -------
        >>> frontend = MSSincNet(n_filters=8, affine_samples=48000)
        >>> frontend.normalize(torch.randn(2, 48000)).shape
        torch.Size([2, 48000])
        """
        norm = self.clip_norm
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
                "layer norm. backend='auto' takes what can be used"
            )
        return wavs

    def _one_scale(self, wavs, bank, norm, half):
        """Filters → batch norm → ReLU → pooling, by the definition or a fast path."""
        padding = self.zeros_at_the_edges(bank)
        if wavs.shape[1] + 2 * padding < bank.kernel_size:
            raise ValueError(
                f"with padding='valid' a clip needs at least {bank.kernel_size} "
                f"samples, the longest kernel; got {wavs.shape[1]}"
            )
        return filtered_maps(
            wavs, bank.filters(), norm, self.n_frames, padding, self.backend, half
        )

    def zeros_at_the_edges(self, bank):
        """How many there are on either side of a clip, for one of the banks.

        Arguments
        ---------
        bank : SincFilterbank
            One of ``banks``.

        Returns
        -------
        int
            Zeros.

        Example
        -------
        >>> frontend = MSSincNet(n_filters=8)
        >>> frontend.zeros_at_the_edges(frontend.banks[0])
        125
        """
        return bank.kernel_size // 2 if self.padding == "same" else 0

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """Refuses weights of other kernel lengths, which would fit by their shapes."""
        saved = state_dict.get(f"{prefix}kernel_sizes")
        if saved is not None and saved.tolist() != self.kernel_sizes.tolist():
            raise WeightsError(
                f"the weights are for kernel_sizes {saved.tolist()}, the model has "
                f"{self.kernel_sizes.tolist()}; build it with the weights' lengths"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
