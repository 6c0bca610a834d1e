"""The embedding of whole songs in batches that are padded."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ms_sincresnet.errors import WeightsError
from ms_sincresnet.inference.speechbrain_modules import SongEmbedding

from .test_models_songs import mean_and_largest

MODEL = SimpleNamespace(frontend=nn.Identity(), embedding=mean_and_largest)


def test_padding_is_never_heard():
    songs = [torch.tensor([0.0, k]).repeat(5)[:n] for k, n in [(1, 10), (2, 5), (3, 2)]]
    padded = nn.utils.rnn.pad_sequence(songs, True, padding_value=99.0)
    embed = SongEmbedding(MODEL, clip_samples=4, hop_samples=2, batch_size=3)
    first, second, third = embed(padded, torch.tensor([1.0, 0.5, 0.2]))
    assert first.tolist() == [[0.5, 1]] * 4
    assert second[:2].tolist() == [[1, 2], [1, 2]]
    assert third[0].tolist() == [1.5, 3]
    assert second[2:].isnan().all() and third[1:].isnan().all()


def test_relative_lengths_give_the_length_to_the_sample():
    n_samples = 300_007  # of silence, whose clips are counted all the same
    wavs = torch.zeros(1).expand(1, n_samples)
    for length in range(200_000, 200_015):
        embed = SongEmbedding(MODEL, length - 1, hop_samples=1)
        assert embed(wavs, torch.tensor([length / n_samples])).shape[1] == 2


def test_a_model_that_fails_does_not_pass_for_silence():
    embed = SongEmbedding(MODEL, clip_samples=4, hop_samples=2)
    embed.embedding = lambda clips: torch.full((len(clips), 1, 2), torch.nan)
    with pytest.raises(WeightsError, match="output is not finite"):
        embed(torch.randn(1, 9))
