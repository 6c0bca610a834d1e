"""The modules inside a model folder: whole songs in, voted log-posteriors out."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch import nn

from ms_sincresnet.data.clips import silent
from ms_sincresnet.errors import AudioFileError, WeightsError
from ms_sincresnet.inference.speechbrain_modules import (
    Identity,
    InputCheck,
    SongEmbedding,
    StrictlyLoaded,
    VotingClassifier,
)
from ms_sincresnet.nnet import frontend as frontend_file
from ms_sincresnet.nnet.backends import simd
from ms_sincresnet.nnet.backends.songs import cut_song

needs_compiler = pytest.mark.skipif(
    simd.LIBRARY is None, reason="installed without a C compiler"
)


class MeanAndLargest(nn.Module):
    """Stands for front-end and trunk: a clip's mean and largest sample."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def forward(self, clips):
        self.batch_sizes.append(len(clips))
        return torch.stack([clips.mean(1), clips.amax(1)], dim=1)[:, None]


@pytest.fixture
def embed():
    """Songs to the mean and the largest of 4 samples, every 2 samples."""
    model = SimpleNamespace(frontend=nn.Identity(), embedding=MeanAndLargest())
    return SongEmbedding(model, clip_samples=4, hop_samples=2, batch_size=3)


@pytest.fixture
def classify():
    """Votes of clips whose embeddings are posteriors of their own."""

    def by(voting):
        classifier = SimpleNamespace(classifier=Logarithm())
        return VotingClassifier(classifier, voting)

    return by


class Logarithm(nn.Module):
    """Stands for the classifier."""

    def forward(self, posteriors):
        return posteriors.log().clamp_min(-200)


def test_a_song_becomes_one_embedding_a_clip(embed):
    song = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8])  # the 8 is less than a hop
    expected = [[[1.5, 3], [3.5, 5], [5.5, 7]]]
    assert embed(song[None]).tolist() == expected


def test_a_song_shorter_than_a_clip_is_repeated(embed):
    assert embed(torch.tensor([[1.0, 2, 6]])).tolist() == [[[2.5, 6]]]  # 1 2 6 1


def test_a_long_song_passes_in_batches_of_fixed_size(embed):
    song = torch.randn(1, 2 * 7 + 2)
    embeddings = embed(song)
    assert embeddings.shape == (1, 7, 2)
    assert embed.embedding.batch_sizes == [3, 3, 1]
    embed.batch_size = 100
    torch.testing.assert_close(embed(song), embeddings, rtol=0, atol=0)


def test_padding_is_never_heard(embed):
    songs = [torch.tensor([0.0, k]).repeat(5)[:n] for k, n in [(1, 10), (2, 5), (3, 2)]]
    padded = nn.utils.rnn.pad_sequence(songs, True, padding_value=99.0)
    lens = torch.tensor([1.0, 0.5, 0.2])
    first, second, third = embed(padded, lens)
    assert first.tolist() == [[0.5, 1]] * 4
    assert second[0].tolist() == [1, 2]
    assert third[0].tolist() == [1.5, 3]
    for rows in (second[1:], third[1:]):
        assert rows.isnan().all()


def in_blocks(song, size):
    """A song as it comes from a decoder."""
    return iter(song.split(size)) if len(song) else iter([])


def test_songs_share_batches_of_fixed_size(embed):
    # Of 5, 1, 0, 2, 4 and 8 clips, one shorter than a clip, in blocks of any length.
    lengths = {"a": 12, "b": 3, "c": 0, "d": 7, "e": 10, "f": 18}
    songs = {name: torch.randn(length) for name, length in lengths.items()}
    for size in (1, 3, 5, 100):
        found = {name: [] for name in songs}
        embed.embedding.batch_sizes.clear()
        blocks = ((name, in_blocks(song, size)) for name, song in songs.items())
        order = []
        for name, embeddings in embed.embed_songs(blocks):
            order.append(name)
            found[name].append(embeddings)
        assert order == sorted(order)
        assert embed.embedding.batch_sizes == [3] * 6 + [2]
        assert found.pop("c") == []
        for name, embeddings in found.items():
            alone = embed(songs[name][None])[0]
            assert torch.cat(embeddings).equal(alone), name


def test_no_more_of_a_song_is_read_than_needed(embed):
    taken = []

    def blocks(name):
        for block in torch.randn(4, 4):
            taken.append(name)
            yield block

    songs = ((name, blocks(name)) for name in "ab")
    embeddings = embed.embed_songs(songs)
    assert len(next(embeddings)[1]) == 3
    assert taken == ["a"] * 2  # the first batch is of 8 samples


