"""The 17 rows of Table 1: all build; a row of each model learns and loads back."""

from types import SimpleNamespace

import cross_validate
import pandas as pd
import pytest
import speechbrain as sb
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml

from ms_sincresnet import GenreBrain, GenreClassifier, models
from ms_sincresnet.models.weights import build_on_meta
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.hparams import flatten, open_hparams, plain_hparams

ROWS = cross_validate.read_rows()
GENRES = [f"genre {n}" for n in range(10)]
LARGEST = {row["hparams_file"]: row for row in ROWS}.values()  # the last of each file


def test_the_rows_are_those_of_the_paper():
    assert len({row["id"] for row in ROWS}) == len(ROWS) == 17
    counts = pd.Series([row["hparams_file"] for row in ROWS]).value_counts()
    assert counts.to_dict() == {
        "hparams/sincnet.yaml": 6,
        "hparams/mel_resnet.yaml": 1,
        "hparams/sincresnet.yaml": 6,
        "hparams/ms_sincresnet.yaml": 4,
    }
    settings = [(row["hparams_file"], str(row["overrides"])) for row in ROWS]
    assert len(set(settings)) == 17, "no two rows are one model"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_each_row_builds_what_it_overrides(row):
    path = cross_validate.HERE / row["hparams_file"]
    overrides = yaml.safe_dump({"data_folder": "none", **row["overrides"]})
    name, arguments = plain_hparams(path, overrides)["model"]
    model_class = models.MODELS[name.rpartition(".")[2]]
    arguments.pop("weights", None)
    model = build_on_meta(model_class, arguments)
    for name, value in row["overrides"].items():
        assert model.config[name] == value


@pytest.mark.parametrize("row", LARGEST, ids=lambda row: row["id"])
def test_a_row_of_each_model_learns_and_loads_back(row, tmp_path):
    """At its full size, on two clips of half a second."""
    torch.manual_seed(0)
    words = ["--data_folder=none", f"--output_folder={tmp_path}", "--warmup_epochs=0"]
    words = cross_validate.row_words(row, [*words, "--resnet_weights=null"])
    path = cross_validate.HERE / row["hparams_file"]
    with open_hparams(path, cross_validate.overrides_of(words)) as (file, nested):
        hparams = flatten(load_hyperpyyaml(file, nested))
    model = hparams["model"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    brain = GenreBrain(
        hparams["modules"], hparams["opt_class"], hparams, {"device": "cpu"}
    )
    brain.init_optimizers()
    brain.on_stage_start(sb.Stage.TRAIN, epoch=1)
    clips = torch.randn(2, 8000)
    batch = SimpleNamespace(
        id=["a", "b"],
        clip=SimpleNamespace(data=clips),
        genre_encoded=SimpleNamespace(data=torch.tensor([[3], [7]])),
    )
    brain.modules.train()
    assert torch.isfinite(brain.fit_batch(batch))
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []

    save_model_folder(tmp_path / "model", model, GENRES)
    loaded = GenreClassifier.from_hparams(tmp_path / "model")
    with torch.no_grad():
        expected = model.eval()(clips[:1])
        assert torch.equal(loaded.hparams.model(clips[:1]), expected)
