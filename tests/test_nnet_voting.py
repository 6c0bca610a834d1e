"""Votes counted by hand, and the song's log-posteriors that go with them."""

import pytest
import torch

from ms_sincresnet.nnet.voting import song_log_posteriors, vote

from .backends import white_noise


def clips(*posteriors):
    return torch.tensor(posteriors).log()


# Genre 1 has two votes of three; genre 0 has the larger sum of posteriors.
MAJORITY = clips([0.9, 0.1, 0.0], [0.4, 0.5, 0.1], [0.3, 0.4, 0.3])
# Genres 0 and 2 have two votes each; genre 2 has the larger sum, genre 1 the largest.
TIE = clips([0.5, 0.4, 0.1], [0.4, 0.35, 0.25], [0.1, 0.4, 0.5], [0.0, 0.4, 0.6])
# A sum of posteriors breaks ties only, however large it is.
SURE = clips(*[[0.998, 0.001, 0.001]] * 500, *[[0.33, 0.34, 0.33]] * 501)
each_method = pytest.mark.parametrize("method", ["majority", "mean"])


@pytest.mark.parametrize(
    ("song", "method", "winner", "shares"),
    [
        (MAJORITY, "majority", 1, [1 / 3, 2 / 3, 0]),
        (MAJORITY, "mean", 0, [1.6 / 3, 1 / 3, 0.4 / 3]),
        (TIE, "majority", 2, [0.5, 0, 0.5]),
        (TIE, "mean", 1, [0.25, 1.55 / 4, 1.45 / 4]),
        (SURE, "majority", 1, [500 / 1001, 501 / 1001, 0]),
    ],
)
def test_votes_counted_by_hand(song, method, winner, shares):
    index, found = vote(song, method)
    assert type(index) is int and index == winner
    torch.testing.assert_close(found, torch.tensor(shares))
    posteriors = song_log_posteriors(song, method)
    assert posteriors.argmax() == winner
    assert posteriors.isfinite().all()  # also where all clips rule a genre out
    assert posteriors.exp().sum().item() == pytest.approx(1, abs=1e-6)


@each_method
def test_the_likeliest_genre_of_a_song_is_the_one_voted_for(method):
    for trial in range(300):
        # Ties; sure clips differ by less than a song in float32 can show.
        scores = white_noise(2 + trial // 10 * 2, 4, seed=trial)
        scores[0::2, trial % 4] += (0, 5, 20)[trial % 3]
        scores[1::2, (trial + 1) % 4] += (0, 5, 20)[trial % 3]
        song = scores.log_softmax(1)
        assert song_log_posteriors(song, method).argmax() == vote(song, method)[0]


def test_a_songs_posteriors_are_the_shares_with_a_little_of_the_mean():
    posteriors = song_log_posteriors(MAJORITY).exp()
    shares, mean = torch.tensor([1, 2, 0]) / 3, torch.tensor([1.6, 1.0, 0.4]) / 3
    torch.testing.assert_close(posteriors, 0.99 * shares + 0.01 * mean)
    means = song_log_posteriors(MAJORITY, method="mean").exp()
    torch.testing.assert_close(means, mean)
    # Among many clips, less than one vote.
    shares = torch.tensor([500, 501, 0]) / 1001
    assert (song_log_posteriors(SURE).exp() - shares).abs().max() < 1 / 1001


@each_method
@pytest.mark.parametrize("temperature", [0.001, 0.5, 1000.0])
def test_a_temperature_divides_and_never_changes_the_winner(method, temperature):
    for song in (MAJORITY, TIE, SURE):
        plain = song_log_posteriors(song, method)
        found = song_log_posteriors(song, method, temperature)
        expected = (plain / temperature).log_softmax(0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.argmax() == vote(song, method)[0]
        assert (found == found.max()).sum() == 1


def test_without_a_clip_all_genres_are_as_likely_and_none_is_voted_for():
    posteriors = song_log_posteriors(torch.zeros(0, 4)).exp()
    torch.testing.assert_close(posteriors, torch.full((4,), 0.25))
    with pytest.raises(ValueError, match="no clip"):
        vote(torch.zeros(0, 10))
    with pytest.raises(ValueError, match="one of majority, mean; got 'median'"):
        vote(MAJORITY, method="median")
