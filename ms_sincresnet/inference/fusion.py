"""Late fusion: several models classify a song together, by the sum rule.

J. Kittler, M. Hatef, R. P. W. Duin, J. Matas, "On combining classifiers", PAMI 20(3),
1998: the genre with the largest sum of the models' posteriors wins.
"""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch import Tensor, nn

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.speechbrain_modules import VotingClassifier
from ms_sincresnet.models.hub import BUNDLED


def sum_rule(log_posteriors: Tensor) -> Tensor:
    """Logarithm of the mean of posteriors [models, ...], computed from logarithms."""
    return log_posteriors.logsumexp(0) - math.log(len(log_posteriors))


class FusedClassifier(nn.Module):
    """Mean posterior by classifiers whose embeddings have different ``sizes``.

    ``orders`` are each classifier's outputs in the order of the genres.
    """

    def __init__(
        self,
        classifiers: Sequence[nn.Module],
        sizes: Sequence[int],
        orders: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)
        self.sizes, self.orders = list(sizes), orders

    def forward(self, embeddings: Tensor) -> Tensor:
        """Log-posteriors [batch, clips, n_genres] of embeddings by all models."""
        parts = embeddings.split(self.sizes, dim=-1)
        models = zip(self.classifiers, parts, self.orders, strict=True)
        scores = [classify(part)[..., order] for classify, part, order in models]
        return sum_rule(torch.stack(scores))


def fuse(
    sources: Sequence[Any], load: Callable[[Any], EncoderClassifier]
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """``modules`` and ``hparams`` of a ``GenreClassifier`` that fuses those loaded."""
    if not sources:
        raise ModelFolderError("expected at least one model to fuse; got none")
    models = [load(source) for source in sources]
    expected = _traits(models[0])
    for source, model in zip(sources, models, strict=True):
        for name, found in _traits(model).items():
            if found != expected[name]:
                first = sources[0] or BUNDLED
                raise ModelFolderError(
                    f"{source or BUNDLED}: cannot be fused with {first}: models must "
                    f"agree in {name}; found {found} here and {expected[name]} there"
                )
    hparams = vars(models[0].hparams) | {"voting": "mean", "usual_norm": None}
    hparams["fused"] = [model.hparams for model in models]
    embeddings = [model.mods.embedding_model for model in models]
    embeddings[0].fused_with.extend(embeddings[1:])
    genres = [genres_of(model.hparams) for model in models]
    classifier = FusedClassifier(
        [model.mods.classifier.classifier for model in models],
        [embedding.embedding.embedding_size for embedding in embeddings],
        [[names.index(name) for name in genres[0]] for names in genres],
    )
    voting = VotingClassifier(SimpleNamespace(classifier=classifier), "mean")
    return {**models[0].mods, "classifier": voting}, hparams


def _traits(model: EncoderClassifier) -> dict[str, Any]:
    """Properties in which fused models must agree."""
    names = ("sample_rate", "clip_samples", "hop_samples")
    traits = {name: getattr(model.hparams, name) for name in names}
    return traits | {"genres": ", ".join(sorted(genres_of(model.hparams)))}


def genres_of(hparams: Any) -> list[str]:
    """Genres of a model, in the order of its outputs."""
    return [name for _, name in sorted(hparams.label_encoder.ind2lab.items())]
