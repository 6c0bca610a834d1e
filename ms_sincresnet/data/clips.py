"""Clips of songs: where they are cut, and which are silent."""

import torch
from torch import Tensor

SILENT_STD = 2**-15
"""Standard deviation below which a clip is silent: one step of 16-bit samples."""


def split_clips(
    wav: Tensor, clip_samples: int = 48000, hop_samples: int = 8000
) -> Tensor:
    """Overlapping clips of a track, which is repeated if it is shorter than a clip.

    P.-C. Chang et al., "MS-SincResNet", ICMR 2021, section 2.2.1. What follows the last
    whole clip is dropped.

    Arguments
    ---------
    wav
        Waveforms [time] or [batch, time]; at least one sample.
    clip_samples
        Length of a clip, in samples. 48000 are 3 s at 16 kHz.
    hop_samples
        Distance between the starts of neighbouring clips, in samples.

    Returns
    -------
    Clips [clips, clip_samples] or [batch, clips, clip_samples], a view if possible.

    Raises
    ------
    ValueError
        If there are no samples.

    Example
    -------
    >>> split_clips(torch.zeros(30 * 16000)).shape
    torch.Size([55, 48000])
    """
    if wav.shape[-1] == 0:
        raise ValueError(
            f"expected at least one sample to cut clips from, got {list(wav.shape)}"
        )
    return repeat_to_length(wav, clip_samples).unfold(-1, clip_samples, hop_samples)


def silent(clips: Tensor) -> Tensor:
    """Mask [...] of clips [..., time] without sound, such as dither or a constant."""
    return clips.std(-1, correction=0) < SILENT_STD


def repeat_to_length(wavs: Tensor, n_samples: int) -> Tensor:
    """Waveforms [..., time], repeated to at least ``n_samples`` if they are shorter."""
    length = wavs.shape[-1]
    if length >= n_samples:
        return wavs
    times = -(-n_samples // length)
    return torch.cat([wavs] * times, dim=-1)[..., :n_samples]
