"""The recipes as their users run them, on small synthetic copies of the data sets."""

import importlib.util
import itertools
import multiprocessing
import os
import re
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
from ms_sincresnet.data import synthetic
from ms_sincresnet.data.synthetic import make_synthetic_gtzan
from ms_sincresnet.errors import UserError
from ms_sincresnet.files import load_weights, read_json
from ms_sincresnet.training.export import export_run
from ms_sincresnet.training.folds import write_summary

from .sounds import noise

ROOT = Path(__file__).parents[1]

# Clips of a quarter of a second of four genres, small models: the same code path.
SMALL = {"n_genres": 4, "n_folds": 4, "valid_fraction": 0.34, "num_workers": 0}
SMALL |= {"clip_samples": 4000, "hop_samples": 4000, "valid_hop": 8000}
SMALL |= {"batch_size": 4, "clips_per_track": 2, "number_of_epochs": 2}
SMALL |= {"warmup_epochs": 1, "lr_step": 1}
OURS = {"n_filters": 8, "n_frames": 64, "resnet_weights": "null"}
OURS |= {"parametrization": "relative", "cutoff_lr_factor": 100}
MODELS = {
    "ms_sincresnet": OURS,
    "ms_sincresnet_plus": OURS,
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
    cache = {"cache_folder": Path(data_folder).parent / "audio_16k"}
    folders = {"data_folder": data_folder, "output_folder": output_folder}
    hparams = SMALL | MODELS[system] | folders | cache | hparams
    words = [f"--{name}={value}" for name, value in hparams.items()]
    return [f"hparams/{system}.yaml", "--device=cpu", *words, *options]


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
    *epochs, test = (unbroken / "train_log.txt").read_text().splitlines()
    for figure in ("loss", "clip_accuracy", "song_accuracy"):
        assert f"train {figure}" in epochs[0] and f"valid {figure}" in epochs[0]
        assert f"test {figure}" in test
    rates = [line.split("lr: ")[1][:10] for line in epochs]
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
    names = predictions.genre + "/" + predictions.ID + ".wav"
    paths = [data_folder / "genres" / name for name in names]
    named = [ours.predict_song(path).genre for path in paths]
    # The cached copies that were tested are rounded to 16 bits.
    assert np.mean(predictions.predicted == named) >= 0.9
    assert [stock.classify_file(str(path))[3] for path in paths] == [[n] for n in named]


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
    song, clip = ModelCard.load(tmp_path / "model" / "README.md").data.eval_results
    assert song.metric_value == round(summary["song_accuracy"], 4)
    assert clip.metric_value == round(summary["clip_accuracy"], 4)
    split = "stratified random folds (fold 0 of 4, counted from 0; seed 1234)"
    assert song.dataset_name == f"GTZAN, {split}; 4 test tracks"


def test_ismir2004_runs_from_its_file(tmp_path):
    path = ROOT / "recipes" / "ISMIR2004" / "train.py"
    spec = importlib.util.spec_from_file_location("train_ismir2004", path)
    script = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folders = ["classical", "electronic", "jazz", "metal", "punk", "pop", "world"]
    places = [("training", n) for n in range(4)] + [("evaluation", 0)]
    for folder, (part, n) in itertools.product(folders, places):
        path = tmp_path / "audio" / part / folder / "a" / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(48000, seed=len(folder) + n), 16000)
    hparams = {"test_part": "evaluation", "excerpt": "[1, 2]", "test_hop": 16000}
    hparams |= {"clip_samples": 8000, "hop_samples": 8000, "n_genres": 6}
    hparams |= {"number_of_epochs": 1, "clips_per_track": 1}
    hparams |= {"cache_folder": tmp_path / "audio_16k"}
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
    models = (folder / "model" / "model.safetensors" for folder in (tmp_path, unbroken))
    weights, expected = map(load_weights, models)
    assert [name for name in expected if not weights[name].equal(expected[name])] == []


def test_finished_run_trains_no_more_and_tests_again(unbroken, data_folder):
    log, *rest = figures(unbroken)
    run(command(data_folder, unbroken))
    assert figures(unbroken) == (log + log.splitlines(keepends=True)[-1], *rest)
    run(command(data_folder, unbroken, "--test_only", checkpoint="last"))
    assert read_json(unbroken / "test_summary.json")["epoch"] == 2


def test_another_fold_in_the_same_folder_is_refused(unbroken, data_folder, tmp_path):
    (tmp_path / "save").mkdir()
    shutil.copy(unbroken / "save" / "split.sha256", tmp_path / "save")
    with pytest.raises(UserError, match=f"{tmp_path / 'save'}: .*output_folder"):
        run(command(data_folder, tmp_path, fold=1, system="mel_resnet"))


