"""Model cards: what the Hub reads in them, and no claim beyond what is known."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from ms_sincresnet import MSSincResNet
from ms_sincresnet.pretrained.card import (
    Training,
    network_card,
    read_figures,
    song_card,
    training_of,
)

ARGUMENTS = {"n_genres": 2, "sample_rate": 16000}
SETTINGS = {
    "genres": ["jazz", "rock"],
    "clip_samples": 48000,
    "hop_samples": 8000,
    "voting": "mean",
}
FIGURES = {
    "dataset": "GTZAN",
    "song_accuracy": 0.85,
    "clip_accuracy": 0.71239,
    "tracks": 100,
    "clips": 5500,
    "epoch": 7,
}
HPARAMS = {"seed": 3, "dataset": "GTZAN"}
RANDOM = {"protocol": "random", "fold": 2, "n_folds": 10}


def card(training=None):
    """A card as the Hub gets it: header and text."""
    text = str(song_card("MSSincResNet", ARGUMENTS, SETTINGS, training))
    empty, header, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(header), body


@pytest.mark.parametrize("training", [None, Training("GTZAN", "one", FIGURES)])
def test_the_text_begins_with_the_installation(training):
    _, body = card(training)
    assert body.strip().splitlines()[:3] == [
        "```sh",
        "pip install ms_sincresnet",
        "```",
    ]
    for loader in (
        'GenreClassifier.from_pretrained("user/repository")',
        'GenreClassifier.from_hparams("user/repository")',
        'EncoderClassifier.from_hparams("user/repository")',
    ):
        assert body.count(loader) == 1
    assert "jazz, rock" in body
    assert "3 s every 0.5 s" in body
    assert "10.1145/3460426.3463619" in body


def test_the_header_says_what_the_hub_sorts_by_and_a_space_needs():
    header, _ = card()
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "speechbrain"
    assert header["pipeline_tag"] == "audio-classification"
    assert header["metrics"] == ["accuracy"]
    tags = {"music", "music-genre-classification", "sincnet", "speechbrain"}
    assert tags <= set(header["tags"])
    assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
    assert header["title"] == "Music genres by MSSincResNet"


def test_figures_stand_with_their_protocol_and_metric():
    training = Training("GTZAN", "stratified random folds (fold 2)", FIGURES)
    header, body = card(training)
    assert header["datasets"] == ["marsyas/gtzan"]
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert result["dataset"] == {
        "name": "GTZAN, stratified random folds (fold 2); 100 test tracks",
        "type": "marsyas/gtzan",
        "split": "test",
    }
    assert result["metrics"] == [
        {
            "type": "accuracy",
            "value": 0.85,
            "name": "song accuracy (mean of the clips)",
        },
        {"type": "accuracy", "value": 0.7124, "name": "clip accuracy"},
    ]
    assert "**85.0%** of 100 tracks" in body
    assert "clip accuracy 71.2% of their 5500 clips (epoch 7)" in body
    assert "tracks of one artist" in body


def test_nothing_is_claimed_that_is_not_known():
    header, body = card()
    assert not header.keys() & {"datasets", "model-index"}
    assert "No accuracy can be claimed" in body
    header, body = card(Training("GTZAN", "one split", None))
    assert header["datasets"] == ["marsyas/gtzan"]
    assert "model-index" not in header
    assert "GTZAN, one split." in body
    assert "was not tested" in body
    for text in (body, card()[1]):
        assert "%" not in text


@pytest.mark.parametrize("name", ["ISMIR2004", "synthetic music", "my own"])
def test_no_data_set_of_the_hub_is_made_up(name):
    header, body = card(Training(name, "one split", FIGURES))
    assert "datasets" not in header
    assert header["model-index"][0]["results"][0]["dataset"]["type"] == name
    assert "repeated and mislabelled" not in body
    assert ("music is synthesised" in body) == (name == "synthetic music")


def test_the_filtered_split_has_no_artist_on_both_sides():
    hparams = {**HPARAMS, "protocol": "filtered", "fold": 0, "n_folds": 10}
    training = training_of("nowhere", hparams, 7)
    assert training.protocol.startswith("fault- and artist-filtered split of Kereliuk")
    assert "fold" not in training.protocol
    assert "one artist" not in card(training)[1]


@pytest.mark.parametrize(
    ("hparams", "expected"),
    [
        (RANDOM, "stratified random folds (fold 2 of 10, counted from 0; seed 3)"),
        ({"test_part": "evaluation"}, "training part to evaluation part (seed 3)"),
        ({}, "seed 3"),
    ],
)
def test_the_protocol_is_that_of_the_run(hparams, expected):
    assert training_of("nowhere", {**HPARAMS, **hparams}, 7) == (
        "GTZAN",
        expected,
        None,
    )


def test_figures_are_those_of_the_epoch(tmp_path):
    path = tmp_path / "test_summary.json"
    hparams = {**HPARAMS, **RANDOM}
    path.write_text(json.dumps(FIGURES))
    assert training_of(tmp_path, hparams, 7).figures == FIGURES
    assert training_of(tmp_path, hparams, 8).figures is None
    path.write_text(json.dumps(FIGURES)[:40])  # killed while it wrote
    assert training_of(tmp_path, hparams, 7).figures is None


def test_the_figures_of_a_card_are_read_back(tmp_path):
    training = Training("GTZAN", "one split", FIGURES)
    song_card("SincNet", ARGUMENTS, SETTINGS, training).save(tmp_path / "README.md")
    dataset = "GTZAN, one split; 100 test tracks"
    assert read_figures(tmp_path / "README.md") == [
        {
            "dataset": dataset,
            "metric": "song accuracy (mean of the clips)",
            "value": 0.85,
        },
        {"dataset": dataset, "metric": "clip accuracy", "value": 0.7124},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no header",
        "---\nlicense: mit\n---\n",
        "---\nmodel-index: 1\n---\n",
        "---\nmodel-index: [{results: [{metrics: 5}]}]\n---\n",
        "---\nmodel-index: [{results: [{dataset: 1, metrics: [{}]}]}]\n---\n",
        '---\nmodel-index: [{results: [{dataset: {name: "\\e[31m"}, metrics: '
        "[{type: a, value: 1}]}]}]\n---\n",
        "---\nmodel-index: [{results: [{dataset: {name: a}, metrics: "
        "[{type: a, value: [1]}]}]}]\n---\n",
        "---\n- a\n---\n",
        "---\na: [\n---\n",
        "---\nx: !!python/object/apply:os.mkdir ['made']\n---\n",
        "---\nx: " + "[" * 5000 + "\n---\n",
        b"\xff\xfe",
    ],
)
def test_a_card_of_others_that_has_none_is_no_error(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "README.md").write_bytes(text)
    assert read_figures(tmp_path / "README.md") == []
    assert not (tmp_path / "made").exists()


def test_a_network_alone_claims_neither_speechbrain_nor_figures():
    found = network_card(MSSincResNet(7, n_filters=8, sample_rate=8000))
    assert isinstance(found, ModelCard)
    assert found.data.library_name == "ms_sincresnet"
    assert found.data.eval_results is None
    for part in ("pip install ms_sincresnet", "8000 Hz", "7 classes", "No accuracy"):
        assert part in found.text
