"""Trainings to model folders: the epoch that the test takes, wherever the run lies now.

One run is trained by its recipe. The others have what a training leaves: the recipe's
file, resolved as SpeechBrain saves it, manifests, and checkpoints.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import train
import yaml
from huggingface_hub import ModelCard
from hyperpyyaml import resolve_references
from speechbrain.inference.classifiers import EncoderClassifier

from ms_sincresnet import GenreClassifier, MelResNet, MSSincResNet, SincNet
from ms_sincresnet.data.synthetic import make_synthetic_gtzan
from ms_sincresnet.errors import ModelFolderError, UserError, WeightsError
from ms_sincresnet.pretrained.model_folder import FILES, save_model_folder
from ms_sincresnet.training.checkpoints import WholeCheckpointer
from ms_sincresnet.training.export import export_run

RECIPES = Path(__file__).parents[1] / "recipes"
HPARAMS = sorted(RECIPES.glob("*/hparams/*.yaml"))
MODELS = {
    "sincnet": (SincNet, {"n_filters": 8, "kernel_size": 51, "frame_samples": 800}),
    "mel_resnet": (MelResNet, {"n_mels": 32, "hidden_size": None}),
    "ms_sincresnet": (MSSincResNet, {"n_filters": 8, "n_frames": 64}),
    "sincresnet": (MSSincResNet, {"kernel_sizes": [1001] * 3, "pooling": "avg"}),
    "quickstart": (MSSincResNet, {"n_filters": 8, "n_frames": 64}),
}
SUMMARY = {"song_accuracy": 0.75, "clip_accuracy": 0.5, "tracks": 8, "clips": 80}
GENRES = [f"genre {number}" for number in range(10)]


def make_run(run, hparams_file, **overrides):
    """Writes the file that SpeechBrain writes for a run, and a manifest; its model."""
    system, options = MODELS[hparams_file.stem]
    torch.manual_seed(0)
    text = hparams_file.read_text()
    n_genres = int(text.split("\nn_genres: ")[1].split()[0])
    overrides = {
        **{"data_folder": "/data", "output_folder": str(run), "clip_samples": 16000},
        **options,
        **overrides,
    }
    with hparams_file.open() as file:
        resolved = resolve_references(file, yaml.safe_dump(overrides)).read()
    (run / "manifests").mkdir(parents=True)
    (run / "hyperparams.yaml").write_text(
        f"# Generated\n# yamllint disable\n{resolved}"
    )
    rows = "".join(f"{g}.1,1.0,$data_root/1.wav,{g}\n" for g in GENRES[:n_genres][::-1])
    (run / "manifests" / "train.csv").write_text(f"ID,duration,wav,genre\n{rows}{rows}")
    return system(n_genres=n_genres, **options).eval()


def save_epoch(run, model, epoch, accuracy):
    """Saves an epoch's checkpoint as a training does; what it makes of a clip."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.001)
    meta = {"epoch": epoch, "song_accuracy": accuracy, "clip_accuracy": 0.5}
    WholeCheckpointer(run / "save", {"model": model}).save_checkpoint(
        meta=meta, name=f"{epoch}"
    )
    with torch.no_grad():
        return model(clip())


