"""The sum rule, and the modules of fused models."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.fusion import FusedClassifier, fuse, sum_rule
from ms_sincresnet.inference.speechbrain_modules import SongEmbedding, VotingClassifier


class Largest(nn.Module):
    """In place of a trunk: a clip's largest samples."""

    def __init__(self, embedding_size):
        super().__init__()
        self.embedding_size = embedding_size

    def forward(self, clips):
        return clips.topk(self.embedding_size).values[:, None]


class Logarithm(nn.Module):
    """In place of a classifier: embeddings are posteriors."""

    def forward(self, posteriors):
        return posteriors.log()


def stub(genres=("jazz", "rock"), batch_size=3, **hparams):
    """The parts of a ``GenreClassifier`` that ``fuse`` reads."""
    hparams = {
        "sample_rate": 16000,
        "clip_samples": 4,
        "hop_samples": 2,
        "voting": "majority",
        "label_encoder": SimpleNamespace(ind2lab=dict(enumerate(genres))),
        **hparams,
    }
    model = SimpleNamespace(
        frontend=nn.Identity(), embedding=Largest(len(genres)), classifier=Logarithm()
    )
    embed = SongEmbedding(model, clip_samples=4, hop_samples=2, batch_size=batch_size)
    mods = {"embedding_model": embed, "classifier": VotingClassifier(model)}
    mods = nn.ModuleDict({"compute_features": nn.Identity(), **mods})
    return SimpleNamespace(mods=mods, hparams=SimpleNamespace(**hparams))


def fused(*models):
    return fuse(range(len(models)), models.__getitem__)


def test_the_sum_rule_is_the_mean_of_the_posteriors():
    models = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2]])
    found = sum_rule(models.log()).exp()
    expected = torch.tensor([1.2 / 3, 0.9 / 3, 0.9 / 3])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    found = sum_rule(torch.tensor([[-200.0, 0.0], [-300.0, 0.0]]))  # e^-200 is 0
    assert found.tolist() == pytest.approx([-200 - math.log(2), 0.0])


def test_each_classifier_gets_its_own_embedding_and_order_of_genres():
    jazz_rock, other = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.3, 0.5]])
    first = nn.Sequential(nn.Linear(3, 2, bias=False), Logarithm())
    first[0].weight.data = torch.tensor([[0.0, 0, 1], [1, 0, 0]])  # rock, jazz
    classify = FusedClassifier([first, Logarithm()], [3, 2], [[0, 1], [1, 0]])
    embeddings = torch.cat([other, jazz_rock], 1)[None]
    expected = torch.tensor([[[(0.5 + 0.1) / 2, (0.2 + 0.9) / 2]]])
    torch.testing.assert_close(classify(embeddings).exp(), expected)


def test_songs_are_cut_once_into_batches_of_the_first_models_size():
    modules, _ = fused(stub(batch_size=3), stub(batch_size=1), stub(batch_size=50))
    pieces = modules["embedding_model"].embed_songs([("song", [torch.arange(10.0)])])
    expected = [[[3, 2] * 3, [5, 4] * 3, [7, 6] * 3], [[9, 8] * 3]]
    assert [rows.tolist() for _, rows in pieces] == expected


def test_fused_models_vote_by_the_mean_of_all_posteriors():
    models = [stub(("jazz", "rock")), stub(("rock", "jazz"))]
    modules, hparams = fused(*models)
    assert list(modules) == list(models[0].mods)
    assert modules["compute_features"] is models[0].mods["compute_features"]
    assert hparams.pop("fused") == [model.hparams for model in models]
    assert hparams == {**vars(models[0].hparams), "voting": "mean"}
    clips = torch.tensor([[[0.9, 0.1, 0.2, 0.8], [0.3, 0.7, 0.6, 0.4]]])
    padding = torch.full((1, 3, 4), torch.nan)
    log_posteriors = modules["classifier"](torch.cat([clips, padding], 1))
    jazz = ((0.9 + 0.8) / 2 + (0.3 + 0.4) / 2) / 2
    torch.testing.assert_close(log_posteriors.exp(), torch.tensor([[[jazz, 1 - jazz]]]))


def test_models_that_differ_are_named():
    for name, value, found in [
        ("sample_rate", 8000, "8000 here and 16000"),
        ("clip_samples", 8, "8 here and 4"),
        ("hop_samples", 4, "4 here and 2"),
        ("genres", "ab", "a, b here and jazz, rock"),
    ]:
        models = {"runs/a": stub(), "runs/b": stub(), "runs/c": stub(**{name: value})}
        message = "runs/c: cannot be fused with runs/a: models must agree in"
        with pytest.raises(ModelFolderError, match=f"{message} {name}; found {found}"):
            fuse([*models], models.get)
