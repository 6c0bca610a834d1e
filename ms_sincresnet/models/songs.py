"""Clips of songs: cut, batched and scored for training's test and inference alike.

Songs are pairs of a key and blocks of waveform [time] on the model's device, which are
read when needed.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from ms_sincresnet.data.clips import repeat_to_length, silent, split_clips
from ms_sincresnet.models.base import GenreModel

Songs = Iterable[tuple[Any, Iterable[Tensor]]]
Scored = Iterator[tuple[Any, Tensor]]


def embed_songs(
    model: Any,
    songs: Songs,
    *,
    clip_samples: int,
    hop_samples: int,
    batch_size: int,
    full_scale: float = 1.0,
    fused_with: Iterable[Any] = (),
) -> Scored:
    """Embeddings [clips, size] of songs by their keys, at most ``batch_size`` at once.

    Songs stay in order and share batches; one without samples is left out. Rows are NaN
    for silent clips, and infinite for clips on which the model failed. Those of models
    in ``fused_with``, which have a ``full_scale`` of their own, are appended.
    """
    cut = clip_samples, hop_samples
    for batch in _batches(songs, *cut, batch_size):
        keys, stretches = zip(*batch, strict=True)
        parts = [_embed(model, full_scale, stretches, *cut)]
        parts += [_embed(each, each.full_scale, stretches, *cut) for each in fused_with]
        rows = torch.cat(parts, 1)
        rows = rows.masked_fill(~rows.isfinite().all(1, keepdim=True), torch.inf)
        quiet = [silent(split_clips(stretch, *cut)) for stretch in stretches]
        rows = rows.masked_fill(torch.cat(quiet)[:, None], torch.nan)
        yield from zip(keys, rows.split([*map(len, quiet)]), strict=True)


def score_songs(model: GenreModel, songs: Songs, **clips: Any) -> Scored:
    """Log-posteriors [clips, n_genres] of each song's audible clips, by its key.

    They are NaN for clips on which the model failed. A song that is silent throughout
    has one row, of equal values. ``clips`` are the arguments of ``embed_songs``.
    """
    # Numbers keep neighbours with equal keys apart.
    numbered = (((n, key), blocks) for n, (key, blocks) in enumerate(songs))
    pieces = embed_songs(model, numbered, **clips)
    for (_, key), song in itertools.groupby(pieces, key=itemgetter(0)):
        scores = torch.cat([score_clips(model.classifier, rows) for _, rows in song])
        if len(scores) == 0:
            scores = scores.new_zeros(1, scores.shape[1]).log_softmax(1)
        yield key, scores


def score_clips(classifier: Callable[[Tensor], Tensor], embeddings: Tensor) -> Tensor:
    """Log-posteriors of the embeddings [clips, size] of a song's audible clips."""
    audible = embeddings[~embeddings.isnan().any(1)]
    return classifier(audible[None])[0].masked_fill(failed(audible)[:, None], torch.nan)


def failed(embeddings: Tensor) -> Tensor:
    """Mask [...] of embeddings [..., size] of clips on which the model failed."""
    return embeddings.isinf().any(-1)


def _embed(
    model: Any, full_scale: float, stretches: Sequence[Tensor], *cut: int
) -> Tensor:
    """Embeddings [clips, size] of all clips of some stretches of songs."""
    clip_samples, hop_samples = cut
    if clip_samples == hop_samples:  # filters are computed once for all songs
        whole = [s[: len(s) - len(s) % clip_samples] for s in stretches]
        stretches = [torch.cat(whole)]

    def maps(stretch: Tensor) -> Tensor:
        if hasattr(model.frontend, "clip_maps"):  # filters what clips share once
            return model.frontend.clip_maps(stretch, *cut)
        return model.frontend(split_clips(stretch, *cut))

    return model.embedding(torch.cat([maps(full_scale * s) for s in stretches]))[:, 0]


def _batches(
    songs: Songs, clip_samples: int, hop_samples: int, batch_size: int
) -> Iterator[list[tuple[Any, Tensor]]]:
    """Stretches of songs, with their keys, that have ``batch_size`` clips together.

    A song's last clip ends with it if more than a sixth of a clip were unheard.
    """
    batch: list[tuple[Any, Tensor]] = []
    free = batch_size
    for key, blocks in songs:
        rest, last, is_cut = torch.empty(0), torch.empty(0), False
        for block in itertools.chain(blocks, [None]):
            if block is not None:
                rest = torch.cat([rest.to(block), block])
                last = torch.cat([last.to(block), block])[-clip_samples:]
            elif len(rest) and not is_cut:
                rest = repeat_to_length(rest, clip_samples)
            while (n_clips := (len(rest) - clip_samples) // hop_samples + 1) >= free:
                end = (free - 1) * hop_samples + clip_samples
                yield [*batch, (key, rest[:end])]
                rest, is_cut = rest[free * hop_samples :], True
                batch, free = [], batch_size
        if n_clips > 0:
            batch.append((key, rest))
            free -= n_clips
        unheard = len(rest) - (n_clips - 1) * hop_samples - clip_samples
        if len(last) and 6 * unheard > clip_samples >= hop_samples:
            batch.append((key, last))
            free -= 1
        if free == 0:
            yield batch
            batch, free = [], batch_size
    if batch:
        yield batch
