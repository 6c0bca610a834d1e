"""The sum rule, and models that do not fit together."""

import math
from types import SimpleNamespace

import pytest
import torch

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.fusion import fuse, sum_rule

HPARAMS = {"sample_rate": 16000, "clip_samples": 4, "hop_samples": 2}


def stub(genres=("jazz", "rock"), **changes):
    """A ``GenreClassifier``, as far as ``fuse`` compares it."""
    encoder = SimpleNamespace(ind2lab=dict(enumerate(genres)))
    hparams = SimpleNamespace(**HPARAMS | changes, label_encoder=encoder)
    return SimpleNamespace(hparams=hparams)


def test_the_sum_rule_is_the_mean_of_the_posteriors():
    models = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2]])
    found = sum_rule(models.log()).exp()
    expected = torch.tensor([1.2 / 3, 0.9 / 3, 0.9 / 3])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    found = sum_rule(torch.tensor([[-200.0, 0.0], [-300.0, 0.0]]))  # e^-200 is 0
    assert found.tolist() == pytest.approx([-200 - math.log(2), 0.0])


def test_models_that_differ_are_named():
    with pytest.raises(ModelFolderError, match="expected at least one model to fuse"):
        fuse([], stub)
    for name, value, found in [
        ("sample_rate", 8000, "8000 here and 16000"),
        ("clip_samples", 8, "8 here and 4"),
        ("hop_samples", 4, "4 here and 2"),
        ("genres", "ab", "a, b here and jazz, rock"),
    ]:
        models = {"runs/a": stub(), "runs/b": stub(), "runs/c": stub(**{name: value})}
        message = "runs/c: cannot be fused with runs/a: models must agree in"
        with pytest.raises(ModelFolderError, match=f"{message} {name}; found {found}"):
            fuse([*models], models.get)
