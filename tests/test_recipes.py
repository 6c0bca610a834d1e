"""The recipes as their users run them, on small synthetic copies of the data sets."""

import importlib.util
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import speechbrain as sb
import torch
import train
import yaml
from huggingface_hub import ModelCard
from speechbrain.inference.classifiers import EncoderClassifier

from ms_sincresnet import GenreBrain, GenreClassifier, MSSincResNet
from ms_sincresnet.data.synthetic import make_synthetic_gtzan, render_track
from ms_sincresnet.errors import UserError
from ms_sincresnet.files import load_weights, read_json
from ms_sincresnet.training.export import export_run
from ms_sincresnet.training.folds import write_summary

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "GTZAN"

# Clips of a quarter of a second of four genres, small models: the same code path.
SMALL = {
    "n_genres": 4,
    "clip_samples": 4000,
    "hop_samples": 4000,
    "valid_hop": 8000,
    "clips_per_track": 2,
    "batch_size": 4,
    "n_folds": 4,
    "valid_fraction": 0.34,
    "warmup_epochs": 1,
    "lr_step": 1,
    "num_workers": 0,
    "number_of_epochs": 2,
}
SMALL_MODELS = {
    "ms_sincresnet": {
        **{"n_filters": 8, "n_frames": 64, "resnet_weights": "null"},
        **{"parametrization": "relative", "cutoff_lr_factor": 100},
    },
    "sincresnet": {"n_filters": 8, "n_frames": 64, "resnet_weights": "null"},
    "mel_resnet": {"n_mels": 32, "resnet_weights": "null"},
    "sincnet": {"n_filters": 8, "kernel_size": 51, "frame_samples": 800},
}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "it's müsic" / "GTZAN"
    folder.parent.mkdir()
    make_synthetic_gtzan(folder, n_tracks=4, duration_s=2.0, seed=3)
    for genre in sorted((folder / "genres").iterdir())[4:]:
        shutil.rmtree(genre)
    return folder


def command(data_folder, output_folder, *options, system="ms_sincresnet", **hparams):
    """The words of a command line: yaml file, overrides, run options."""
    hparams = {
        **SMALL,
        **SMALL_MODELS[system.removesuffix("_plus")],
        "data_folder": data_folder,
        "output_folder": output_folder,
        "cache_folder": Path(data_folder).parent / "audio_16k",
        **hparams,
    }
    return [
        f"hparams/{system}.yaml",
        "--device=cpu",
        *(f"--{name}={value}" for name, value in hparams.items()),
        *options,
    ]


def run(words, script=train):
    with pytest.MonkeyPatch.context() as patch:
        name = "speechbrain.utils.logger.get_environment_description"
        patch.setattr(name, lambda: "not asked in tests")  # by `pip freeze`
        patch.chdir(Path(script.__file__).parent)
        script.main(words)


def run_and_die(words):
    """Runs train.py up to a step of its second epoch, and kills the process."""

    def fit_batch(brain, *args):
        if brain.optimizer_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return sb.Brain.fit_batch(brain, *args)

    torch.set_num_threads(1)
    GenreBrain.fit_batch = fit_batch
    run([*words, "--ckpt_interval_steps=2"])


def figures(output_folder):
    """Log, summary and predictions of a run, without times."""
    names = ("train_log.txt", "test_summary.json", "test_predictions.csv")
    return tuple((Path(output_folder) / name).read_text() for name in names)


@pytest.fixture(scope="module")
def unbroken(data_folder, tmp_path_factory):
    """A run of two epochs that nothing interrupts."""
    output_folder = tmp_path_factory.mktemp("runs") / "unbroken"
    run(command(data_folder, output_folder))
    return output_folder


