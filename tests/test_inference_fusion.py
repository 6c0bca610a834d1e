"""The sum rule, and the modules that several models are fused in."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ms_sincresnet.errors import AudioFileError, ModelFolderError
from ms_sincresnet.inference.fusion import (
    FusedClassifier,
    FusedEmbedding,
    fuse,
    sum_rule,
)
from ms_sincresnet.inference.speechbrain_modules import SongEmbedding, VotingClassifier


class Largest(nn.Module):
    """Stands for front-end and trunk: a clip's largest samples."""

    def __init__(self, embedding_size):
        super().__init__()
        self.embedding_size = embedding_size
        self.batch_sizes = []

    def forward(self, clips):
        self.batch_sizes.append(len(clips))
        return clips.topk(self.embedding_size).values[:, None]


class Logarithm(nn.Module):
    """Stands for the classifier: embeddings are posteriors."""

    def forward(self, posteriors):
        return posteriors.log()


def stub(embedding_size, batch_size=3):
    """Songs to the largest of 4 samples, every 2 samples."""
    embedding = Largest(embedding_size)
    system = SimpleNamespace(frontend=nn.Identity(), embedding=embedding)
    return SongEmbedding(system, clip_samples=4, hop_samples=2, batch_size=batch_size)


def stub_model(genres=("jazz", "rock"), **hparams):
    """What ``fuse`` reads of a ``GenreClassifier``."""
    hparams = {
        "sample_rate": 16000,
        "clip_samples": 4,
        "hop_samples": 2,
        "voting": "majority",
        "label_encoder": SimpleNamespace(ind2lab=dict(enumerate(genres))),
        **hparams,
    }
    vote = VotingClassifier(SimpleNamespace(classifier=Logarithm()))
    mods = {"embedding_model": stub(len(genres)), "classifier": vote}
    mods = nn.ModuleDict({"compute_features": nn.Identity(), **mods})
    return SimpleNamespace(mods=mods, hparams=SimpleNamespace(**hparams))


def test_the_sum_rule_is_the_mean_of_the_posteriors():
    models = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2]])
    fused = sum_rule(models.log()).exp()
    expected = torch.tensor([1.2 / 3, 0.9 / 3, 0.9 / 3])
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-7)


def test_the_sum_rule_keeps_what_is_too_small_for_a_posterior():
    fused = sum_rule(torch.tensor([[-200.0, 0.0], [-300.0, 0.0]]))  # e^-200 is 0
    assert fused.tolist() == pytest.approx([-200 - math.log(2), 0.0])


def test_one_that_is_sure_outvotes_two_that_are_not():
    """What tells the sum rule from a majority of the models."""
    models = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert sum_rule(models.log()).argmax() == 0


def test_each_classifier_gets_its_own_embedding_and_order_of_genres():
    jazz_rock, other = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.3, 0.5]])
    first = nn.Sequential(nn.Linear(3, 2, bias=False), Logarithm())
    first[0].weight.data = torch.tensor([[0.0, 0, 1], [1, 0, 0]])  # rock, jazz
    classify = FusedClassifier([first, Logarithm()], [3, 2], [[0, 1], [1, 0]])
    embeddings = torch.cat([other, jazz_rock], 1)[None]
    expected = torch.tensor([[[(0.5 + 0.1) / 2, (0.2 + 0.9) / 2]]])
    torch.testing.assert_close(classify(embeddings).exp(), expected)


def test_embeddings_stand_side_by_side():
    embed = FusedEmbedding([stub(1), stub(2)])
    song = torch.tensor([[0.0, 1, 2, 3, 4, 5, 6, 7]])
    assert embed(song).tolist() == [[[3, 3, 2], [5, 5, 4], [7, 7, 6]]]