def clip():
    """A clip of noise."""
    return torch.randn(1, 16000, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of three epochs, the second the best, that was killed before its test."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    model = make_run(folder, RECIPES / "GTZAN/hparams/sincnet.yaml")
    for epoch, accuracy in [(1, 0.2), (2, 0.6), (3, 0.4)]:
        save_epoch(folder, model, epoch, accuracy)
    return folder


@pytest.fixture
def run(killed, tmp_path):
    """A copy of it to be changed, under another path; its checkpoints are links."""

    def copy(source, target):
        (os.link if source.endswith("model.ckpt") else shutil.copy2)(source, target)

    return shutil.copytree(killed, tmp_path / "run", copy_function=copy)


def epoch_of_card(model_folder):
    """The epoch of a card's figures; None if it has none."""
    text = (model_folder / "README.md").read_text()
    return int(text.split("(epoch ")[1].split(")")[0]) if "(epoch" in text else None


def everything(folder):
    """All that lies in a folder, with its content."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that the recipe has trained and tested, and a song of its data."""
    folder = tmp_path_factory.mktemp("trained")
    data = make_synthetic_gtzan(folder / "data", n_tracks=3, duration_s=1.0, seed=3)
    hparams = {
        **{"data_folder": data, "cache_folder": folder / "audio_16k"},
        **{"output_folder": folder / "run", "number_of_epochs": 2, "num_workers": 0},
        **{"clip_samples": 8000, "hop_samples": 4000, "valid_hop": 8000, "n_folds": 3},
        **{"valid_fraction": 0.5, "batch_size": 10, "clips_per_track": 1, "seed": 2},
        **MODELS["sincnet"][1],
    }
    words = [f"--{name}={value}" for name, value in hparams.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(RECIPES / "GTZAN")
        train.main(["hparams/sincnet.yaml", "--device=cpu", *words])
    return folder / "run", next((data / "genres").glob("*/*.wav"))


def test_a_training_is_exported_and_loaded_in_three_ways(trained, tmp_path):
    run, song = trained
    before = everything(run)
    assert export_run(run, tmp_path / "model") == tmp_path / "model"
    assert everything(run) == before
    # The training has written the same folder, its card with the same figures.
    for name in FILES:
        if not name.endswith(".ckpt"):  # which hold the time
            expected = (run / "model" / name).read_bytes()
            assert (tmp_path / "model" / name).read_bytes() == expected, name
    summary = json.loads((run / "test_summary.json").read_text())
    card = ModelCard.load(tmp_path / "model" / "README.md")
    figures = [result.metric_value for result in card.data.eval_results]
    names = ("song_accuracy", "clip_accuracy")
    assert figures == [round(summary[name], 4) for name in names]
    protocol = "GTZAN, stratified random folds (fold 0 of 3, counted from 0; seed 2); "
    assert card.data.eval_results[0].dataset_name == protocol + "10 test tracks"
    assert epoch_of_card(tmp_path / "model") == summary["epoch"]
    posteriors = [
        load(str(tmp_path / "model")).classify_file(str(song))[0]
        for load in (
            GenreClassifier.from_pretrained,
            GenreClassifier.from_hparams,
            EncoderClassifier.from_hparams,
        )
    ]
    assert posteriors[0].equal(posteriors[1])
    assert posteriors[0].equal(posteriors[2])


@pytest.mark.parametrize(
    "hparams_file", HPARAMS, ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_every_recipe_can_be_exported(hparams_file, tmp_path):
    model = make_run(tmp_path / "run", hparams_file)
    expected = save_epoch(tmp_path / "run", model, 1, 0.5)
    export_run(tmp_path / "run", tmp_path / "model")
    loaded = type(model).from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert loaded(clip()).equal(expected)
    assert loaded.settings["clip_samples"] == 16000
    assert loaded.settings["genres"] == GENRES[: loaded.config["n_genres"]]
    card = (tmp_path / "model" / "README.md").read_text()
    hparams = yaml.compose(hparams_file.read_text())
    dataset = {key.value: value.value for key, value in hparams.value}["dataset"]
    assert f"{dataset}, " in card
    assert "was not tested" in card


@pytest.mark.parametrize(("rule", "epoch"), [("best", 2), ("last", 3)])
def test_the_epoch_is_the_one_that_the_test_takes(tmp_path, rule, epoch):
    folder = tmp_path / "run"
    model = make_run(folder, RECIPES / "GTZAN/hparams/sincnet.yaml", checkpoint=rule)
    outputs = {}
    for number, accuracy in [(1, 0.2), (2, 0.6), (3, 0.4)]:
        outputs[number] = save_epoch(folder, model, number, accuracy)
    within_an_epoch = {"unixtime": 4e9}
    WholeCheckpointer(folder / "save", {"model": model}).save_checkpoint(
        within_an_epoch
    )
    export_run(folder, tmp_path / "model")
    with torch.no_grad():
        found = SincNet.from_pretrained(tmp_path / "model")(clip())
    assert [n for n in outputs if found.equal(outputs[n])] == [epoch]


def test_figures_are_of_that_epoch_or_none(run, tmp_path):
    export_run(run, tmp_path / "model")
    assert epoch_of_card(tmp_path / "model") is None
    for epoch, told in [(3, None), (2, 2)]:
        summary = {**SUMMARY, "dataset": "GTZAN", "epoch": epoch}
        (run / "test_summary.json").write_text(json.dumps(summary))
        export_run(run, tmp_path / "model")
        assert epoch_of_card(tmp_path / "model") == told


def test_a_run_may_be_moved_and_exported_into_itself(run, tmp_path, monkeypatch):
    shutil.move(run, tmp_path / "archive")
    monkeypatch.chdir(tmp_path)
    export_run("archive", "archive/model")
    assert sorted(os.listdir("archive/model")) == sorted(FILES)
    assert sorted(os.listdir()) == ["archive"]


def test_a_relative_output_folder_is_that_of_the_run(tmp_path, monkeypatch):
    """It was relative to where train.py was started."""
    monkeypatch.chdir(tmp_path)
    hparams_file = RECIPES / "GTZAN/hparams/sincnet.yaml"
    model = make_run(tmp_path / "run", hparams_file, output_folder="results/1")
    save_epoch(tmp_path / "run", model, 1, 0.5)
    export_run(tmp_path / "run", tmp_path / "model")
    assert sorted(os.listdir()) == ["model", "run"]


def test_checkpoints_may_lie_elsewhere(tmp_path):
    hparams_file = RECIPES / "GTZAN/hparams/sincnet.yaml"
    elsewhere = {"save_folder": str(tmp_path / "disk" / "save")}
    model = make_run(tmp_path / "run", hparams_file, **elsewhere)
    save_epoch(tmp_path / "disk", model, 1, 0.5)
    export_run(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "run" / "save").exists()


def test_nothing_of_the_file_is_run_but_the_network(run, tmp_path):
    """No seed is set, no log opened, no trunk downloaded, no code called."""
    made = tmp_path / "made"
    with (run / "hyperparams.yaml").open("a") as file:
        file.write(f"x: !apply:os.mkdir ['{made}']\n")
    before, seed = everything(run), torch.initial_seed()
    export_run(run, tmp_path / "model")
    assert not made.exists()
    assert everything(run) == before
    assert torch.initial_seed() == seed != 1234


def test_no_pretrained_trunk_is_fetched(tmp_path, monkeypatch):
    hparams_file = RECIPES / "GTZAN/hparams/mel_resnet.yaml"
    model = make_run(tmp_path / "run", hparams_file, resnet_weights="imagenet")
    save_epoch(tmp_path / "run", model, 1, 0.5)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", pytest.fail)
    export_run(tmp_path / "run", tmp_path / "model")


def refused(run, folder):
    """What is told of a run that cannot be exported; nothing is written."""
    with pytest.raises(UserError) as error:
        export_run(run, folder)
    assert not folder.exists()
    return str(error.value)


def test_what_is_no_run_is_refused(tmp_path, tone_model, genres):
    folder = tmp_path / "model"
    (tmp_path / "empty").mkdir()
    for run in (tmp_path / "nowhere", tmp_path / "empty", str(tmp_path / "empty")):
        told = refused(run, folder)
        assert told.startswith(f"{run}: no folder of a training there")
    save_model_folder(tmp_path / "other", tone_model, genres)
    assert "not of a training, it lacks dataset, " in refused(
        tmp_path / "other", folder
    )


def test_a_run_without_an_epoch_is_refused(run, tmp_path):
    model = SincNet(10, **MODELS["sincnet"][1])
    shutil.rmtree(run / "save")
    told = f"{run / 'save'}: no checkpoint of a finished epoch"
    assert told in refused(run, tmp_path / "model")
    assert not (run / "save").exists()
    WholeCheckpointer(run / "save", {"model": model}).save_checkpoint()
    assert told in refused(run, tmp_path / "model")


def test_a_network_that_is_not_ours_is_refused(run, tmp_path):
    path = run / "hyperparams.yaml"
    text = path.read_text()
    for old, new, told in [
        ("!new:ms_sincresnet.SincNet", "!new:my.Network", "its model is my.Network"),
        ("!new:ms_sincresnet.SincNet", "!new:ms_sincresnet.vote", "ms_sincresnet.vote"),
        ("!new:ms_sincresnet.SincNet", "!name:ms_sincresnet.SincNet", "model is None"),
        ("  frame_samples: 800", "  frame_samplez: 800", "frame_samplez"),
        ("  frame_samples: 800", "  frame_samples: 80", "too short"),
    ]:
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        message = refused(run, tmp_path / "model")
        assert message.startswith(f"{path}: ")
        assert told in message


def test_weights_that_do_not_fit_are_refused(run, tmp_path):
    path = run / "hyperparams.yaml"
    path.write_text(path.read_text().replace("  n_filters: 8", "  n_filters: 9"))
    told = refused(run, tmp_path / "model")
    assert "model.ckpt" in told
    assert "size mismatch" in told


def test_a_poisoned_checkpoint_runs_nothing(run, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    for path in run.glob("save/CKPT*/model.ckpt"):
        path.unlink()
        torch.save({"x": Malicious()}, path)
    with pytest.raises(WeightsError, match="not a file of weights"):
        export_run(run, tmp_path / "model")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("", "cannot be read"),
        ("ID,wav\n1,a\n", "cannot be read"),
        ("ID,genre\n1,jazz\n2,rock\n", "names 2 genres (jazz, rock), and the network"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(run, tmp_path, content, told):
    path = run / "manifests" / "train.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    message = refused(run, tmp_path / "model")
    assert message.startswith(f"{path}: ")
    assert told in message


def test_a_folder_in_the_way_is_kept(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear to me")
    with pytest.raises(ModelFolderError, match="something else than a model folder"):
        export_run(run, tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]
