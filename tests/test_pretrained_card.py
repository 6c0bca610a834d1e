"""Model cards: the header that the Hub reads, and no claim beyond the known."""

import pytest
import yaml

from ms_sincresnet.pretrained.card import Training, song_card, training_of

ARGUMENTS = {"n_genres": 2, "sample_rate": 16000}
SETTINGS = {"genres": ["jazz", "rock"], "clip_samples": 48000, "hop_samples": 8000}
SETTINGS["voting"] = "mean"
FIGURES = {"dataset": "GTZAN", "song_accuracy": 0.85, "clip_accuracy": 0.71239}
FIGURES |= {"tracks": 100, "clips": 5500, "epoch": 7}
RANDOM = {"protocol": "random", "fold": 2, "n_folds": 10}
FILTERED = "fault- and artist-filtered split of Kereliuk, Sturm and Larsen (seed 3)"


def card(training=None, **fitted):
    """A card as the Hub gets it: header and text."""
    about = {"training": training._asdict()} if training else {}
    text = str(song_card("MSSincResNet", ARGUMENTS, SETTINGS | about | fitted))
    empty, header, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(header), body


def test_the_card_says_how_to_install_and_load_and_what_the_hub_sorts_by():
    header, body = card()
    assert "run `pip install .` in a clone" in body.strip().splitlines()[0]
    ours, stock = "GenreClassifier.from_pretrained", "EncoderClassifier.from_hparams"
    assert all(body.count(f'{load}("user/repository")') == 1 for load in (ours, stock))
    assert "jazz, rock" in body
    assert "of 3 s,\none every 0.5 s, vote (mean)" in body
    assert "10.1145/3460426.3463619" in body
    assert {"music", "sincnet", "speechbrain"} <= set(header.pop("tags"))
    assert header == {
        "license": "apache-2.0",
        "library_name": "speechbrain",
        "pipeline_tag": "audio-classification",
        "metrics": ["accuracy"],
        "sdk": "gradio",
        "app_file": "app.py",
        "title": "Music genres by MSSincResNet",
    }


def test_figures_come_with_their_protocol_and_metric():
    training = Training("GTZAN", "stratified random folds (fold 2)", FIGURES)
    header, body = card(training)
    assert "Posteriors are not calibrated." in body
    calibrated = card(training, temperature=0.59204)[1]
    assert "calibrated\nby a temperature of 0.592." in calibrated
    assert header["datasets"] == ["marsyas/gtzan"]
    (model,) = header["model-index"]
    (result,) = model["results"]
    name = "GTZAN, stratified random folds (fold 2); 100 test tracks"
    expected = {"name": name, "type": "marsyas/gtzan", "split": "test"}
    assert result["dataset"] == expected
    figures = {metric["name"]: metric["value"] for metric in result["metrics"]}
    expected = {"song accuracy (mean of the clips)": 0.85, "clip accuracy": 0.7124}
    assert figures == expected
    assert "**85.0 %** on 100 tracks" in body
    assert "clip accuracy 71.2 % on their 5500 clips (epoch 7)" in body


def test_nothing_is_claimed_that_is_not_known():
    header, body = card()
    assert not header.keys() & {"datasets", "model-index"}
    assert "no accuracy can be claimed" in body and "%" not in body
    header, body = card(Training("GTZAN", "one split", None))
    assert "model-index" not in header
    assert "were not tested" in body and "%" not in body


@pytest.mark.parametrize("name", ["synthetic music", "my own"])
def test_no_data_set_of_the_hub_is_made_up(name):
    header, body = card(Training(name, "one split", FIGURES))
    assert "datasets" not in header
    assert header["model-index"][0]["results"][0]["dataset"]["type"] == name
    assert "repeated and mislabelled" not in body
    assert ("music is synthesised" in body) == (name == "synthetic music")


@pytest.mark.parametrize(
    ("hparams", "expected"),
    [
        (RANDOM, "stratified random folds (fold 2 of 10, counted from 0; seed 3)"),
        (RANDOM | {"protocol": "filtered"}, FILTERED),
        ({"test_part": "evaluation"}, "training part to evaluation part (seed 3)"),
        ({"split_seed": 4}, "split seed 4, seed 3"),
    ],
)
def test_the_protocol_is_that_of_the_run(hparams, expected):
    found = training_of("nowhere", {"seed": 3, "dataset": "GTZAN"} | hparams, 7)
    assert found == ("GTZAN", expected, None)
    assert ("tracks of one artist" in card(found)[1]) == ("random" in expected)