def test_run_leaves_what_speechbrain_users_expect(unbroken):
    expected = "env.log hyperparams.yaml log.txt manifests model save train.py"
    assert {path.name for path in unbroken.iterdir()} >= {*expected.split()}
    assert (unbroken / "confusion_matrix.png").is_file()
    log = (unbroken / "train_log.txt").read_text().splitlines()
    assert len(log) == 3, "a line per epoch and one of the test"
    for figure in ("loss", "clip_accuracy", "song_accuracy"):
        assert f"train {figure}" in log[0] and f"valid {figure}" in log[0]
        assert f"test {figure}" in log[-1]
    rates = [line.split("lr: ")[1][:10] for line in log[:2]]
    assert rates == ["1.0000e-05", "5.0000e-03"]

    summary = read_json(unbroken / "test_summary.json")
    predictions = pd.read_csv(unbroken / "test_predictions.csv")
    test = pd.read_csv(unbroken / "manifests" / "test.csv")
    assert sorted(predictions.ID) == sorted(test.ID)
    assert summary["tracks"] == len(test) == 4
    assert summary["clips"] == 8 * len(test), "2 s are eight clips"
    right = (predictions.genre == predictions.predicted).mean()
    assert summary["song_accuracy"] == pytest.approx(right)
    matrix = pd.read_csv(unbroken / "confusion_matrix.csv", index_col="genre")
    assert np.trace(matrix) == round(right * len(test))
    assert matrix.sum(axis=1).to_dict() == test.genre.value_counts().to_dict()


def test_model_folder_names_what_the_test_named(unbroken, data_folder):
    predictions = pd.read_csv(unbroken / "test_predictions.csv")
    ours = GenreClassifier.from_hparams(unbroken / "model")
    stock = EncoderClassifier.from_hparams(str(unbroken / "model"))
    named, named_by_stock = [], []
    for row in predictions.itertuples():
        path = data_folder / "genres" / row.genre / f"{row.ID}.wav"
        named.append(ours.predict_song(path).genre)
        named_by_stock += stock.classify_file(str(path))[3]
    # The cached copies that were tested are rounded to 16 bits.
    assert np.mean(predictions.predicted == named) >= 0.9
    assert named_by_stock == named


def test_a_run_is_a_fold_of_a_cross_validation(unbroken, tmp_path):
    (tmp_path / "fold_0").symlink_to(unbroken)
    right = read_json(unbroken / "test_summary.json")["song_accuracy"] * 4
    report = write_summary(tmp_path, n_folds=4)
    assert report.startswith("1 of 4 folds\n") and f"{right:.0f} of 4 songs" in report


def test_a_run_is_exported_as_it_writes_its_model_itself(unbroken, tmp_path):
    def content(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in files}

    before = content(unbroken)
    assert export_run(unbroken, tmp_path / "model") == tmp_path / "model"
    assert content(unbroken) == before
    assert content(tmp_path / "model") == content(unbroken / "model")
    summary = read_json(unbroken / "test_summary.json")
    (song, clip) = ModelCard.load(tmp_path / "model" / "README.md").data.eval_results
    assert song.metric_value == round(summary["song_accuracy"], 4)
    assert clip.metric_value == round(summary["clip_accuracy"], 4)
    fold = "fold 0 of 4, counted from 0; seed 1234"
    expected = f"GTZAN, stratified random folds ({fold}); 4 test tracks"
    assert song.dataset_name == expected


def test_ismir2004_runs_from_its_file(tmp_path):
    path = ROOT / "recipes" / "ISMIR2004" / "train.py"
    spec = importlib.util.spec_from_file_location("train_ismir2004", path)
    script = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folders = ["classical", "electronic", "jazz", "metal", "punk", "pop", "world"]
    for part, tracks in [("training", 4), ("evaluation", 1)]:
        for folder in folders:
            for track in range(tracks):
                seed = {"sample_rate": 16000, "seed": len(folder)}
                samples = render_track("jazz", track, duration_s=3.0, **seed)
                path = tmp_path / "audio" / part / folder / "a" / f"{track}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, 16000)
    hparams = {"test_part": "evaluation", "excerpt": "[1, 2]", "test_hop": 16000}
    hparams |= {"clip_samples": 8000, "hop_samples": 8000, "n_genres": 6}
    hparams |= {"number_of_epochs": 1, "cache_folder": tmp_path / "audio_16k"}
    words = command(tmp_path, tmp_path / "run", system="mel_resnet", **hparams)
    run([word for word in words if not word.startswith("--n_folds")], script)
    summary = read_json(tmp_path / "run" / "test_summary.json")
    assert (summary["tracks"], summary["clips"]) == (7, 14)  # 2 of 2 s each
    genres = pd.read_csv(tmp_path / "run" / "confusion_matrix.csv").genre
    assert list(genres)[2:5] == ["jazz_blues", "metal_punk", "rock_pop"]
    assert read_json(tmp_path / "run" / "model" / "config.json")["hop_samples"] == 8000


