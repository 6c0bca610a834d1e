"""Clips of songs: cut, batched and scored for training's test and inference alike."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ms_sincresnet.data.clips import repeat_to_length, silent, split_clips
from ms_sincresnet.models.base import GenreModel

Songs = Iterable[tuple[Hashable, Iterable[Tensor]]]


class Embedder(Protocol):
    """Front-end and trunk, as a ``GenreModel`` has them."""

    frontend: Any
    embedding: Any


def embed_songs(
    model: Embedder,
    songs: Songs,
    *,
    clip_samples: int,
    hop_samples: int,
    batch_size: int,
    full_scale: float = 1.0,
) -> Iterator[tuple[Hashable, Tensor]]:
    """Embeddings of the clips of songs, in batches that neighbouring songs share.

    Arguments
    ---------
    model
        The ``frontend`` and ``embedding`` of a system such as ``MSSincResNet``.
    songs
        A key and the waveform of each song, in blocks [time] on the model's device.
        Blocks are read when they are needed, and dropped when their clips are embedded.
    clip_samples
        Length of a clip.
    hop_samples
        Distance between the starts of neighbouring clips.
    batch_size
        Clips per batch.
    full_scale
        Amplitude at the model's input of a sample of 1: 32768 for a model that was
        trained on 16-bit integers.

    Yields
    ------
    key
        A song's key. Songs come in their order; one without samples is left out.
    embeddings
        Embeddings [clips, embedding_size] of its next clips, at most ``batch_size``.
        Rows are NaN for silent clips, and infinite where the model failed: where it
        computed a value that is not finite.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> model = MSSincResNet(n_filters=8).eval()
    >>> songs = {"a": [torch.randn(30000), torch.randn(34000)], "b": [torch.ones(9)]}
    >>> clips = {"clip_samples": 48000, "hop_samples": 8000, "batch_size": 32}
    >>> [(key, len(found)) for key, found in embed_songs(model, songs.items(), **clips)]
    [('a', 3), ('b', 1)]
    """

    def embed(stretches: Sequence[Tensor]) -> Tensor:
        return embed_stretches(model, stretches, clip_samples, hop_samples, full_scale)

    return embed_in_batches(embed, songs, clip_samples, hop_samples, batch_size)


def score_songs(
    model: GenreModel, songs: Songs, **clips: Any
) -> Iterator[tuple[Hashable, Tensor]]:
    """Log-posteriors of the clips of songs.

    Arguments
    ---------
    model
        A system such as ``MSSincResNet``.
    songs
        As in ``embed_songs``.
    **clips
        ``clip_samples``, ``hop_samples``, ``batch_size`` and ``full_scale``, as in
        ``embed_songs``.

    Yields
    ------
    key
        A song's key, once per song.
    log_posteriors
        Log-posteriors [clips, n_genres] of the clips that are not silent; NaN where the
        model failed. A song that is silent throughout has a single uniform row.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> model = MSSincResNet(n_filters=8).eval()
    >>> songs = [("noise", [torch.randn(64000)]), ("silence", [torch.zeros(64000)])]
    >>> clips = {"clip_samples": 48000, "hop_samples": 8000, "batch_size": 32}
    >>> [(key, len(found)) for key, found in score_songs(model, songs, **clips)]
    [('noise', 3), ('silence', 1)]
    """
    # Numbers keep neighbours of equal keys apart.
    numbered = (((n, key), blocks) for n, (key, blocks) in enumerate(songs))
    pieces = embed_songs(model, numbered, **clips)
    for (_, key), song in groupby(pieces, key=itemgetter(0)):
        scores = [score_clips(model.classifier, embeddings) for _, embeddings in song]
        log_posteriors = torch.cat(scores)
        if len(log_posteriors) == 0:
            log_posteriors = log_posteriors.new_zeros(1, log_posteriors.shape[1])
            log_posteriors = log_posteriors.log_softmax(1)
        yield key, log_posteriors


def score_clips(classifier: nn.Module, embeddings: Tensor) -> Tensor:
    """Log-posteriors of the embeddings [clips, size] of clips that are not silent."""
    heard = embeddings[~embeddings.isnan().any(1)]
    log_posteriors = classifier(heard[None])[0]
    return log_posteriors.masked_fill(failed(heard)[:, None], torch.nan)


def failed(embeddings: Tensor) -> Tensor:
    """Mask [...] of embeddings [..., size] of clips on which the model failed."""
    return embeddings.isinf().any(-1)


def embed_in_batches(
    embed: Callable[[Sequence[Tensor]], Tensor],
    songs: Songs,
    clip_samples: int,
    hop_samples: int,
    batch_size: int,
) -> Iterator[tuple[Hashable, Tensor]]:
    """``embed_songs`` by a function of stretches of songs, such as several models."""
    for batch in _batches(songs, clip_samples, hop_samples, batch_size):
        keys, stretches = zip(*batch, strict=True)
        quiet = [silent(split_clips(s, clip_samples, hop_samples)) for s in stretches]
        embeddings = embed(stretches)
        faulty = ~embeddings.isfinite().all(1, keepdim=True)
        embeddings = embeddings.masked_fill(faulty, torch.inf)
        embeddings = embeddings.masked_fill(torch.cat(quiet)[:, None], torch.nan)
        yield from zip(keys, embeddings.split([*map(len, quiet)]), strict=True)


def embed_stretches(
    model: Embedder,
    stretches: Sequence[Tensor],
    clip_samples: int,
    hop_samples: int,
    full_scale: float,
) -> Tensor:
    """Embeddings [clips, size] of the clips of some stretches of songs."""

    def maps(stretch: Tensor) -> Tensor:
        if hasattr(model.frontend, "clip_maps"):  # filters what clips share once
            return model.frontend.clip_maps(stretch, clip_samples, hop_samples)
        return model.frontend(split_clips(stretch, clip_samples, hop_samples))

    return model.embedding(torch.cat([maps(full_scale * s) for s in stretches]))[:, 0]


def _batches(
    songs: Songs, clip_samples: int, hop_samples: int, batch_size: int
) -> Iterator[list[tuple[Hashable, Tensor]]]:
    """Stretches of songs, with their keys, that have ``batch_size`` clips together."""

    def n_clips(stretch: Tensor) -> int:
        return max(0, (len(stretch) - clip_samples) // hop_samples + 1)

    batch: list[tuple[Hashable, Tensor]] = []
    free = batch_size
    for key, blocks in songs:
        rest, is_cut = None, False
        for block in blocks:
            rest = block if rest is None else torch.cat([rest, block])
            while n_clips(rest) >= free:
                end = (free - 1) * hop_samples + clip_samples
                yield [*batch, (key, rest[:end])]
                rest, is_cut = rest[free * hop_samples :], True
                batch, free = [], batch_size
        if rest is None:
            continue
        if not is_cut:
            rest = repeat_to_length(rest, clip_samples)
        if n_clips(rest):
            batch.append((key, rest))
            free -= n_clips(rest)
        if free == 0:  # by a song that was repeated to one clip
            yield batch
            batch, free = [], batch_size
    if batch:
        yield batch
