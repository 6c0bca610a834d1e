"""Trainings to model folders, from what a training leaves: the resolved file of the
recipe, manifests, and checkpoints. test_recipes.py exports a run that was trained.
"""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hyperpyyaml import resolve_references

from ms_sincresnet import MelResNet, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.files import write_json
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.checkpoints import WholeCheckpointer
from ms_sincresnet.training.export import export_run
from ms_sincresnet.training.hparams import open_hparams, read_plainly

RECIPES = Path(__file__).parents[1] / "recipes"
SINCNET = RECIPES / "GTZAN/hparams/sincnet.yaml"
OTHER_DATA = RECIPES / "ISMIR2004/hparams/sincnet.yaml"
HPARAMS = [*sorted(SINCNET.parent.glob("*.yaml")), OTHER_DATA]
SMALL = {"n_filters": 8, "n_frames": 64}
SINC = {"kernel_sizes": [1001] * 3, "pooling": "avg", "n_filters": 8}
MODELS = {
    "sincnet": (SincNet, {"n_filters": 8, "kernel_size": 51, "frame_samples": 800}),
    "mel_resnet": (MelResNet, {"n_mels": 32, "hidden_size": None}),
    "ms_sincresnet": (MSSincResNet, SMALL),
    "sincresnet": (MSSincResNet, SINC),
    "quickstart": (MSSincResNet, SMALL),
    "ms_sincresnet_plus": (MSSincResNet, SMALL | {"parametrization": "relative"}),
}
GENRES = [f"genre {number}" for number in range(10)]
CLIP = torch.randn(1, 16000, generator=torch.Generator().manual_seed(5))


def make_run(run, hparams_file, **overrides):
    """Writes the file that SpeechBrain writes for a run, and a manifest; its model."""
    model_class, options = MODELS[hparams_file.stem]
    torch.manual_seed(0)
    given = {"data_folder": "/data", "output_folder": str(run), "clip_samples": 16000}
    if hparams_file.stem == "ms_sincresnet_plus":
        given["teacher_targets"] = None
    given = yaml.safe_dump(given | options | overrides)
    with open_hparams(hparams_file, given) as (file, nested):
        resolved = resolve_references(file, nested).read()
    (run / "manifests").mkdir(parents=True)
    (run / "hyperparams.yaml").write_text(f"# Generated\n{resolved}")
    n_genres = read_plainly(resolved)["n_genres"]
    rows = "".join(f"{g}.1,1.0,$data_root/1.wav,{g}\n" for g in GENRES[:n_genres][::-1])
    (run / "manifests" / "train.csv").write_text(f"ID,duration,wav,genre\n{rows}{rows}")
    return model_class(n_genres=n_genres, **options).eval()


@torch.no_grad()
def save_epoch(run, model, epoch, accuracy):
    """Saves an epoch's checkpoint as a training does; returns the model's output."""
    for parameter in model.parameters():
        parameter.add_(0.001)
    meta = {"epoch": epoch, "song_accuracy": accuracy, "clip_accuracy": 0.5}
    checkpointer = WholeCheckpointer(run / "save", {"model": model})
    checkpointer.save_checkpoint(meta=meta, name=f"{epoch}")
    return model(CLIP)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of three epochs, the second the best, that was killed before its test."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    model = make_run(folder, SINCNET)
    accuracies = {1: 0.2, 2: 0.6, 3: 0.4}
    outputs = [save_epoch(folder, model, *each) for each in accuracies.items()]
    # A checkpoint from within an epoch.
    WholeCheckpointer(folder / "save", {"model": model}).save_checkpoint()
    return folder, outputs


@pytest.fixture
def run(killed, tmp_path):
    """A copy of it to be changed, under another path; its checkpoints are links."""

    def copy(source, target):
        (os.link if source.endswith("model.ckpt") else shutil.copy2)(source, target)

    return shutil.copytree(killed[0], tmp_path / "run", copy_function=copy)


def edit(run, old, new, after=""):
    """Replaces a text of the saved hparams, which is there once after another."""
    path = run / "hyperparams.yaml"
    head, after, text = path.read_text().partition(after or "#")
    text = after + text
    assert text.count(old) == 1
    path.write_text(head + text.replace(old, new))