def test_sincnet_runs_from_its_file(data_folder, tmp_path):
    epochs = {"number_of_epochs": 1, "warmup_epochs": 0}
    run(command(data_folder, tmp_path, system="sincnet", **epochs))
    summary = read_json(tmp_path / "test_summary.json")
    assert (summary["tracks"], summary["epoch"]) == (4, 1)
    row = pd.read_csv(tmp_path / "test_predictions.csv").iloc[0]
    song = GenreClassifier.from_hparams(tmp_path / "model").predict_song(
        data_folder / "genres" / row.genre / f"{row.ID}.wav"
    )
    assert len(song.clips) == row.clips
    posteriors = {genre: row[f"posterior_{genre}"] for genre in song.posteriors}
    assert song.posteriors == pytest.approx(posteriors, abs=2e-4)


def test_neither_a_kill_nor_tracks_in_memory_change_figures(
    unbroken, data_folder, tmp_path, capsys
):
    words = command(data_folder, tmp_path, cache="memory")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ms_sincresnet.training.brain"])
    process = context.Process(target=run_and_die, args=[words])
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    saved = [path.read_text() for path in tmp_path.glob("save/CKPT+2*/brain.ckpt")]
    assert max(yaml.safe_load(text)["optimizer_step"] for text in saved) == 6
    assert not (tmp_path / "test_summary.json").exists()
    run(words)
    assert "%|" in capsys.readouterr().err, "progress bars"
    assert figures(tmp_path) == figures(unbroken)
    weights, expected = (
        load_weights(folder / "model" / "model.safetensors")
        for folder in (tmp_path, unbroken)
    )
    assert [name for name in expected if not weights[name].equal(expected[name])] == []


def test_finished_run_trains_no_more_and_tests_again(unbroken, data_folder):
    log, *rest = figures(unbroken)
    run(command(data_folder, unbroken))
    assert figures(unbroken) == (log + log.splitlines(keepends=True)[-1], *rest)
    run(command(data_folder, unbroken, "--test_only", checkpoint="last"))
    assert read_json(unbroken / "test_summary.json")["epoch"] == 2


def test_another_fold_in_the_same_folder_is_refused(unbroken, data_folder, tmp_path):
    (tmp_path / "save").mkdir()
    for path in unbroken.glob("save/split*"):
        shutil.copy(path, tmp_path / "save")
    with pytest.raises(UserError) as error:
        run(command(data_folder, tmp_path, fold=1, system="mel_resnet"))
    assert str(tmp_path / "save") in str(error.value)
    assert "output_folder" in str(error.value)