@pytest.mark.parametrize("quiet", [0.0, 0.25, -1.0])
def test_silent_clips_have_no_embedding(embed, quiet):
    """Silence, and what is constant, as digital silence with an offset is."""
    song = torch.full((16,), quiet)
    song[6:8] += torch.tensor([0.1, -0.1])
    embeddings = embed(song[None])[0]
    heard = [False, False, True, True, False, False, False]
    assert (~embeddings.isnan()).all(1).tolist() == heard
    assert embeddings.isnan().all(1).tolist() == [not each for each in heard]


def test_a_clip_is_silent_below_one_step_of_16_bits():
    alternating = torch.tensor([1.0, -1.0]).repeat(24000)
    for factor, expected in [(0.99, True), (1.01, False)]:
        clips = torch.stack([0.5 + factor * alternating / 2**15, alternating])
        assert silent(clips).tolist() == [expected, False]


def test_samples_reach_the_model_on_the_scale_it_was_trained_on(embed):
    song = torch.tensor([0.0, 1, 2, 3, 4, 5]) / 2**15
    embed.full_scale = 2.0**15
    assert embed(song[None]).tolist() == [[[1.5, 3], [3.5, 5]]]
    # Quiet is what is so in the file, whatever the model's scale.
    assert embed(song[None] / 4).isnan().all()


def test_a_model_that_gives_nan_does_not_pass_for_silence(embed):
    embed.embedding.forward = lambda clips: torch.full((len(clips), 1, 2), torch.nan)
    with pytest.raises(WeightsError, match="NaN of audio"):
        embed(torch.randn(1, 9))


def test_relative_lengths_give_the_length_to_the_sample():
    model = SimpleNamespace(frontend=nn.Identity(), embedding=MeanAndLargest())
    n_samples = 300_007  # of silence, whose clips are counted all the same
    wavs = torch.zeros(1).expand(1, n_samples)
    for length in range(200_000, 200_100):
        lens = torch.tensor([length / n_samples])
        for clip_samples, n_clips in [(length, 1), (length - 1, 2)]:
            embed = SongEmbedding(model, clip_samples, hop_samples=1)
            assert embed(wavs, lens).shape[1] == n_clips


def test_an_empty_song_in_a_batch_is_refused(embed):
    with pytest.raises(AudioFileError, match="song 1 of the batch is empty"):
        embed(torch.ones(3, 8), torch.tensor([1.0, 0.0, 0.5]))


@pytest.mark.parametrize(
    ("wavs", "told"),
    [
        (torch.zeros(2, 0), "empty: 0 samples"),
        (torch.tensor([[0.0, torch.nan]]), "NaN or infinite"),
        (torch.tensor([[0.0, -torch.inf]]), "NaN or infinite"),
        (torch.zeros(1, 8, 2), r"must be mono.*got shape \[1, 8, 2\]"),
        (torch.zeros(8), r"got shape \[8\]"),
    ],
)
def test_what_is_no_audio_is_refused(wavs, told):
    with pytest.raises(AudioFileError, match=told):
        InputCheck()(wavs)


def test_audio_passes_as_it_is():
    wavs = torch.randn(2, 5)
    assert InputCheck()(wavs) is wavs
    assert Identity()(wavs, torch.ones(2)) is wavs


CLIPS = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.45, 0.55, 0.0]])


def test_the_majority_of_the_clips_decides(classify):
    log_posteriors = classify("majority")(CLIPS[None])
    assert log_posteriors.shape == (1, 1, 3)
    posteriors = log_posteriors[0, 0].exp()
    assert posteriors.argmax() == 1
    expected = torch.tensor([1 / 3, 2 / 3, 0])
    torch.testing.assert_close(posteriors, expected, rtol=0, atol=0.01)


