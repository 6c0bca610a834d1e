"""LogMelSpectrogram: clips of waveform to the channels of an image, nothing learned."""

import torch
from torch import nn
from torchaudio.functional import melscale_fbanks

from ms_sincresnet.nnet.frontend import normalize_clips


class LogMelSpectrogram(nn.Module):
    """The hand-crafted representation that the paper compares with.

    The paper's sections 3.3 and 4.1: mel bands of the short-term Fourier transform, in
    windows of 512 samples every 128; their logarithm, as equal channels. Clips are
    normalised first, as for the learned representations.

    Frames are padded with zeros to four windows: the lowest of 160 mel bands are
    narrower than the 31 Hz between the bins of 512 samples, and would be empty.

    Arguments
    ---------
    n_mels : int
        Mel bands, from 0 Hz to half the sample rate, of equal area (Slaney).
    window_samples : int
        Samples of the Hann window. 512 are 32 ms at 16 kHz.
    hop_samples : int
        Samples from one frame to the next.
    sample_rate : int
        Sample rate of the waveform, in Hz.
    n_channels : int
        Channels of the image.

    Example
    -------
    >>> LogMelSpectrogram()(torch.randn(2, 48000)).shape
    torch.Size([2, 3, 160, 376])
    """

    def __init__(
        self,
        n_mels=160,
        window_samples=512,
        hop_samples=128,
        sample_rate=16000,
        n_channels=3,
    ):
        super().__init__()
        self.hop_samples = hop_samples
        self.n_channels = n_channels
        self.n_fft = 4 * window_samples
        bands = melscale_fbanks(
            self.n_fft // 2 + 1,
            0.0,
            sample_rate / 2,
            n_mels,
            sample_rate,
            norm="slaney",
        )
        # Neither is learned, and both follow from the arguments: not saved.
        self.register_buffer("window", torch.hann_window(window_samples), False)
        self.register_buffer("bands", bands.T.contiguous(), False)

    def forward(self, wavs):
        """Log-mel-spectrograms of a batch of clips.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips at ``sample_rate``, on any scale.

        Returns
        -------
        torch.Tensor [batch, n_channels, n_mels, frames]
            Natural logarithms, in the buffers' type, also under autocast; the channels
            are views of one.
        """
        with torch.autocast(wavs.device.type, enabled=False):
            spectra = torch.stft(
                normalize_clips(wavs).to(self.window.dtype),
                self.n_fft,
                self.hop_samples,
                len(self.window),
                self.window,
                return_complex=True,
            )
            # White noise of a clip's power gives 25 in every band, 74 dB above 1e-6.
            mel = torch.log(self.bands @ spectra.abs().square() + 1e-6)
        return mel[:, None].expand(-1, self.n_channels, -1, -1)