def test_split_seed_deals_the_folds_and_seed_the_rest(unbroken, data_folder, tmp_path):
    def parts(folder):
        names = ("train", "valid", "test")
        tables = [pd.read_csv(folder / "manifests" / f"{name}.csv") for name in names]
        return [set(table.ID) for table in tables]

    short = {"number_of_epochs": 1, "system": "mel_resnet"}
    run(command(data_folder, tmp_path / "a", "--debug", seed=5, **short))
    assert parts(tmp_path / "a") == parts(unbroken)
    # Debug mode runs two batches per stage and keeps no checkpoint.
    assert read_json(tmp_path / "a" / "test_summary.json")["tracks"] == 2
    assert not list((tmp_path / "a" / "save").glob("CKPT*"))
    with pytest.raises(UserError, match="n_genres is 5"):  # after the split
        run(command(data_folder, tmp_path / "b", split_seed=5, n_genres=5, **short))
    assert parts(tmp_path / "b")[2] != parts(unbroken)[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hparams/nowhere.yaml"], "hparams/nowhere.yaml: no such hparams file"),
        (
            ["hparams/sincnet.yaml"],
            "hparams/sincnet.yaml: data_folder is missing; give --data_folder=…\nGTZAN",
        ),
        (["hparams/sincnet.yaml", "--data_folder=no where"], "data_folder: "),
        (["hparams/sincnet.yaml", "--number_of_epoch=3"], "--number_of_epoch: no such"),
    ],
)
def test_mistakes_show_no_traceback(words, message, tmp_path, monkeypatch):
    output = f"--output_folder={tmp_path}"
    monkeypatch.chdir(RECIPE)
    monkeypatch.setattr(sys, "argv", ["train.py", *words, output])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path("train.py", run_name="__main__")
    assert exit_.value.code.startswith(f"error: {message}")
    assert not list(tmp_path.glob("save/CKPT*"))


def test_an_empty_run_cannot_be_tested(data_folder, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}.*no checkpoint"):
        run(command(data_folder, tmp_path, "--test_only", system="mel_resnet"))


def test_the_plus_recipe_learns_cutoffs_from_all_tracks_and_a_teacher(
    data_folder, tmp_path
):
    clips = [
        {
            "ID": path.stem,
            "start": start / 4,
            "tags": [0.5] * 50,
            "features": [1.0] * 200,
        }
        for path in data_folder.glob("genres/*/*.wav")
        for start in range(8)
    ]
    pd.DataFrame(clips).to_parquet(tmp_path / "teacher.parquet")
    options = {"number_of_epochs": 2, "frozen_epochs": 1, "protocol": "all"}
    options |= {"clip_grid": 4000, "teacher_targets": tmp_path / "teacher.parquet"}
    run_folder = tmp_path / "run"
    run(command(data_folder, run_folder, system="ms_sincresnet_plus", **options))
    table = pd.read_csv(run_folder / "cutoffs.csv")
    assert sorted(set(table.epoch)) == [0, 1, 2]
    first, last = (table[table.epoch == epoch].low_hz.to_numpy() for epoch in (0, 2))
    assert np.median(abs(last - first)) > 1
    log = (run_folder / "train_log.txt").read_text().splitlines()
    assert len(log) == 2 and "median_shift_hz" in log[0]  # and no test
    model = MSSincResNet.from_pretrained(run_folder / "model")
    assert model.settings["training"]["figures"] is None
    assert model.settings["training"]["protocol"].startswith("all tracks")
    found = model.frontend.banks[0].cutoffs()[0].detach()
    np.testing.assert_allclose(found, last[: len(found)], atol=1e-3)


def rows(name):
    """Rows of SpeechBrain's list of recipe tests, with files relative to the recipe."""
    table = pd.read_csv(ROOT / f"tests/recipes/{name}.csv", keep_default_na=False)
    folder = ROOT / "recipes" / name
    for row in table.itertuples():
        yield (ROOT / row.Hparam_file).relative_to(folder), row


def test_quickstart_runs_by_its_debug_row(tmp_path):
    file, row = next(iter(rows("GTZAN")))
    flags = row.test_debug_flags.replace("tests/tmp", str(tmp_path)).split()
    own = [f"--output_folder={tmp_path / 'run'}", "--num_workers=0"]
    small = ["--n_filters=8", "--n_frames=64", "--clip_samples=8000"]
    run([str(file), *flags, *own, *small])
    names = row.test_debug_checks.removeprefix("file_exists=[").removesuffix("]")
    for name in names.split(","):
        assert (tmp_path / "run" / name).is_file(), name
    assert len(list((tmp_path / "GTZAN").glob("genres/*/*.wav"))) == 40
