"""The 17 rows of Table 1: each builds, learns, is saved and loads back.

All are of their full size and so are the clips; two make a batch.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import cross_validate
import pandas as pd
import pytest
import speechbrain as sb
import torch

from ms_sincresnet import GenreBrain, GenreClassifier
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.hparams import plain_hparams

ROWS = cross_validate.read_rows()
GENRES = [f"genre {n}" for n in range(10)]
CLIP_SAMPLES = 48000

each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])


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
    assert len(set(settings)) == 17, "no two rows are one system"


@each_row
def test_a_row_overrides_what_its_file_has(row):
    hparams = plain_hparams(cross_validate.HERE / row["hparams_file"])
    assert row["overrides"].keys() <= hparams.keys()


@pytest.fixture
def folder():
    """A folder that does not stay: the models have up to 90 MB each."""
    with TemporaryDirectory() as name:
        yield Path(name)


@each_row
def test_each_row_learns_and_loads_back(row, folder):
    torch.manual_seed(0)
    words = [f"--output_folder={folder}", "--warmup_epochs=0"]
    hparams = cross_validate.load_row(row, words)
    model = hparams["model"]
    for name, value in row["overrides"].items():
        assert model.config[name] == value

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    brain = GenreBrain(
        hparams["modules"], hparams["opt_class"], hparams, {"device": "cpu"}
    )
    brain.init_optimizers()
    brain.on_stage_start(sb.Stage.TRAIN, epoch=1)
    clips = torch.randn(2, CLIP_SAMPLES)
    batch = SimpleNamespace(
        id=["a", "b"],
        clip=SimpleNamespace(data=clips),
        genre_encoded=SimpleNamespace(data=torch.tensor([[3], [7]])),
    )
    brain.modules.train()
    assert torch.isfinite(brain.fit_batch(batch))
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []

    save_model_folder(folder / "model", model, GENRES)
    loaded = GenreClassifier.from_hparams(folder / "model")
    with torch.no_grad():
        (expected,) = model.eval()(clips[:1])
        log_posteriors = loaded.hparams.model(clips[:1])[0]
    assert torch.equal(log_posteriors, expected)