@pytest.mark.parametrize(
    "hparams_file", HPARAMS, ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_every_recipe_can_be_exported(hparams_file, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", pytest.fail)
    model = make_run(tmp_path / "run", hparams_file)
    expected = save_epoch(tmp_path / "run", model, 1, 0.5)
    export_run(tmp_path / "run", tmp_path / "model")
    loaded = type(model).from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert loaded(CLIP).equal(expected)
    assert loaded.settings["clip_samples"] == 16000
    assert loaded.settings["genres"] == GENRES[: loaded.config["n_genres"]]
    card = (tmp_path / "model" / "README.md").read_text()
    hparams = read_plainly((tmp_path / "run" / "hyperparams.yaml").read_text())
    assert f"{hparams['dataset']}, " in card and "were not tested" in card


@pytest.mark.parametrize(("rule", "epoch"), [("best", 2), ("last", 3)])
def test_epoch_and_figures_are_those_of_the_test(killed, run, tmp_path, rule, epoch):
    edit(run, "checkpoint: best", f"checkpoint: {rule}")
    figures = {"song_accuracy": 0.75, "clip_accuracy": 0.5, "tracks": 8, "clips": 80}
    for tested in (None, 1, epoch):
        if tested:
            summary = {**figures, "dataset": "GTZAN", "epoch": tested}
            write_json(summary, run / "test_summary.json")
        export_run(run, tmp_path / "model")
        card = (tmp_path / "model" / "README.md").read_text()
        assert (f"(epoch {epoch})" in card) == (tested == epoch)
        assert ("(epoch" in card) == (tested == epoch)
    with torch.no_grad():
        found = SincNet.from_pretrained(tmp_path / "model")(CLIP)
    assert [found.equal(output) for output in killed[1]].index(True) == epoch - 1


def test_folders_may_be_moved_relative_or_elsewhere(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.move(run, "archive")
    export_run("archive", "archive/model")  # into itself
    assert Path("archive/model/model.safetensors").is_file()
    assert os.listdir() == ["archive"]
    shutil.rmtree("archive")
    # The output folder was relative to the place where train.py was started.
    model = make_run(tmp_path / "1", SINCNET, output_folder="results/1")
    save_epoch(tmp_path / "1", model, 1, 0.5)
    export_run(tmp_path / "1", tmp_path / "model")
    assert sorted(os.listdir()) == ["1", "model"]
    make_run(tmp_path / "2", SINCNET, save_folder=str(tmp_path / "1" / "save"))
    export_run(tmp_path / "2", tmp_path / "model")
    assert not (tmp_path / "2" / "save").exists()


def test_nothing_of_the_file_is_run_but_the_model(run, tmp_path):
    made = tmp_path / "made"
    with (run / "hyperparams.yaml").open("a") as file:
        file.write(f"x: !apply:os.mkdir ['{made}']\n")
    seed = torch.initial_seed()
    export_run(run, tmp_path / "model")
    assert not made.exists()
    assert torch.initial_seed() == seed != 1234


def refused(run, folder, error=UserError):
    """The error of a run that cannot be exported; nothing is written."""
    with pytest.raises(error) as raised:
        export_run(run, folder)
    assert not folder.exists()
    return str(raised.value)


def test_what_is_no_run_is_refused(tmp_path, tone_model, genres):
    folder = tmp_path / "model"
    for run in (tmp_path / "nowhere", str(tmp_path)):
        assert refused(run, folder).startswith(f"{run}: not the output_folder")
    save_model_folder(tmp_path / "other", tone_model, genres)
    assert "not of a training (checkpoint, " in refused(tmp_path / "other", folder)


POISON = b"a: !!python/object/apply:os.mkdir ['made']"


@pytest.mark.parametrize("content", [POISON, b"\xff\xfe\0", b"a: " + b"[" * 1000])
def test_hparams_that_cannot_be_read_are_named(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hyperparams.yaml"
    path.write_bytes(content)
    message = refused(tmp_path, tmp_path / "model", ModelFolderError)
    assert message.startswith(f"{path}: not valid yaml")
    assert not (tmp_path / "made").exists()


def test_a_run_without_an_epoch_is_refused(run, tmp_path):
    for path in run.glob("save/CKPT+[123]"):
        shutil.rmtree(path)
    expected = f"{run / 'save'}: no checkpoint of a finished epoch"
    assert expected in refused(run, tmp_path / "model")
    shutil.rmtree(run / "save")
    assert expected in refused(run, tmp_path / "model")
    assert not (run / "save").exists()


MODEL = "!new:ms_sincresnet.SincNet"
MANIFEST = "ID,genre\n1,jazz\n2,rock\n"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ((MODEL, "!new:my.Network"), "its model is my.Network"),
        ((" frame_samples: 800", " frame_samplez: 800"), "frame_samplez"),
        ((" n_filters: 8", " n_filters: 9"), "size mismatch"),
        ("ID,wav\n1,a\n", "cannot be read"),
        (MANIFEST, "2 genres (jazz, rock), but the model has 10"),
    ],
)
def test_what_does_not_fit_is_refused(run, tmp_path, change, part):
    path = run / "hyperparams.yaml"
    if isinstance(change, str):
        path = run / "manifests" / "train.csv"
        path.write_text(change)
    else:
        edit(run, *change, after=MODEL)
    message = refused(run, tmp_path / "model")
    assert f"{path}: " in message and part in message
