"""Calibrated, unsure and unlike songs, from the loaders to the command line."""

import json

import pytest
import torch

from ms_sincresnet import GenreClassifier, MSSincResNet
from ms_sincresnet.cli import main
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
def song(tmp_path, write_song):
    return write_song(tmp_path / "song.wav", ("jazz", 4.0), ("rock", 3.0))


def test_a_songs_posteriors_are_calibrated_and_its_clips_are_not(folder, song):
    calibrated, plain = (GenreClassifier.from_pretrained(folder, **CPU) for _ in "ab")
    plain.mods.classifier.temperature = None
    before, after = plain.predict_song(song), calibrated.predict_song(song)
    assert after.genre == before.genre and after.clips == before.clips
    powers = {name: p**0.25 for name, p in before.posteriors.items()}
    expected = {name: power / sum(powers.values()) for name, power in powers.items()}
    assert after.posteriors == pytest.approx(expected, rel=1e-4)
    log_posteriors = calibrated.classify_file(song)[0][0].exp().tolist()
    assert list(after.posteriors.values()) == pytest.approx(log_posteriors, rel=1e-5)


def test_what_was_fitted_belongs_to_one_model_and_its_voting(folder, song, tmp_path):
    classifier = GenreClassifier.from_pretrained(folder, **CPU)
    assert classifier.temperature == 4.0
    classifier.hparams.voting = "majority"
    assert classifier.temperature is None
    fused = GenreClassifier.from_pretrained([folder, folder], **CPU)
    assert fused.temperature is None and fused.predict_song(song).unlike is None
    assert FITTED.items() <= read_model_folder(folder).settings.items()
    MSSincResNet.from_pretrained(folder).save_pretrained(tmp_path)
    assert not FITTED.keys() & read_model_folder(tmp_path).settings.keys()


@pytest.mark.parametrize("load", ["from_pretrained", "from_hparams"])
def test_unlike_is_the_norm_of_the_mean_embedding(folder, song, load):
    classifier = getattr(GenreClassifier, load)(folder, **CPU)
    silence = torch.zeros(48000)  # is not heard
    wav = torch.cat([silence, classifier.load_audio(song)])
    with torch.no_grad():
        model = read_model_folder(folder)
        pieces = embed_songs(model, [(0, [wav])], batch_size=32, **CLIPS)
        rows = torch.cat([rows for _, rows in pieces])
    heard = rows[~rows.isnan().any(1)]
    assert 0 < len(heard) < len(rows)
    classifier.mods.embedding_model.batch_size = 2  # a song in several batches
    ((_, found),) = classifier.predict_songs([(0, [wav])])
    assert found.unlike == pytest.approx(heard.mean(0).norm().item() / 20, rel=1e-4)


def test_the_command_leaves_unsure_songs_without_a_genre(
    folder, song, capsys, tmp_path
):
    argv = ["classify", str(song), "--model", str(folder), "--device", "cpu"]
    assert main([*argv, "--format", "jsonl"]) == 0
    sure = json.loads(capsys.readouterr().out)
    posterior = sure["top"][0]["posterior"]
    assert sure["genre"] and sure["unsure"] is False and sure["unlike"] > 0
    argv += ["--min-posterior", str(posterior + 0.001)]
    output = tmp_path / "genres.csv"
    assert main([*argv, "--output", str(output)]) == 0
    assert "1 of 1 songs have a genre or are unsure" in capsys.readouterr().err
    assert output.read_text().splitlines()[1].startswith(f"{song},,")
    with pytest.raises(SystemExit, match="another --min-posterior"):
        main([*argv[:-2], "--output", str(output)])
    assert main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "  temperature: 4.0\n" in text and "not calibrated" not in text
