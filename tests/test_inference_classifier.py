"""GenreClassifier and the stock EncoderClassifier on songs whose genre is known."""

import math
import os
import shutil
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import numpy as np
import pytest
import soundfile
import soxr
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from ms_sincresnet import GenreClassifier, MSSincResNet, SincNet
from ms_sincresnet.errors import (
    AudioFileError,
    ModelFolderError,
    UserError,
    WeightsError,
)
from ms_sincresnet.inference.fusion import sum_rule
from ms_sincresnet.pretrained.hub import describe
from ms_sincresnet.pretrained.model_folder import save_model_folder

CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def stock_classifier(model_folder):
    return EncoderClassifier.from_hparams(source=str(model_folder), run_opts=CPU)


@pytest.fixture
def song(tmp_path, write_song):
    """A song of metal at first, then blues, which wins."""
    return write_song(tmp_path / "song.wav", ("metal", 1.0), ("blues", 4.0))


@pytest.fixture
def songs(tmp_path, write_song):
    parts = [[("metal", 1.3)], [("jazz", 4.2), ("rock", 2.1)], [("blues", 4.0)]]
    return [write_song(tmp_path / f"{n}.wav", *song) for n, song in enumerate(parts)]


def clip_posteriors(path, model):
    """Posteriors of a file's clips, and its length, by nothing but the model."""
    samples, rate = soundfile.read(path, always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, 16000, quality="HQ")
    repeated = np.tile(mono, -(-48000 // len(mono)))[: max(48000, len(mono))]
    clips = torch.tensor(repeated, dtype=torch.float32).unfold(0, 48000, 8000)
    return model(clips).exp(), len(mono)


def check_clips(song, posteriors, genres):
    """A prediction has these posteriors of its clips, and their mean."""
    predicted = [genres[index] for index in posteriors.argmax(1)]
    assert [clip.genre for clip in song.clips] == predicted
    found = [clip.posterior for clip in song.clips]
    assert found == pytest.approx(posteriors.amax(1).tolist(), abs=1e-4)
    means = dict(zip(genres, posteriors.mean(0).tolist(), strict=True))
    assert song.posteriors == pytest.approx(means, abs=1e-4)


def test_both_classes_predict_the_voted_genre_of_a_whole_track(
    tmp_path, write_song, tone_model, genres, classifier, stock_classifier
):
    parts = {"metal": 1.6, "rock": 2.4, "jazz": 4}
    path = tmp_path / "song.flac"
    write_song(path, *parts.items(), rate=96000, channels=6)
    posteriors, n_samples = clip_posteriors(path, tone_model)
    votes = Counter(genres[index] for index in posteriors.argmax(1))
    assert votes.keys() == parts.keys() and votes.most_common(1)[0][0] == "jazz"
    expected_shares = {genre: votes[genre] / votes.total() for genre in genres}

    song = classifier.predict_song(path)
    check_clips(song, posteriors, genres)
    assert song.genre == "jazz"
    assert song.duration == pytest.approx(n_samples / 16000, abs=2 / 16000)
    assert song.shares == pytest.approx(expected_shares, abs=1e-6)

    ours = classifier.classify_file(path)
    stock = stock_classifier.classify_file(str(path))
    for out_prob, score, index, genre in (ours, stock):
        (shares,) = out_prob.exp().tolist()
        assert shares == pytest.approx([*expected_shares.values()], abs=0.011)
        assert score.tolist() == [out_prob.max().item()]
        assert (index.tolist(), genre) == ([genres.index("jazz")], ["jazz"])
    torch.testing.assert_close(ours[0], stock[0], rtol=0, atol=1e-3)


def test_songs_may_share_batches(model_folder, classifier, songs, monkeypatch):
    """With songs that are silent, broken, empty, or on which the model fails."""
    small = GenreClassifier.from_hparams(model_folder, overrides={"batch_size": 4})
    embed, wavs = small.mods.embedding_model, [classifier.load_audio(p) for p in songs]
    forward = embed.frontend.__class__.forward

    def fail_on_loud_clips(frontend, clips):
        maps = forward(frontend, clips)
        maps[clips.amax(1) > 100] = torch.nan
        return maps

    embed.frontend.backend = "fft"  # by which clips are filtered one by one
    monkeypatch.setattr(embed.frontend.__class__, "forward", fail_on_loud_clips)

    def breaking():
        yield wavs[1][:70000]
        raise AudioFileError("it breaks off")

    given = {
        "first": wavs[0].split(5000),
        "silent": [torch.zeros(60000)],
        "broken": breaking(),
        "second": wavs[1].split(7000),
        "loud": [torch.cat([wavs[1][:60000], 1000 * wavs[1][60000:80000]])],
        "empty": [],
        "third": [wavs[2]],
    }
    found = {}
    for key, prediction in small.predict_songs(iter(given.items())):
        assert torch.is_grad_enabled()  # the caller's setting
        found[key] = prediction
    assert list(found) == list(given)
    for key, kind, message in [
        ("broken", AudioFileError, "it breaks off"),
        ("silent", AudioFileError, "silent: silent throughout"),
        ("empty", AudioFileError, "empty: the audio is empty: 0 samples"),
        ("loud", WeightsError, "loud: the model's output is not finite"),
    ]:
        assert isinstance(found[key], kind) and str(found[key]).startswith(message)
    for key, path in zip(["first", "second", "third"], songs, strict=True):
        alone = classifier.predict_song(path)
        for part in ("genre", "shares", "duration"):
            assert getattr(found[key], part) == getattr(alone, part)
        assert found[key].posteriors == pytest.approx(alone.posteriors, abs=1e-4)
        assert [clip[:3] for clip in found[key].clips] == [c[:3] for c in alone.clips]


def test_addresses_of_folders_and_songs_beside_which_nothing_is_written(
    tmp_path, model_folder, write_song, monkeypatch
):
    before = sorted(os.listdir(model_folder))
    monkeypatch.setenv("HOME", str(model_folder.parent))
    monkeypatch.chdir(tmp_path)
    ours = GenreClassifier.from_hparams(f"~/{model_folder.name}", run_opts=CPU)
    stock = EncoderClassifier.from_hparams(os.path.relpath(model_folder), run_opts=CPU)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / 'l\'été "à" $HOME' / "kruhový objazd #1.wav"
    path.parent.mkdir()
    for song in (path, "song.wav", "~song.wav"):
        write_song(song, ("jazz", 3))
    for address in (str(path), "song.wav"):
        assert stock.classify_file(address)[3] == ["jazz"]
    for address in (path, "song.wav", "~/song.wav", "~song.wav"):
        assert ours.predict_song(address).genre == "jazz"
        assert ours.classify_file(address)[3] == ["jazz"]
    # SpeechBrain would return the first song for another of its name from savedir.
    write_song(path.with_name("song.wav"), ("rock", 3))
    for address, genre in [("song.wav", "jazz"), (path.with_name("song.wav"), "rock")]:
        assert ours.classify_file(address, savedir="savedir")[3] == [genre]
    assert sorted(os.listdir()) == sorted([path.parent.name, "song.wav", "~song.wav"])
    assert sorted(os.listdir(model_folder)) == before


def test_a_silent_song_has_no_genre(tmp_path, classifier, caplog):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.full(4 * 16000, 0.25), 16000)
    with pytest.raises(AudioFileError, match=r"silence\.wav: silent throughout"):
        classifier.predict_song(path)
    log_posteriors = classifier.classify_file(path)[0]
    assert caplog.messages == [f"{path} is silent: all genres are equally likely"]
    assert log_posteriors.exp().tolist() == [pytest.approx([0.25] * 4)]


def test_a_batch_of_anything_but_audio_is_refused(stock_classifier):
    for batch, reason in [
        ([torch.zeros(1, 0)], "0 samples"),
        ([torch.tensor([[0.0, -torch.inf]])], "NaN or infinite"),
        ([torch.zeros(1, 48000, 2)], r"got shape \[1, 48000, 2\]"),
        ([torch.zeros(2, 48000), torch.tensor([1.0, 0.0])], "song 1 .* is empty"),
    ]:
        with pytest.raises(AudioFileError, match=reason):
            stock_classifier.classify_batch(*batch)


def test_a_mistyped_path_is_named_and_not_looked_up(tmp_path, monkeypatch, classifier):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download := Mock())
    (tmp_path / "results").mkdir()
    names = ["./results/nowhere", "no/such/nowhere", "~/nowhere", Path("a/nowhere")]
    loaders = [GenreClassifier.from_hparams, GenreClassifier.from_pretrained]
    for name in names:
        for load in (*loaders, MSSincResNet.from_pretrained, describe):
            with pytest.raises(ModelFolderError, match="nowhere: no such model folder"):
                load(name)
    for name in ("a.wav", "results/b/a.wav", "./a/a.wav", Path("a.wav")):
        with pytest.raises(AudioFileError, match=r"a\.wav: no such file"):
            classifier.predict_song(name)
    download.assert_not_called()