def test_the_mean_of_the_posteriors_decides(classify):
    posteriors = classify("mean")(CLIPS[None])[0, 0].exp()
    assert posteriors.argmax() == 0
    torch.testing.assert_close(posteriors, CLIPS.mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("voting", ["majority", "mean"])
@pytest.mark.parametrize("n_clips", [1, 55, 4000])
def test_log_posteriors_are_finite_and_sum_to_one(classify, voting, n_clips):
    # e^-200 is 0 in float32.
    sure = torch.tensor([1.0, 0.0, 0.0]).expand(n_clips, 3)
    log_posteriors = classify(voting)(sure[None])[0, 0]
    assert log_posteriors.isfinite().all()
    assert log_posteriors.exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert log_posteriors.argmax() == 0


def test_clips_that_a_song_does_not_have_do_not_vote(classify):
    padding = torch.full((2, 3), torch.nan)
    songs = torch.stack([torch.cat([CLIPS[:1], padding]), CLIPS])
    vote = classify("majority")
    together = vote(songs)
    for song, clips in zip(together, [CLIPS[:1], CLIPS], strict=True):
        torch.testing.assert_close(song, vote(clips[None])[0], rtol=0, atol=0)
    first, second = vote.clip_log_posteriors(songs)
    torch.testing.assert_close(first[0, :2], CLIPS[0, :2].log())
    assert len(second) == 3


@pytest.mark.parametrize("voting", ["majority", "mean"])
def test_a_silent_song_is_of_any_genre(classify, voting):
    silence = torch.full((4, 3), torch.nan)
    log_posteriors = classify(voting)(torch.stack([silence, CLIPS[[0, 0, 0, 1]]]))
    torch.testing.assert_close(log_posteriors[0, 0].exp(), torch.full((3,), 1 / 3))
    assert log_posteriors[1, 0].argmax() == 0


def test_weights_come_back_as_they_were_saved(tmp_path):
    class Layer(StrictlyLoaded):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

    saved, loaded = Layer(), Layer()
    torch.save(saved.state_dict(), tmp_path / "layer.ckpt")
    loaded.load(tmp_path / "layer.ckpt")
    assert loaded.linear.weight.equal(saved.linear.weight)
    torch.save({"linear.weight": torch.zeros(2, 3)}, tmp_path / "layer.ckpt")
    with pytest.raises(WeightsError, match=r'(?s)layer.ckpt: .*"linear.bias"'):
        loaded.load(tmp_path / "layer.ckpt")


def test_the_tone_model_is_cut_and_voted_on_as_it_is_trained(tone_model):
    """The real parts: equal to the model itself, clip by clip."""
    song = torch.randn(1, 64000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        embeddings = SongEmbedding(tone_model, batch_size=2)(song)
        (clips,) = VotingClassifier(tone_model).clip_log_posteriors(embeddings)
        for clip, start in zip(clips, [0, 8000, 16000], strict=True):
            alone = tone_model(song[:, start : start + 48000])[0]
            torch.testing.assert_close(clip, alone, rtol=0, atol=1e-4)
    assert math.isclose(clips.exp().sum(), 3, abs_tol=1e-5)


@pytest.fixture
def ways(monkeypatch):
    """Notes in a list how many samples of a song are filtered once for its clips."""
    taken = []

    def spy(wav, *arguments):
        taken.append(len(wav))
        return cut_song(wav, *arguments)

    monkeypatch.setattr(frontend_file, "cut_song", spy)
    return taken


def expect_near(found, expected):
    """Compares to rounding."""
    assert found.shape == expected.shape
    assert (found - expected).norm() < 1e-5 * expected.norm()


@needs_compiler
def test_embeddings_do_not_depend_on_how_clips_are_batched(tone_model, ways):
    song = torch.randn(1, 80000, generator=torch.Generator().manual_seed(1)) + 2
    frontend, embedding = copy.deepcopy(tone_model.frontend), tone_model.embedding
    frontend.backend = "fft"
    clips = song[0].unfold(0, 48000, 8000)
    expected = torch.cat([embedding(frontend(clip[None])) for clip in clips])[:, 0]
    assert len(expected) == 5
    for batch_size, lengths in [
        (1, 5 * [48000]),
        (2, [56000, 56000, 48000]),
        (3, [64000, 56000]),
        (5, [80000]),
        (32, [80000]),
    ]:
        ways.clear()
        found = SongEmbedding(tone_model, batch_size=batch_size)(song)
        assert ways == lengths
        expect_near(found[0], expected)


def test_hops_that_are_no_part_of_a_clip_will_do(tone_model, ways):
    song = torch.randn(1, 70000, generator=torch.Generator().manual_seed(1))
    found = SongEmbedding(tone_model, hop_samples=7000, batch_size=3)(song)
    assert ways == []
    clips = song[0].unfold(0, 48000, 7000)
    expect_near(found[0], tone_model.embedding(tone_model.frontend(clips))[:, 0])


@needs_compiler
def test_the_stock_classifier_filters_a_song_once(model_folder, ways):
    stock = EncoderClassifier.from_hparams(str(model_folder), savedir=None)
    assert torch.is_grad_enabled()
    stock.classify_batch(torch.randn(2, 64000))
    assert ways == [64000, 64000]
