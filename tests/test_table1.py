"""The 17 rows of Table 1: all build; a row of each model learns and loads back."""

import cross_validate
import pandas as pd
import pytest
import yaml

from ms_sincresnet import models
from ms_sincresnet.models.weights import build_on_meta
from ms_sincresnet.training.hparams import plain_hparams

ROWS = cross_validate.read_rows()


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
