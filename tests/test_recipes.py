"""The recipes as their users run them, on small synthetic copies of the data sets."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import train
import yaml
from speechbrain.inference.classifiers import EncoderClassifier

from ms_sincresnet import GenreClassifier
from ms_sincresnet.data.synthetic import make_synthetic_gtzan, render_track
from ms_sincresnet.errors import exit_on_user_error

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "GTZAN"

# Clips of half a second, small systems: the same code path in a second an epoch.
SMALL = {
    "clip_samples": 8000,
    "hop_samples": 8000,
    "valid_hop": 16000,
    "clips_per_track": 2,
    "batch_size": 8,
    "n_folds": 4,
    "valid_fraction": 0.34,
    "warmup_epochs": 1,
    "lr_step": 1,
    "num_workers": 0,
}
SMALL_SYSTEMS = {
    "ms_sincresnet": {"n_filters": 32, "n_frames": 64, "resnet_weights": "null"},
    "sincresnet": {"n_filters": 32, "n_frames": 64, "resnet_weights": "null"},
    "mel_resnet": {"n_mels": 32, "resnet_weights": "null"},
    "sincnet": {"n_filters": 8, "kernel_size": 51, "frame_samples": 800},
}
OTHER_SYSTEMS = [name for name in SMALL_SYSTEMS if name != "ms_sincresnet"]


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / 'it\'s müsic: "a=b" #1' / "GTZAN"
    folder.parent.mkdir()
    return make_synthetic_gtzan(folder, n_tracks=4, duration_s=4.0, seed=3)


def command(data_folder, output_folder, *options, system="ms_sincresnet", **hparams):
    """The words of a command line: yaml file, overrides, run options."""
    hparams = {
        **SMALL,
        **SMALL_SYSTEMS[system],
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


def start(words, launcher=("python",), **options):
    """Starts train.py in a process of its own, in the recipe's folder."""
    python = [sys.executable, *launcher[1:]]
    return subprocess.Popen(
        [*python, "train.py", *words],
        cwd=RECIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def run(words, launcher=("python",)):
    """Runs train.py to its end; gives exit status and output."""
    process = start(words, launcher)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def figures(output_folder):
    """All that a run says of itself, without times."""
    folder = Path(output_folder)
    return (
        (folder / "train_log.txt").read_text(),
        (folder / "test_summary.json").read_text(),
        (folder / "test_predictions.csv").read_text(),
    )


@pytest.fixture(scope="module")
def unbroken(data_folder, tmp_path_factory):
    """A run of three epochs that nothing interrupts."""
    output_folder = tmp_path_factory.mktemp("runs") / "unbroken"
    status, output = run(command(data_folder, output_folder, number_of_epochs=3))
    assert status == 0, output
    return output_folder, output


def test_run_leaves_what_speechbrain_users_expect(unbroken):
    output_folder, output = unbroken
    names = {path.name for path in output_folder.iterdir()}
    assert names >= {
        "confusion_matrix.csv",
        "confusion_matrix.png",
        "env.log",
        "hyperparams.yaml",
        "log.txt",
        "manifests",
        "model",
        "save",
        "test_predictions.csv",
        "test_summary.json",
        "train.py",
        "train_log.txt",
    }
    log = (output_folder / "train_log.txt").read_text().splitlines()
    assert len(log) == 4, "a line an epoch and one of the test"
    for figure in ("loss", "clip_accuracy", "song_accuracy"):
        assert f"train {figure}" in log[0] and f"valid {figure}" in log[0]
        assert f"test {figure}" in log[-1]
    assert [line.split("lr: ")[1][:10] for line in log[:3]] == [
        "1.0000e-05",
        "5.0000e-03",
        "2.5000e-03",
    ]
    assert "100%" in output, "progress bars"


def test_figures_agree_with_each_other(unbroken):
    output_folder, _ = unbroken
    summary = json.loads((output_folder / "test_summary.json").read_text())
    predictions = pd.read_csv(output_folder / "test_predictions.csv")
    test = pd.read_csv(output_folder / "manifests" / "test.csv")
    assert sorted(predictions.ID) == sorted(test.ID)
    assert summary["tracks"] == len(test) == 10
    assert summary["clips"] == 8 * len(test), "4 s are eight clips of half a second"
    right = (predictions.genre == predictions.predicted).mean()
    assert summary["song_accuracy"] == pytest.approx(right)
    matrix = pd.read_csv(output_folder / "confusion_matrix.csv", index_col="genre")
    assert np.trace(matrix) == round(right * len(test))
    assert matrix.sum(axis=1).to_dict() == test.genre.value_counts().to_dict()


def test_model_folder_names_what_the_test_named(unbroken, data_folder):
    output_folder, _ = unbroken
    predictions = pd.read_csv(output_folder / "test_predictions.csv")
    ours = GenreClassifier.from_hparams(output_folder / "model")
    stock = EncoderClassifier.from_hparams(str(output_folder / "model"))
    named, named_by_stock = [], []
    for row in predictions.itertuples():
        path = data_folder / "genres" / row.genre / f"{row.ID}.wav"
        named.append(ours.predict_song(path).genre)
        named_by_stock += stock.classify_file(str(path))[3]
    # The cached copies that were tested are rounded to 16 bits.
    assert np.mean(predictions.predicted == named) >= 0.9
    assert named_by_stock == named


def test_ismir2004_runs_from_its_file(tmp_path):
    folders = ["classical", "electronic", "jazz", "metal", "punk", "pop", "world"]
    for part, tracks in [("training", 4), ("evaluation", 1)]:
        for folder in folders:
            for track in range(tracks):
                samples = render_track(
                    "jazz", track, duration_s=4.0, sample_rate=16000, seed=len(folder)
                )
                path = tmp_path / "audio" / part / folder / "a" / f"{track}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, 16000)
    hparams = {
        **SMALL,
        **SMALL_SYSTEMS["mel_resnet"],
        "data_folder": tmp_path,
        "output_folder": tmp_path / "run",
        "cache_folder": tmp_path / "audio_16k",
        "test_part": "evaluation",
        "excerpt": "[1, 2]",
        "test_hop": 16000,
        "number_of_epochs": 1,
    }
    del hparams["n_folds"]
    words = [f"--{name}={value}" for name, value in hparams.items()]
    finished = subprocess.run(
        [sys.executable, "train.py", "hparams/mel_resnet.yaml", "--device=cpu", *words],
        cwd=ROOT / "recipes" / "ISMIR2004",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    summary = json.loads((tmp_path / "run" / "test_summary.json").read_text())
    assert (summary["tracks"], summary["clips"]) == (7, 14)  # 2 of 2 s each
    genres = pd.read_csv(tmp_path / "run" / "confusion_matrix.csv").genre
    assert list(genres)[2:5] == ["jazz_blues", "metal_punk", "rock_pop"]
    hyperparams = (tmp_path / "run" / "model" / "hyperparams.yaml").read_text()
    assert "\nhop_samples: 8000 " in hyperparams


@pytest.mark.parametrize("system", OTHER_SYSTEMS)
def test_every_system_runs_from_its_file(system, data_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPE)
    epochs = {"number_of_epochs": 1, "warmup_epochs": 0}
    train.main(command(data_folder, tmp_path, system=system, **epochs))
    summary = json.loads((tmp_path / "test_summary.json").read_text())
    assert (summary["tracks"], summary["epoch"]) == (10, 1)
    row = pd.read_csv(tmp_path / "test_predictions.csv").iloc[0]
    song = GenreClassifier.from_hparams(tmp_path / "model").predict_song(
        data_folder / "genres" / row.genre / f"{row.ID}.wav"
    )
    assert len(song.clips) == row.clips
    posteriors = {genre: row[f"posterior_{genre}"] for genre in song.posteriors}
    assert song.posteriors == pytest.approx(posteriors, abs=2e-4)


def steps_saved(save_folder):
    """Steps of the optimizer that the checkpoints of a run have seen."""
    steps = [0]
    for finished in Path(save_folder).glob("CKPT*/CKPT.yaml"):
        with contextlib.suppress(FileNotFoundError):  # deleted for a newer one
            saved = finished.with_name("brain.ckpt").read_text()
            steps.append(yaml.safe_load(saved)["optimizer_step"])
    return max(steps)


def test_kill_at_any_point_changes_nothing(unbroken, data_folder, tmp_path):
    reference_folder, _ = unbroken
    words = command(
        data_folder,
        tmp_path / "broken",
        "--ckpt_interval_steps=1",
        number_of_epochs=3,
    )
    for step in (2, 7, 12):  # of 15: in the middle of each epoch
        process = start(words, start_new_session=True)
        while steps_saved(tmp_path / "broken" / "save") < step:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "broken" / "test_summary.json").exists()

    status, output = run(words)
    assert status == 0, output
    assert "Loading a checkpoint from" in output
    assert figures(tmp_path / "broken") == figures(reference_folder)
    weights = [
        torch.load(folder / "model" / "embedding_model.ckpt")
        for folder in (reference_folder, tmp_path / "broken")
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_finished_run_trains_no_more_and_tests_again(
    unbroken, data_folder, monkeypatch
):
    monkeypatch.chdir(RECIPE)
    output_folder, _ = unbroken
    log, summary, predictions = figures(output_folder)
    train.main(command(data_folder, output_folder, number_of_epochs=3))
    assert figures(output_folder) == (
        log + log.splitlines(keepends=True)[-1],
        summary,
        predictions,
    )


def test_tracks_in_memory_train_to_the_same_figures(unbroken, data_folder, tmp_path):
    words = command(
        data_folder, tmp_path, number_of_epochs=1, cache="memory", num_workers=2
    )
    status, output = run(words)
    assert status == 0, output
    logs = [
        (folder / "train_log.txt").read_text().splitlines()[0]
        for folder in (unbroken[0], tmp_path)
    ]
    assert logs[0] == logs[1]


def test_two_processes_train_as_one_with_their_batch_does(
    data_folder, tmp_path, monkeypatch
):
    """At a small learning rate; rounding grows, see test_training_distributed.py."""
    options = {
        **{"number_of_epochs": 1, "warmup_lr": 1e-5, "n_filters": 8},
        **{"gain_low": 1, "gain_high": 1, "noise_std": 0},  # drawn in each process
    }
    launcher = ("python", "-m", "torch.distributed.run", "--standalone")
    words = command(
        data_folder,
        tmp_path / "two",
        "--distributed_backend=gloo",
        batch_size=SMALL["batch_size"] // 2,
        **options,
    )
    status, output = run(words, (*launcher, "--nproc_per_node=2"))
    assert status == 0, output
    monkeypatch.chdir(RECIPE)
    train.main(command(data_folder, tmp_path / "one", **options))

    logs, summaries, tables = zip(
        *(figures(tmp_path / folder) for folder in ("two", "one")), strict=True
    )
    numbers = [[float(x) for x in re.findall(r": ([\d.e+-]+)", log)] for log in logs]
    assert len(numbers[0]) == 12, "epoch, rate, and figures of three stages"
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-4)
    summaries = [json.loads(summary) for summary in summaries]
    assert summaries[0].pop("dataset") == summaries[1].pop("dataset")
    assert summaries[0] == pytest.approx(summaries[1], abs=1e-5)
    of_two, of_one = (pd.read_csv(io.StringIO(table)) for table in tables)
    assert list(of_two.ID) == list(of_one.ID) and len(of_two) == 10
    pd.testing.assert_frame_equal(of_two, of_one, rtol=0, atol=2e-4)
    assert (tmp_path / "two" / "model" / "hyperparams.yaml").is_file()


def test_debug_flag_keeps_no_checkpoint(data_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPE)
    train.main(command(data_folder, tmp_path, "--debug"))
    assert not list((tmp_path / "save").glob("CKPT*"))
    summary = json.loads((tmp_path / "test_summary.json").read_text())
    assert summary["tracks"] == 2, "SpeechBrain's debug mode runs two batches a stage"


def test_last_checkpoint_can_be_tested_instead(unbroken, data_folder, monkeypatch):
    monkeypatch.chdir(RECIPE)
    output_folder, _ = unbroken
    words = command(
        data_folder, output_folder, "--test_only", number_of_epochs=3, checkpoint="last"
    )
    train.main(words)
    summary = json.loads((output_folder / "test_summary.json").read_text())
    assert summary["epoch"] == 3


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Folders and files with which users come."""
    folder = tmp_path_factory.mktemp("broken")
    for genre in ("jazz", "rock"):
        (folder / "text" / "genres" / genre).mkdir(parents=True)
        for n in range(2):
            path = folder / "text" / "genres" / genre / f"{genre}.{n}.wav"
            path.write_text("no audio")
    for genre in ("jazz", "metal", "rock"):
        (folder / "three" / genre).mkdir(parents=True)
        for n in range(8):
            noise = np.random.default_rng(n).normal(size=8000) / 10
            soundfile.write(folder / "three" / genre / f"{genre}.{n}.wav", noise, 8000)
    torch.save({"fc.weight": torch.zeros(1)}, folder / "wrong.pth")
    (folder / "empty").mkdir()
    return folder


MISTAKES = {
    "no data folder, nor weights": (
        {"data_folder": "null", "resnet_weights": "nowhere.pth"},
        ["data_folder", "marsyas/gtzan", "quickstart.yaml"],
    ),
    "missing folder": (
        {"data_folder": "nowhere", "resnet_weights": "nowhere.pth"},
        ["nowhere", "no such folder"],
    ),
    "empty folder": ({"data_folder": "{broken}/empty"}, ["empty", "genres_original"]),
    "text called wav": ({"data_folder": "{broken}/text"}, ["jazz"]),
    "other genres": (
        {"data_folder": "{broken}/three"},
        ["n_genres is 10", "3 genres", "--n_genres=3"],
    ),
    "unknown hparam": ({"number_of_epoch": 3}, ["did you mean --number_of_epochs"]),
    "even kernel": (
        {"kernel_sizes": "[250, 501, 1001]"},
        ["ms_sincresnet.yaml", "kernel_size must be odd", "250"],
    ),
    "fold out of range": ({"fold": 4}, ["fold", "4"]),
    "unknown checkpoint": (
        {"checkpoint": "lst"},
        ["checkpoint", "best, last", "'lst'"],
    ),
    "unknown cache": ({"cache": "ram"}, ["cache", "disk, memory", "'ram'"]),
    "unknown voting": ({"voting": "max"}, ["voting", "majority, mean", "'max'"]),
    "no fp16 on the CPU": ({"precision": "fp16"}, ["--precision", "fp16"]),
    "no such device": ({"device": "cuda:7"}, ["--device"]),
    "missing weights": ({"resnet_weights": "nowhere.pth"}, ["nowhere.pth"]),
    "wrong weights": (
        {"resnet_weights": "{broken}/wrong.pth"},
        ["wrong.pth", "missing: "],
    ),
}


def main_as_from_the_shell(words):
    """What the command line prints when it ends with an error."""
    with pytest.raises(SystemExit) as exit_, exit_on_user_error():
        train.main(words)
    assert isinstance(exit_.value.code, str), "a message, and a status that is not 0"
    return exit_.value.code


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake, data_folder, broken, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPE)
    hparams, expected = MISTAKES[mistake]
    hparams = {
        name: value.format(broken=broken) if isinstance(value, str) else value
        for name, value in hparams.items()
    }
    words = command(hparams.pop("data_folder", data_folder), tmp_path, **hparams)
    message = main_as_from_the_shell(words)
    for part in expected:
        assert part in message
    assert not list(tmp_path.glob("save/CKPT*"))


def test_an_option_that_is_given_twice_is_named(data_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPE)
    words = command(data_folder, tmp_path, "--fold=0", "--fold=1")
    assert "--fold: given more than once" in main_as_from_the_shell(words)
    assert not any(tmp_path.iterdir())


def test_mistakes_show_no_traceback(tmp_path):
    status, output = run(["hparams/nowhere.yaml"])
    assert status == 1
    assert (
        output.splitlines()[-1] == "error: hparams/nowhere.yaml: no such hparams file"
    )
    assert "Traceback" not in output


def test_nothing_to_test_is_said(data_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPE)
    message = main_as_from_the_shell(command(data_folder, tmp_path, "--test_only"))
    assert "no checkpoint" in message and str(tmp_path) in message


def test_another_fold_in_the_same_folder_is_refused(unbroken, data_folder, monkeypatch):
    monkeypatch.chdir(RECIPE)
    output_folder, _ = unbroken
    message = main_as_from_the_shell(command(data_folder, output_folder, fold=1))
    assert str(output_folder / "save") in message and "output_folder" in message


def test_debug_rows_run_the_full_size_network(tmp_path, monkeypatch):
    """Each row of SpeechBrain's list of recipe tests, with folders of this test."""
    monkeypatch.chdir(ROOT)
    rows = pd.read_csv(ROOT / "tests" / "recipes" / "GTZAN.csv", keep_default_na=False)
    for n, row in rows.iterrows():
        output_folder = tmp_path / str(n)
        flags = row.test_debug_flags.replace("tests/tmp", str(tmp_path)).split()
        own = [
            f"--output_folder={output_folder}",
            f"--cache_folder={tmp_path / 'audio_16k'}",
            "--num_workers=0",  # those of loaders that debug mode leaves end slowly
        ]
        train.main([row.Hparam_file, *flags, *own])
        names = row.test_debug_checks.removeprefix("file_exists=[").removesuffix("]")
        for name in names.split(","):
            assert (output_folder / name).is_file(), (row.Hparam_file, name)


def sections(path):
    """The headed parts of a yaml file, "header" first, by what their headings say."""
    parts = re.split(r"^# \d\. (.*)\n", path.read_text(), flags=re.MULTILINE)
    return dict(zip(["header", *parts[1::2]], parts[::2], strict=True))


FAMILIES = sorted(ROOT.glob("recipes/*/hparams/ms_sincresnet.yaml"))
DATA_SETS = [path.parts[-3] for path in FAMILIES]


@pytest.mark.parametrize("family", FAMILIES, ids=DATA_SETS)
def test_every_data_set_has_every_system(family):
    names = {path.stem for path in family.parent.iterdir()} - {"quickstart"}
    assert names == set(SMALL_SYSTEMS)


@pytest.mark.parametrize("system", OTHER_SYSTEMS)
@pytest.mark.parametrize("family", FAMILIES, ids=DATA_SETS)
def test_systems_differ_in_header_model_and_folder_alone(family, system):
    found, expected = sections(family.with_stem(system)), sections(family)
    command = f"\n#   python train.py hparams/{system}.yaml --data_folder="
    assert command in found["header"]
    assert f"!ref results/{system}/" in found["Run"]
    found["Run"] = found["Run"].replace(f"/{system}/", f"/{family.stem}/")
    for part in ("header", "Model"):
        assert found.pop(part) != expected.pop(part)
    assert found == expected
    assert list(found) == ["Run", "Data", "Optimisation", "Logging and checkpoints"]


@pytest.mark.parametrize("system", SMALL_SYSTEMS)
@pytest.mark.parametrize("family", FAMILIES, ids=DATA_SETS)
def test_data_sets_differ_in_header_run_data_and_genres_alone(family, system):
    found = sections(family.with_stem(system))
    expected = sections(RECIPE / "hparams" / f"{system}.yaml")
    assert list(found) == list(expected)
    for part in ("Model", "Optimisation", "Logging and checkpoints"):
        own = re.sub(r"^n_genres: \d+$", "n_genres: 10", found[part], flags=re.M)
        assert own == expected[part]


def test_quickstart_differs_from_the_paper_where_it_says():
    """The sections on the model are the same to the letter, but for two values."""
    model = {}
    for name in ("ms_sincresnet", "quickstart"):
        model[name] = sections(RECIPE / "hparams" / f"{name}.yaml")["Model"]
    for here, there in [
        (
            "n_filters: 80  # K, of each filterbank: half of 160, also in Table 1",
            "n_filters: 160  # K, of each filterbank",
        ),
        (
            "resnet_weights: null  # random: nothing is downloaded",
            "resnet_weights: imagenet  # downloaded once; or a file; null: random",
        ),
    ]:
        assert here in model["quickstart"]
        model["quickstart"] = model["quickstart"].replace(here, there)
    assert model["quickstart"] == model["ms_sincresnet"]