def test_bad_hyperparams_are_refused(tmp_path, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text().replace("[251, 501, 1001]", "[250, 501, 1001]"))
    with pytest.raises(ModelFolderError, match=f"(?s)^{folder}.*must be odd.*250"):
        GenreClassifier.from_hparams(folder, run_opts=CPU)


def test_bf16_predicts_the_same_genre(model_folder, classifier, write_song, tmp_path):
    song = write_song(tmp_path / "song.wav", ("metal", 1), ("blues", 2))
    run_opts = {"device": "cpu", "precision": "bf16"}
    expected = classifier.predict_song(song)
    reduced = GenreClassifier.from_pretrained([model_folder] * 2, run_opts=run_opts)
    found = reduced.predict_song(song)
    assert found.genre == expected.genre == "blues"
    assert found.posteriors == pytest.approx(expected.posteriors, abs=0.02)
    assert found.posteriors != pytest.approx(expected.posteriors, abs=1e-6)
    log_posteriors, _, _, genre = reduced.classify_file(song)
    assert genre == ["blues"] and log_posteriors.dtype == torch.float32


def test_clips_start_a_hop_apart(model_folder, classifier, song):
    sparse = GenreClassifier.from_pretrained([model_folder] * 2, run_opts=CPU)
    sparse.hop_s = 3.0
    clips = sparse.predict_song(song).clips
    # Of 5 s; the second one ends with the song.
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0, 3), (2, 5)]
    every = classifier.predict_song(song).clips
    for sparse_clip, clip in zip(clips, (every[0], every[4]), strict=True):
        assert sparse_clip.posterior == pytest.approx(clip.posterior, abs=1e-5)
    with pytest.raises(UserError, match="at most a clip, 3 s; got 3.5 s"):
        sparse.hop_s = 3.5


