"""The rows of Table 1: all build."""

import cross_validate
import pytest
import yaml

from ms_sincresnet import models
from ms_sincresnet.models.weights import build_on_meta
from ms_sincresnet.training.hparams import plain_hparams

ROWS = cross_validate.read_rows()


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
