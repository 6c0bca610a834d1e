"""Calibrated, unsure and unlike songs, from the loaders to the command line."""

import json

import pytest
import torch

from ms_sincresnet import GenreClassifier, MSSincResNet
from ms_sincresnet.models.songs import embed_songs
from ms_sincresnet.pretrained.model_folder import read_model_folder, save_model_folder

CPU = {"run_opts": {"device": "cpu"}}
FITTED = {"temperature": 4.0, "usual_norm": 20.0}
CLIPS = {"clip_samples": 48000, "hop_samples": 24000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tone_model, genres):
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    save_model_folder(folder, tone_model, genres, voting="mean", **CLIPS, **FITTED)
    return folder


@pytest.fixture
def classifier(folder):
    return GenreClassifier.from_pretrained(folder, **CPU)


@pytest.fixture
def song(tmp_path, write_song):
    return write_song(tmp_path / "song.wav", ("jazz", 4.0), ("rock", 3.0))


def test_a_songs_posteriors_are_calibrated_and_its_clips_are_not(classifier, song):
    after = classifier.predict_song(song)
    posteriors = classifier.classify_file(song)[0][0].exp().tolist()
    assert list(after.posteriors.values()) == pytest.approx(posteriors, rel=1e-5)
    classifier.mods.classifier.temperature = None
    before = classifier.predict_song(song)
    assert after.genre == before.genre and after.clips == before.clips
    assert after.posteriors[after.genre] < before.posteriors[after.genre] - 0.1


def test_fits_are_of_one_model_and_its_voting(classifier, folder, song, tmp_path):
    assert classifier.temperature == 4.0
    classifier.hparams.voting = "majority"
    assert classifier.temperature is None
    fused = GenreClassifier.from_pretrained([folder, folder], **CPU)
    assert fused.temperature is None and fused.predict_song(song).unlike is None
    assert FITTED.items() <= read_model_folder(folder).settings.items()
    MSSincResNet.from_pretrained(folder).save_pretrained(tmp_path)
    assert not FITTED.keys() & read_model_folder(tmp_path).settings.keys()


def test_unlike_is_the_norm_of_the_mean_embedding(classifier, folder, song):
    silence = torch.zeros(48000)  # is not heard
    wav = torch.cat([silence, classifier.load_audio(song)])
    with torch.no_grad():
        model = read_model_folder(folder)
        pieces = embed_songs(model, [(0, [wav])], batch_size=32, **CLIPS)
        rows = torch.cat([rows for _, rows in pieces])
    heard = rows[~rows.isnan().any(1)]
    assert 0 < len(heard) < len(rows)
    expected = pytest.approx(heard.mean(0).norm().item() / 20, rel=1e-4)
    for loaded in (classifier, GenreClassifier.from_hparams(folder, **CPU)):
        loaded.mods.embedding_model.batch_size = 2  # a song in several batches
        ((_, found),) = loaded.predict_songs([(0, [wav])])
        assert found.unlike == expected


def test_the_command_gives_unsure_songs_no_genre(folder, song, command, tmp_path):
    argv = ["classify", song, "--model", folder, "--device", "cpu"]
    status, out, _ = command(*argv, "--format", "jsonl")
    sure = json.loads(out)
    assert status == 0 and sure["genre"]
    assert sure["unsure"] is False and sure["unlike"] > 0
    output = tmp_path / "genres.csv"
    argv += ["--output", output, "--min-posterior"]
    status, _, err = command(*argv, sure["top"][0]["posterior"] + 0.001)
    assert status == 0 and "1 of 1 songs have a genre or are unsure" in err
    assert output.read_text().splitlines()[1].startswith(f"{song},,")
    _, text, _ = command("info", folder)
    assert "  temperature: 4.0\n" in text and "not calibrated" not in text
