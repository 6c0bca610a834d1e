"""FrameNetwork: the original SincNet, on short frames of a clip."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ms_sincresnet.nnet.filterbank import SincFilterbank
from ms_sincresnet.nnet.frontend import normalize_clips, scale_to_unit_variance

POOL = 3  # samples per max pooling window
SLOPE = 0.2  # of the leaky ReLUs, below zero
FRAMES_AT_A_TIME = 64  # in evaluation: more need fresh memory each time


class FrameNetwork(nn.Module):
    """The original SincNet on each frame of a clip, and the mean of its posteriors.

    The baseline of the paper's section 3.3. In training, log-posteriors are the mean
    of those of ``train_frames`` random frames, so that their loss is SincNet's. In
    evaluation they are the logarithm of the mean posterior of all frames.
    """

    def __init__(
        self,
        n_genres: int = 10,
        n_filters: int = 80,
        kernel_size: int = 251,
        sample_rate: int = 16000,
        init: str = "mel",
        frame_samples: int = 3200,
        frame_hop: int = 160,
        train_frames: int = 16,
    ):
        super().__init__()
        self.embedding_size, self.train_frames = n_genres, train_frames
        self.frame_samples, self.frame_hop = frame_samples, frame_hop
        self.bank = SincFilterbank(n_filters, kernel_size, sample_rate, init)
        lengths = [(frame_samples - kernel_size + 1) // POOL]
        for _ in range(2):
            lengths.append((lengths[-1] - 5 + 1) // POOL)
        if lengths[-1] < 1:
            raise ValueError(
                f"frames of {frame_samples} samples are too short for the poolings "
                f"after filters of {kernel_size} taps"
            )
        self.frame_norm = nn.LayerNorm([n_filters, lengths[0]])
        layers: list[nn.Module] = [nn.LeakyReLU(SLOPE)]
        for channels, length in zip((n_filters, 60), lengths[1:], strict=True):
            layers += [nn.Conv1d(channels, 60, 5), nn.MaxPool1d(POOL)]
            layers += [nn.LayerNorm([60, length]), nn.LeakyReLU(SLOPE)]
        layers.append(nn.Flatten())
        for inputs in (60 * lengths[-1], 2048, 2048):
            layers += [nn.Linear(inputs, 2048, bias=False), nn.BatchNorm1d(2048)]
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers, nn.Linear(2048, n_genres))

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Log-posteriors [batch, 1, n_genres] of whole clips [batch, time]."""
        if wavs.shape[1] < self.frame_samples:
            raise ValueError(
                f"a clip needs at least the {self.frame_samples} samples of a frame; "
                f"got {wavs.shape[1]}"
            )
        if self.training:
            frames = self._random_frames(wavs)
            maps = self.frame_maps(frames.flatten(0, 1))
            return self._log_posteriors(maps, len(wavs)).mean(1, keepdim=True)
        clips = ([self._log_posteriors(m, 1) for m in self.clip_maps(w)] for w in wavs)
        frames = torch.cat([torch.cat(clip, dim=1) for clip in clips])
        return frames.logsumexp(1, keepdim=True) - math.log(frames.shape[1])

    def frame_maps(self, frames: Tensor) -> Tensor:
        """Filtered and pooled frames [frames, n_filters, time]: the definition."""
        with torch.autocast(frames.device.type, enabled=False):
            frames = normalize_clips(frames).to(next(self.bank.parameters()).dtype)
            return F.max_pool1d(self._filter(frames), POOL)

    def clip_maps(self, wav: Tensor) -> Iterator[Tensor]:
        """Maps of all frames of a clip [time], which is filtered once; in pieces.

        A frame's layer norm subtracts m and multiplies by s, so a filter g of sum c
        gives s · (x ⋆ g − m · c), whose maxima are taken.
        """
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.to(next(self.bank.parameters()).dtype)
            wav = wav - wav.mean()  # or a large offset would cost digits
            frames = wav.unfold(0, self.frame_samples, self.frame_hop)
            variances, means = torch.var_mean(frames, 1, correction=0)
            offsets = means[:, None, None] * self.bank.filters().sum(1)[:, None]
            scales = scale_to_unit_variance(variances)[:, None, None]
            maxima = F.max_pool1d(self._filter(wav[None]), POOL, stride=1)[0]
            n_maxima = (self.frame_samples - self.bank.kernel_size + 1) // POOL
            span = POOL * (n_maxima - 1) + 1
            # After the last frame there may be maxima for one more, but no samples.
            maxima = maxima.unfold(1, span, self.frame_hop)[:, : len(frames), ::POOL]
            maxima = maxima.transpose(0, 1)
        pieces = (part.split(FRAMES_AT_A_TIME) for part in (maxima, offsets, scales))
        for some, offset, scale in zip(*pieces, strict=True):
            yield (some - offset) * scale

    def _filter(self, wavs: Tensor) -> Tensor:
        """The filters' outputs [batch, n_filters, time], without padding."""
        return F.conv1d(wavs[:, None], self.bank.filters()[:, None])

    def _random_frames(self, wavs: Tensor) -> Tensor:
        """Random frames [batch, train_frames, frame_samples] of each clip."""
        frames = wavs.unfold(1, self.frame_samples, self.frame_hop)
        size = (len(wavs), self.train_frames)
        drawn = torch.randint(frames.shape[1], size, device=wavs.device)
        return frames.gather(1, drawn[:, :, None].expand(-1, -1, self.frame_samples))

    def _log_posteriors(self, maps: Tensor, n_clips: int) -> Tensor:
        """Log-posteriors [clips, frames, n_genres] of the frames of some clips."""
        scores = self.layers(self.frame_norm(maps))
        dtype = torch.promote_types(scores.dtype, torch.float32)
        return scores.log_softmax(-1, dtype=dtype).unflatten(0, (n_clips, -1))
