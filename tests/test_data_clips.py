"""Clips of tracks: where they are cut, and which are silent."""

import torch

from ms_sincresnet.data.clips import repeat_to_length, silent, split_clips


def test_clips_start_every_hop_and_are_a_view():
    wav = torch.arange(480000)
    clips = split_clips(wav)
    assert clips[:, 0].tolist() == [8000 * n for n in range(55)]
    assert (clips == clips[:, :1] + torch.arange(48000)).all()
    assert clips.data_ptr() == wav.data_ptr()
    batch = torch.stack([wav, wav + 1])
    assert split_clips(batch).equal(torch.stack([clips, clips + 1]))
    for n_samples, n_clips in [(1, 1), (55999, 1), (56000, 2)]:
        assert split_clips(wav[:n_samples]).shape == (n_clips, 48000)


def test_short_tracks_are_repeated_and_others_not_copied():
    wavs = torch.arange(6).reshape(2, 3)
    assert repeat_to_length(wavs, 5).tolist() == [[0, 1, 2, 0, 1], [3, 4, 5, 3, 4]]
    assert repeat_to_length(wavs, 3) is wavs
    assert split_clips(wavs[0], clip_samples=8).tolist() == [[0, 1, 2, 0, 1, 2, 0, 1]]


def test_dither_and_constants_are_silent_and_the_quietest_tone_is_not():
    step = 2**-15
    dither = torch.randint(0, 2, (1000,), generator=torch.manual_seed(0)) * step
    tone = 2 * step * torch.sin(torch.arange(1000) / 5)
    clips = torch.stack([torch.zeros(1000), torch.full((1000,), 0.5), dither, tone])
    assert silent(clips).tolist() == [True, True, True, False]
