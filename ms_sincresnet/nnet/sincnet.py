"""FrameNetwork: the original SincNet, on short frames of a clip."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.frontend import normalize_clips, scale_to_unit_variance

POOL = 3  # samples that each max pooling makes one of
SLOPE = 0.2  # of the leaky ReLUs, below zero
FRAMES_AT_A_TIME = 64  # in evaluation: more want fresh memory each time


class FrameNetwork(nn.Module):
    """The original SincNet on each frame of a clip, and the mean of its posteriors.

    M. Ravanelli, Y. Bengio, "Speaker recognition from raw waveform with SincNet",
    SLT 2018, section 4.2; the baseline of the paper's section 3.3. A sinc filterbank
    and two convolutions, each followed by max pooling, layer norm and leaky ReLU; three
    fully-connected layers with batch norm and leaky ReLU; a linear layer. The layer
    norm of the input is that of each frame, without affine.

    In training, a clip's log-posteriors are the mean of those of some random frames,
    so that their loss is SincNet's, the mean over the frames. In evaluation they are
    the logarithm of the mean posterior of all frames.

    Arguments
    ---------
    n_genres : int
        Number of genres.
    n_filters : int
        Filters of the bank, K.
    kernel_size : int
        Taps of each filter, L (odd).
    sample_rate : int
        Sample rate of the waveform, in Hz.
    init : str
        Scale of the initial cut-offs, as in ``SincFilterbank``.
    frame_samples : int
        Samples of a frame. 3200 are 200 ms at 16 kHz.
    frame_hop : int
        Samples from one frame to the next. 160 are 10 ms at 16 kHz.
    train_frames : int
        Frames that are drawn from each clip in training.

    Raises
    ------
    ValueError
        If the frames are too short for the filters and poolings.

    Example
    -------
    >>> network = FrameNetwork(n_filters=8).eval()
    >>> network(torch.randn(2, 8000)).shape  # 0.5 s: 31 frames
    torch.Size([2, 1, 10])
    """

    def __init__(
        self,
        n_genres=10,
        n_filters=80,
        kernel_size=251,
        sample_rate=16000,
        init="mel",
        frame_samples=3200,
        frame_hop=160,
        train_frames=16,
    ):
        super().__init__()
        self.embedding_size = n_genres
        self.frame_samples = frame_samples
        self.frame_hop = frame_hop
        self.train_frames = train_frames
        self.bank = SincFilterbank(n_filters, kernel_size, sample_rate, init)
        lengths = [(frame_samples - kernel_size + 1) // POOL]
        for _ in range(2):
            lengths.append((lengths[-1] - 5 + 1) // POOL)
        if lengths[-1] < 1:
            raise ValueError(
                f"frames of {frame_samples} samples are too short for filters of "
                f"{kernel_size} taps and the poolings behind them"
            )
        self.frame_norm = nn.LayerNorm([n_filters, lengths[0]])
        layers = [nn.LeakyReLU(SLOPE)]
        for channels, length in zip((n_filters, 60), lengths[1:], strict=True):
            layers += [
                nn.Conv1d(channels, 60, 5),
                nn.MaxPool1d(POOL),
                nn.LayerNorm([60, length]),
                nn.LeakyReLU(SLOPE),
            ]
        layers.append(nn.Flatten())
        for inputs in (60 * lengths[-1], 2048, 2048):
            layers += [
                nn.Linear(inputs, 2048, bias=False),
                nn.BatchNorm1d(2048),
                nn.LeakyReLU(SLOPE),
            ]
        self.layers = nn.Sequential(*layers, nn.Linear(2048, n_genres))

    def forward(self, wavs, wav_lens=None):
        """Log-posteriors of a batch of clips.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips at ``sample_rate``, on any scale.
        wav_lens : torch.Tensor [batch], optional
            Relative lengths, as SpeechBrain passes them. Clips are whole: not used.

        Returns
        -------
        torch.Tensor [batch, 1, n_genres]
            Log-posteriors, in float32 at least, also under autocast.

        Raises
        ------
        ValueError
            If the clips are shorter than a frame.
        """
        if wavs.shape[1] < self.frame_samples:
            raise ValueError(
                f"a clip needs at least the {self.frame_samples} samples of a frame; "
                f"got {wavs.shape[1]}"
            )
        if self.training:
            frames = self._random_frames(wavs)
            maps = self.frame_maps(frames.flatten(0, 1))
            return self._log_posteriors(maps, len(wavs)).mean(1, keepdim=True)
        clips = [
            torch.cat(
                [self._log_posteriors(maps, 1) for maps in self.clip_maps(wav)], 1
            )
            for wav in wavs
        ]
        frames = torch.cat(clips)
        return frames.logsumexp(1, keepdim=True) - math.log(frames.shape[1])

    def frame_maps(self, frames):
        """Filtered and pooled frames: the definition.

        Arguments
        ---------
        frames : torch.Tensor [frames, frame_samples]
            Frames.

        Returns
        -------
        torch.Tensor [frames, n_filters, time]
            Maxima of three samples of each filter's output, in the parameters'
            type, also under autocast.
        """
        with torch.autocast(frames.device.type, enabled=False):
            frames = normalize_clips(frames).to(self.bank.low_hz_.dtype)
            return F.max_pool1d(self._filter(frames), POOL)

    def clip_maps(self, wav):
        """The maps of all frames of a clip, which is filtered once.

        A frame's layer norm subtracts m and multiplies by s, so a filter g of sum c
        gives s · (x ⋆ g − m · c), of which the maxima are taken.

        Arguments
        ---------
        wav : torch.Tensor [time]
            A clip.

        Yields
        ------
        torch.Tensor [frames, n_filters, time]
            What ``frame_maps`` gives of the clip's next frames.

        Example
        -------
        >>> network = FrameNetwork(n_filters=8)
        >>> wav = torch.randn(8000)
        >>> maps = torch.cat(list(network.clip_maps(wav)))
        >>> frames = wav.unfold(0, 3200, 160)
        >>> torch.allclose(maps, network.frame_maps(frames), atol=1e-5)
        True
        """
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.to(self.bank.low_hz_.dtype)
            wav = wav - wav.mean()  # or a large offset would cost digits
            frames = wav.unfold(0, self.frame_samples, self.frame_hop)
            variances, means = torch.var_mean(frames, 1, correction=0)
            offsets = means[:, None, None] * self.bank.filters().sum(1)[:, None]
            scales = scale_to_unit_variance(variances)[:, None, None]
            maxima = F.max_pool1d(self._filter(wav[None]), POOL, stride=1)[0]
            n_maxima = (self.frame_samples - self.bank.kernel_size + 1) // POOL
            span = POOL * (n_maxima - 1) + 1
            # Behind the last frame there may be maxima for one more, but no samples.
            maxima = maxima.unfold(1, span, self.frame_hop)[:, : len(frames), ::POOL]
            maxima = maxima.transpose(0, 1)
        pieces = (part.split(FRAMES_AT_A_TIME) for part in (maxima, offsets, scales))
        for some, offset, scale in zip(*pieces, strict=True):
            yield (some - offset) * scale

    def _filter(self, wavs):
        """The filters' outputs [batch, n_filters, time], without padding."""
        return F.conv1d(wavs[:, None], self.bank.filters()[:, None])

    def _random_frames(self, wavs):
        """Some frames of each clip [batch, train_frames, frame_samples]."""
        frames = wavs.unfold(1, self.frame_samples, self.frame_hop)
        size = (len(wavs), self.train_frames)
        drawn = torch.randint(frames.shape[1], size, device=wavs.device)
        return frames.gather(1, drawn[:, :, None].expand(-1, -1, self.frame_samples))

    def _log_posteriors(self, maps, n_clips):
        """Log-posteriors [clips, frames, n_genres] of the frames of some clips."""
        scores = self.layers(self.frame_norm(maps))
        dtype = torch.promote_types(scores.dtype, torch.float32)
        return scores.log_softmax(-1, dtype=dtype).unflatten(0, (n_clips, -1))
