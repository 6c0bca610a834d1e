"""Votes counted by hand, and the song's log-posteriors that go with them."""

import pytest
import torch

from ms_sincresnet.nnet.voting import song_log_posteriors, vote


def clips(*posteriors):
    """Log-posteriors of clips."""
    return torch.tensor(posteriors).log()


# Genre 1 has two votes of three; genre 0 has the larger sum of posteriors.
MAJORITY = clips([0.9, 0.1, 0.0], [0.4, 0.5, 0.1], [0.3, 0.4, 0.3])
# Genres 0 and 2 have two votes each; genre 2 has the larger sum, genre 1 the largest.
TIE = clips([0.5, 0.4, 0.1], [0.4, 0.35, 0.25], [0.1, 0.4, 0.5], [0.0, 0.4, 0.6])


def test_the_majority_wins():
    index, shares = vote(MAJORITY)
    assert index == 1
    torch.testing.assert_close(shares, torch.tensor([1 / 3, 2 / 3, 0]))


def test_of_equally_many_votes_the_larger_sum_of_posteriors_wins():
    index, shares = vote(TIE)
    assert index == 2
    assert shares.tolist() == [0.5, 0, 0.5]
    assert vote(TIE.flip(1))[0] == 0


@pytest.mark.parametrize("of_a_song", [vote, song_log_posteriors])
def test_the_smallest_difference_breaks_a_tie(of_a_song):
    """It is less than single precision shows in a sum of posteriors."""
    song = clips([0.6, 0.3, 0.1], [0.3, 0.6, 0.1])
    song[0, 1] = song[0, 1].nextafter(torch.tensor(0.0))
    for tie, index in [(song, 1), (song.flip(1), 1), (song.roll(1, dims=1), 2)]:
        decision = of_a_song(tie)
        found = decision[0] if of_a_song is vote else decision.argmax().item()
        assert found == index


def test_the_mean_is_that_of_the_posteriors():
    index, shares = vote(MAJORITY, method="mean")
    assert index == 0
    torch.testing.assert_close(shares, torch.tensor([1.6, 1.0, 0.4]) / 3)
    assert vote(TIE, method="mean")[0] == 1


@pytest.mark.parametrize("method", ["majority", "mean"])
def test_one_clip_decides_alone(method):
    index, shares = vote(clips([0.2, 0.7, 0.1]), method)
    assert index == 1
    expected = [0, 1, 0] if method == "majority" else [0.2, 0.7, 0.1]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float32))


def test_an_index_is_an_int_and_shares_have_the_clips_type():
    for dtype in (torch.float32, torch.float64):
        index, shares = vote(MAJORITY.to(dtype))
        assert type(index) is int
        assert shares.dtype == dtype


def test_many_sure_clips_do_not_outvote_one_more_clip():
    """A sum of posteriors breaks ties only, however large it is."""
    sure, unsure = [0.998, 0.001, 0.001], [0.33, 0.34, 0.33]
    assert vote(clips(*[sure] * 500, *[unsure] * 501))[0] == 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="one of majority, mean; got 'median'"):
        vote(MAJORITY, method="median")
    with pytest.raises(ValueError, match="no clip"):
        vote(torch.zeros(0, 10))


def tied_clips(generator, n_clips, n_genres, sureness):
    """Clips of which two genres have half of the votes each."""
    first, second = torch.randperm(n_genres, generator=generator)[:2]
    scores = torch.rand(n_clips, n_genres, generator=generator)
    scores[0::2, first] += sureness
    scores[1::2, second] += sureness
    return scores.log_softmax(1)


@pytest.mark.parametrize("method", ["majority", "mean"])
def test_the_likeliest_genre_of_a_song_is_the_one_voted_for(method):
    generator = torch.Generator().manual_seed(0)
    for trial in range(300):
        n_clips = int(torch.randint(1, 60, (), generator=generator))
        if trial % 3 == 0:
            song = 3 * torch.randn(n_clips, 10, generator=generator)
            song = song.log_softmax(1)
        else:  # ties; sure clips differ by less than a float32 song can show
            song = tied_clips(generator, 2 * n_clips, 4, [1.0, 20.0][trial % 3 - 1])
        posteriors = song_log_posteriors(song, method)
        assert posteriors.argmax() == vote(song, method)[0]
        assert posteriors.isfinite().all()
        assert posteriors.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_a_songs_posteriors_are_the_shares_with_a_little_of_the_mean():
    posteriors = song_log_posteriors(MAJORITY, weight_of_mean=0.1).exp()
    shares, mean = torch.tensor([1, 2, 0]) / 3, torch.tensor([1.6, 1.0, 0.4]) / 3
    torch.testing.assert_close(posteriors, 0.9 * shares + 0.1 * mean)
    means = song_log_posteriors(MAJORITY, method="mean").exp()
    torch.testing.assert_close(means, mean)


def test_the_mean_never_overrules_a_vote():
    sure, unsure = [0.998, 0.001, 0.001], [0.33, 0.34, 0.33]
    song = clips(*[sure] * 500, *[unsure] * 501)
    posteriors = song_log_posteriors(song, weight_of_mean=0.9).exp()
    assert posteriors.argmax() == 1
    shares = torch.tensor([500, 501, 0]) / 1001
    assert (posteriors - shares).abs().max() < 1 / 1001


def test_impossible_genres_keep_a_finite_logarithm():
    song = torch.full((3, 4), -torch.inf)
    song[:, 2] = 0
    posteriors = song_log_posteriors(song)
    assert posteriors.isfinite().all()
    assert posteriors.argmax() == 2


@pytest.mark.parametrize("method", ["majority", "mean"])
def test_without_a_clip_all_genres_are_as_likely(method):
    posteriors = song_log_posteriors(torch.zeros(0, 4), method).exp()
    torch.testing.assert_close(posteriors, torch.full((4,), 0.25))