def test_fused_posteriors_are_the_mean_of_the_models(
    tone_model, model_folder, genres, songs, tmp_path
):
    torch.manual_seed(1)
    other_model = MSSincResNet(len(genres), 8, pooling="avg", hidden_size=None).eval()
    other_model.requires_grad_(False)
    other_model.classifier.layers.weight *= 10  # it is certain of what it predicts
    save_model_folder(tmp_path / "other", other_model, sorted(genres))
    sources = [model_folder, tmp_path / "other"]
    fused = GenreClassifier.from_hparams(sources, run_opts=CPU)
    order = [sorted(genres).index(name) for name in genres]
    for path in songs[:2]:
        tone = clip_posteriors(path, tone_model)[0]
        other = clip_posteriors(path, other_model)[0][:, order]
        assert (tone.mean(0) - other.mean(0)).abs().max() > 0.1
        clips = (tone + other) / 2
        expected = clips.mean(0)
        best = genres[expected.argmax()]
        song = fused.predict_song(path)
        check_clips(song, clips, genres)
        assert song.genre == best
        assert song.shares == pytest.approx(song.posteriors, abs=1e-6)
        log_posteriors, *_, genre = fused.classify_file(path)
        torch.testing.assert_close(log_posteriors[0].exp(), expected, rtol=0, atol=1e-4)
        assert genre == [best]


def test_posteriors_too_small_for_float32_are_fused():
    found = sum_rule(torch.tensor([[-200.0, 0.0], [-300.0, 0.0]]))
    assert found.tolist() == pytest.approx([-200 - math.log(2), 0.0])


def test_models_that_differ_are_not_fused(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    model = SincNet(2, n_filters=4, frame_samples=800)
    save_model_folder(first, model, ["rock", "jazz"])
    message = f"{second}: cannot be fused with {first}: models must agree in"
    for changes, found in [
        ({"clip_samples": 9000}, "clip_samples; found 9000 here and 48000"),
        ({"genres": "ab"}, "genres; found a, b here and jazz, rock"),
    ]:
        save_model_folder(second, model, **{"genres": ["rock", "jazz"], **changes})
        with pytest.raises(ModelFolderError, match=f"{message} {found} there"):
            GenreClassifier.from_pretrained([first, first, second])