def test_split_seed_deals_the_folds_and_seed_does_not(unbroken, data_folder, tmp_path):
    def manifest(folder):
        return (folder / "manifests" / "test.csv").read_text()

    for option in ("seed", "split_seed"):
        words = command(data_folder, tmp_path / option, n_genres=5, **{option: 5})
        with pytest.raises(UserError, match="n_genres is 5"):  # after the split
            run(words)
    assert manifest(tmp_path / "seed") == manifest(unbroken)
    assert manifest(tmp_path / "split_seed") != manifest(unbroken)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere.yaml", "hparams/nowhere.yaml: no such hparams file"),
        ("sincnet.yaml", ".*: data_folder is missing; give --data_folder=…\nGTZAN"),
        ("sincnet.yaml --data_folder=no", "data_folder: "),
        ("sincnet.yaml --number_of_epoch=3", "--number_of_epoch: no such"),
    ],
)
def test_mistakes_show_no_traceback(words, message, tmp_path, monkeypatch):
    words = f"train.py hparams/{words} --output_folder={tmp_path}"
    monkeypatch.chdir(ROOT / "recipes" / "GTZAN")
    monkeypatch.setattr(sys, "argv", words.split())
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path("train.py", run_name="__main__")
    assert re.match(f"error: {message}", exit_.value.code)
    assert not list(tmp_path.glob("save/CKPT*"))


def test_an_empty_run_cannot_be_tested(data_folder, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}.*no checkpoint"):
        run(command(data_folder, tmp_path, "--test_only", system="mel_resnet"))


def test_the_plus_recipe_learns_cutoffs_from_all_tracks_and_a_teacher(
    data_folder, tmp_path
):
    targets = {"tags": [0.5] * 50, "features": [1.0] * 200}
    paths = data_folder.glob("genres/*/*.wav")
    clips = [{"ID": p.stem, "start": n / 4} | targets for p in paths for n in range(8)]
    pd.DataFrame(clips).to_parquet(tmp_path / "teacher.parquet")
    options = {"number_of_epochs": 2, "frozen_epochs": 1, "protocol": "all"}
    options |= {"clip_grid": 4000, "teacher_targets": tmp_path / "teacher.parquet"}
    run_folder = tmp_path / "run"
    run(command(data_folder, run_folder, system="ms_sincresnet_plus", **options))
    table = pd.read_csv(run_folder / "cutoffs.csv")
    assert sorted(set(table.epoch)) == [0, 1, 2]
    first, last = (table[table.epoch == epoch].low_hz.to_numpy() for epoch in (0, 2))
    assert np.median(abs(last - first)) > 1
    first_epoch, _ = (run_folder / "train_log.txt").read_text().splitlines()  # no test
    assert "median_shift_hz" in first_epoch
    model = MSSincResNet.from_pretrained(run_folder / "model")
    assert model.settings["training"]["figures"] is None
    assert model.settings["training"]["protocol"].startswith("all tracks")
    found = model.frontend.banks[0].cutoffs()[0].detach()
    np.testing.assert_allclose(found, last[: len(found)], atol=1e-3)


def test_quickstart_runs_by_its_debug_row(tmp_path, monkeypatch):
    def short(folder, n_tracks, seed):
        make_synthetic_gtzan(folder, n_tracks=n_tracks, seed=seed, duration_s=2.0)

    monkeypatch.setattr(synthetic, "make_synthetic_gtzan", short)
    row = pd.read_csv(ROOT / "tests/recipes/GTZAN.csv", keep_default_na=False).loc[0]
    flags = row.test_debug_flags.replace("tests/tmp", str(tmp_path)).split()
    own = [f"--output_folder={tmp_path / 'run'}", "--num_workers=0"]
    small = ["--n_filters=8", "--n_frames=64", "--clip_samples=8000"]
    run([str(ROOT / row.Hparam_file), *flags, *own, *small])
    names = row.test_debug_checks.removeprefix("file_exists=[").removesuffix("]")
    for name in names.split(","):
        assert (tmp_path / "run" / name).is_file(), name
    assert len(list((tmp_path / "GTZAN").glob("genres/*/*.wav"))) == 40
    # Debug mode runs two batches per stage and keeps no checkpoint.
    assert read_json(tmp_path / "run" / "test_summary.json")["tracks"] == 2
    assert not list((tmp_path / "run" / "save").glob("CKPT*"))
