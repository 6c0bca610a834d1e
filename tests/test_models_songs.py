"""Clips of songs: cut, batched and scored."""

import copy
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from ms_sincresnet.models.songs import embed_songs, score_songs

from .backends import needs_compiler, white_noise

SMALL = {"clip_samples": 4, "hop_samples": 2, "batch_size": 3}


def mean_and_largest(clips):
    """In place of a trunk: a clip's mean and largest sample."""
    return torch.stack([clips.mean(1), clips.amax(1)], dim=1)[:, None]


@pytest.fixture
def model():
    parts = {"embedding": Mock(wraps=mean_and_largest), "classifier": nn.LogSoftmax(-1)}
    return SimpleNamespace(frontend=nn.Identity(), **parts)


def embed(model, song, **options):
    pieces = embed_songs(model, [("song", [song])], **SMALL | options)
    return torch.cat([rows for _, rows in pieces])


def test_one_embedding_per_clip(model):
    song = torch.arange(9.0)  # the last clip ends with it
    starts = [[1.5, 3], [3.5, 5], [5.5, 7]]
    assert embed(model, song).tolist() == [*starts, [6.5, 8]]
    assert embed(model, song, hop_samples=4).tolist() == [[1.5, 3], [5.5, 7], [6.5, 8]]
    assert embed(model, song, hop_samples=6).tolist() == [[1.5, 3]]  # gaps are wanted
    song = torch.arange(13.0)  # one of six is too little for another clip
    starts = embed(model, song, clip_samples=6, hop_samples=3)[:, 1]
    assert starts.tolist() == [5, 8, 11]
    song = torch.tensor([1.0, 2, 6])  # repeated: 1 2 6 1
    assert embed(model, song).tolist() == [[2.5, 6]]


@pytest.mark.parametrize("size", [1, 5, 100])
def test_songs_share_batches_and_may_come_in_blocks(model, size):
    # 5, 1, 0, 3, 4 and 8 clips, one of them from a song shorter than a clip.
    lengths = {"a": 12, "b": 3, "c": 0, "d": 7, "e": 10, "f": 18}
    songs = {name: torch.randn(length) for name, length in lengths.items()}
    blocks = {name: song.split(size) for name, song in songs.items()} | {"c": []}
    found = [*embed_songs(model, blocks.items(), **SMALL)]
    assert [len(each.args[0]) for each in model.embedding.mock_calls] == [3] * 7
    assert "".join(name for name, _ in found) == "aabddeefff"
    for name in "abdef":
        rows = torch.cat([rows for key, rows in found if key == name])
        assert rows.equal(embed(model, songs[name], batch_size=100)), name


@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_silent_clips_have_no_embedding(model, offset):
    song = torch.full((16,), offset)
    song[6:8] += torch.tensor([0.1, -0.1])
    embeddings = embed(model, song)
    assert embeddings[2:4].isfinite().all()
    assert embeddings[[0, 1, 4, 5, 6]].isnan().all()


def test_each_model_gets_samples_on_its_own_scale(model):
    other = SimpleNamespace(**vars(model), full_scale=2.0)
    song = torch.tensor([0.0, 1, 2, 3, 0, 0, 0, 0])
    found = embed(model, song, full_scale=8.0, fused_with=[other])
    assert found[:2].tolist() == [[12, 24, 3, 6], [10, 24, 2.5, 6]]
    assert found[2].isnan().all()  # a clip that is silent is so for both
    quiet = torch.tensor([0.0, 1, 2, 3]) / 2**17  # silence, whatever the model's scale
    assert embed(model, quiet, full_scale=2.0**15).isnan().all()


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_a_model_fails_on_single_clips(model, bad):
    model.embedding.side_effect = lambda clips: torch.where(
        clips.amax(1)[:, None, None] > 7, bad, mean_and_largest(clips)
    )
    songs = [("good", [torch.rand(8)]), ("bad", [torch.tensor([1.0, 0, 0, 0, 8, 0])])]
    for run, of_failure in (embed_songs, torch.isinf), (score_songs, torch.isnan):
        (_, good), (_, mixed) = run(model, songs, **SMALL | {"batch_size": 9})
        assert good.isfinite().all()
        assert mixed[0].isfinite().all() and of_failure(mixed[1]).all()


def test_scores_come_once_per_song(model):
    song, quiet = torch.rand(14), torch.zeros(20)
    songs = [("a", song.split(5)), ("a", [quiet]), ("b", [torch.cat([quiet, song])])]
    found = [*score_songs(model, songs, **SMALL)]
    lengths = [(key, len(scores)) for key, scores in found]
    assert lengths == [("a", 6), ("a", 1), ("b", 7)]
    torch.testing.assert_close(found[0][1], embed(model, song).log_softmax(1))
    torch.testing.assert_close(found[1][1].exp(), torch.full((1, 2), 0.5))
    assert found[2][1][-6:].equal(found[0][1])


@needs_compiler
def test_overlapping_clips_of_a_batch_are_filtered_once(tone_model, songs_filtered):
    song = white_noise(72000) + 2
    found = embed(tone_model, song, clip_samples=48000, hop_samples=8000)
    assert [len(call.args[0]) for call in songs_filtered.mock_calls] == [64000, 48000]
    frontend = copy.deepcopy(tone_model.frontend)
    frontend.backend = "fft"
    expected = tone_model.embedding(frontend(song.unfold(0, 48000, 8000)))[:, 0]
    assert found.shape == expected.shape
    assert (found - expected).norm() < 1e-5 * expected.norm()