def test_songs_of_a_batch_are_padded_with_nan():
    songs = [torch.tensor([0.0, k]).repeat(5)[:n] for k, n in [(1, 10), (2, 5), (3, 2)]]
    padded = nn.utils.rnn.pad_sequence(songs, True, padding_value=99.0)
    lens = torch.tensor([1.0, 0.5, 0.2])
    first, second, third = FusedEmbedding([stub(1), stub(2)])(padded, lens)
    assert first.tolist() == [[1, 1, 1]] * 4
    assert second[0].tolist() == [2, 2, 2]
    assert third[0].tolist() == [3, 3, 3]  # of 0, 3, 0, 3
    for rows in (second[1:], third[1:]):
        assert rows.isnan().all()
    with pytest.raises(AudioFileError, match="song 1 of the batch is empty"):
        FusedEmbedding([stub(1), stub(2)])(padded, torch.tensor([1.0, 0.0, 0.2]))


def test_models_of_other_batch_sizes_go_in_step():
    models = [stub(1, batch_size=3), stub(2, batch_size=1), stub(3, batch_size=50)]
    taken = []

    def blocks():
        for start in range(0, 16, 4):
            taken.append(start)
            yield torch.arange(start, start + 4.0)

    songs = FusedEmbedding(models).embed_songs([("song", blocks())])
    assert next(songs)[1].tolist() == [
        [3, 3, 2, 3, 2, 1],
        [5, 5, 4, 5, 4, 3],
        [7, 7, 6, 7, 6, 5],
    ]
    assert taken == [0, 4]  # of the song's blocks, no more are read than needed
    assert [len(embeddings) for _, embeddings in songs] == [3, 1]
    for model in models:
        assert model.embedding.batch_sizes == [3, 3, 1]


def test_each_model_gets_samples_on_its_own_scale():
    models = [stub(1), stub(1)]
    models[0].full_scale, models[1].full_scale = 8.0, 2.0
    song = torch.tensor([[0.0, 1, 2, 3, 0, 0, 0, 0]])
    found = FusedEmbedding(models)(song)
    assert found[0, :2].tolist() == [[24, 6], [24, 6]]
    assert found[0, 2].isnan().all()  # a silent clip is so to both


def test_fused_models_vote_by_the_mean_of_all_posteriors():
    models = [stub_model(("jazz", "rock")), stub_model(("rock", "jazz"))]
    modules, hparams = fuse(["a", "b"], models)
    assert list(modules) == list(models[0].mods)
    assert modules["compute_features"] is models[0].mods["compute_features"]
    assert hparams == {**vars(models[0].hparams), "voting": "mean"}
    clips = torch.tensor([[[0.9, 0.1, 0.2, 0.8], [0.3, 0.7, 0.6, 0.4]]])
    padding = torch.full((1, 3, 4), torch.nan)
    log_posteriors = modules["classifier"](torch.cat([clips, padding], 1))
    jazz = ((0.9 + 0.8) / 2 + (0.3 + 0.4) / 2) / 2
    expected = torch.tensor([[[jazz, 1 - jazz]]])
    torch.testing.assert_close(log_posteriors.exp(), expected)
    (by_clip,) = modules["classifier"].clip_log_posteriors(clips)
    expected = torch.tensor([[0.85, 0.15], [0.35, 0.65]])
    torch.testing.assert_close(by_clip.exp(), expected)


@pytest.mark.parametrize(
    ("differing", "told"),
    [
        ({"sample_rate": 8000}, "sample_rate; found 8000 here and 16000 there"),
        ({"clip_samples": 8}, "clip_samples; found 8 here and 4 there"),
        ({"hop_samples": 4}, "hop_samples; found 4 here and 2 there"),
        (
            {"genres": ("rock", "blues")},
            "genres; found blues, rock here and jazz, rock there",
        ),
        (
            {"genres": ("rock", "jazz", "blues")},
            "genres; found blues, jazz, rock here and jazz, rock there",
        ),
    ],
)
def test_models_that_do_not_agree_are_named(differing, told):
    models = [stub_model(), stub_model(), stub_model(**differing)]
    with pytest.raises(ModelFolderError) as error:
        fuse(["results/a/model", "results/b/model", "results/c/model"], models)
    assert str(error.value) == (
        "results/c/model: cannot be fused with results/a/model: models must agree in "
        + told
    )
