"""The modules in a model folder: whole songs in, voted log-posteriors out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.inference.speechbrain_modules import SongEmbedding, VotingClassifier

from .test_models_songs import MeanAndLargest

CLIPS = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.45, 0.55, 0.0]])


def logarithm(posteriors):
    """In place of a classifier: embeddings are posteriors."""
    return posteriors.log().clamp_min(-200)  # e^-200 is 0 in float32


def song_embedding(clip_samples=4, hop_samples=2):
    model = SimpleNamespace(frontend=nn.Identity(), embedding=MeanAndLargest())
    return SongEmbedding(model, clip_samples, hop_samples, batch_size=3)


def test_padding_is_never_heard():
    songs = [torch.tensor([0.0, k]).repeat(5)[:n] for k, n in [(1, 10), (2, 5), (3, 2)]]
    padded = nn.utils.rnn.pad_sequence(songs, True, padding_value=99.0)
    first, second, third = song_embedding()(padded, torch.tensor([1.0, 0.5, 0.2]))
    assert first.tolist() == [[0.5, 1]] * 4
    assert second[:2].tolist() == [[1, 2], [1, 2]]
    assert third[0].tolist() == [1.5, 3]
    assert second[2:].isnan().all() and third[1:].isnan().all()


def test_relative_lengths_give_the_length_to_the_sample():
    n_samples = 300_007  # of silence, whose clips are counted all the same
    wavs = torch.zeros(1).expand(1, n_samples)
    for length in range(200_000, 200_015):
        embed = song_embedding(length - 1, hop_samples=1)
        assert embed(wavs, torch.tensor([length / n_samples])).shape[1] == 2


def test_a_model_that_fails_does_not_pass_for_silence():
    embed = song_embedding()
    embed.embedding.forward = lambda clips: torch.full((len(clips), 1, 2), torch.nan)
    with pytest.raises(WeightsError, match="output is not finite"):
        embed(torch.randn(1, 9))


@pytest.mark.parametrize(
    ("voting", "expected"), [("majority", [1 / 3, 2 / 3, 0]), ("mean", CLIPS.mean(0))]
)
def test_only_clips_with_sound_vote(voting, expected):
    classify = VotingClassifier(SimpleNamespace(classifier=logarithm), voting)
    nothing = torch.full((3, 3), torch.nan)
    first_and_nothing = torch.cat([CLIPS[:1], nothing[1:]])
    songs = torch.stack([CLIPS, first_and_nothing, nothing])
    log_posteriors = classify(songs)
    assert log_posteriors.shape == (3, 1, 3)
    whole, short, silent = log_posteriors[:, 0].exp()
    torch.testing.assert_close(whole, torch.as_tensor(expected), rtol=0, atol=0.01)
    assert short.equal(classify(CLIPS[None, :1])[0, 0].exp())
    torch.testing.assert_close(silent, torch.full((3,), 1 / 3))
