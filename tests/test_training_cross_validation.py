"""Folds are run once, whatever happens, and summed up as by hand.

Most tests run a script that leaves in a moment what train.py leaves in hours.
"""

import fcntl
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import cross_validate as recipe
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from ms_sincresnet.data.synthetic import make_synthetic_gtzan
from ms_sincresnet.errors import HparamError, UserError
from ms_sincresnet.training.cross_validation import (
    clopper_pearson_interval,
    cross_validate,
    describe,
    note_options,
    share_machine,
    student_interval,
    summarize_folds,
)

GENRES = ["blues", "jazz", "rock"]

# Writes the files of train.py in their order. behaviour.json tells what befalls a fold.
STUB = """
import json, os, sys, time
from pathlib import Path

here = Path(__file__).parent
options = dict(word[2:].split("=", 1) for word in sys.argv[2:] if "=" in word)
fold, folder = int(options["fold"]), Path(options["output_folder"])

def log(what):
    with (here / "log.txt").open("a") as file:
        print(fold, what, file=file)

behaviour = json.loads((here / "behaviour.json").read_text()).get(str(fold), {})
log("starts")
print("epoch 1 of fold", fold, flush=True)
(folder / "save" / "CKPT+1").mkdir(parents=True, exist_ok=True)
try:
    time.sleep(behaviour.get("sleeps", 0))
    while behaviour.get("waits_for", "") not in (here / "log.txt").read_text():
        time.sleep(0.02)
except KeyboardInterrupt:
    log("interrupted")
    sys.exit("interrupted")
if "error" in behaviour:
    print("a warning\\\\r 50%\\\\r100%", flush=True)
    sys.exit(behaviour["error"])
if "killed" in behaviour:
    os.kill(os.getpid(), 9)
(folder / "arguments.json").write_text(json.dumps(sys.argv[1:]))
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
predicted = ["blues", "jazz", "rock" if fold == 1 else "jazz"]
lines = ["ID,genre,predicted,clips"]
genres = ["blues", "jazz", "rock"]
for genre, name in zip(genres, predicted):
    lines.append(f"{genre}.{fold},{genre},{name},{fold + 1}")
(folder / "test_predictions.csv").write_text("\\\\n".join(lines))
matrix = ["genre,blues,jazz,rock", "blues,1,0,0", "jazz,0,1,0"]
matrix.append("rock,0,0,1" if fold == 1 else "rock,0,1,0")
(folder / "confusion_matrix.csv").write_text("\\\\n".join(matrix))
right = 3 if fold == 1 else 2
summary = {"dataset": "toy", "song_accuracy": right / 3, "clip_accuracy": fold / 10}
summary |= {"tracks": 3, "clips": 3 * (fold + 1), "epoch": 7}
(folder / "test_summary.json").write_text(json.dumps(summary))
if "no model" not in behaviour:
    (folder / "model").mkdir(exist_ok=True)
    for name in ("embedding_model", "classifier", "label_encoder"):
        (folder / "model" / f"{name}.ckpt").touch()
    yaml = "modules:\\\\npretrainer:\\\\n"
    (folder / "model" / "hyperparams.yaml").write_text(yaml)
log("ends")
""".replace("\\\\", "\\")

HPARAMS = """
data_folder: null
fold: 0
seed: 1234
n_folds: 3
protocol: random
kernel_sizes: [251, 501]
max_grad_norm: .inf
num_workers: 2
output_folder: !ref results/fold_<fold>
save_folder: !ref <output_folder>/save
"""


class Recipe:
    """The stub, its yaml file and what they did."""

    def __init__(self, folder):
        self.folder = folder
        self.script, self.hparams_file = folder / "train.py", folder / "small.yaml"
        self.results = folder / "results"
        self.script.write_text(STUB)
        self.hparams_file.write_text(HPARAMS)
        self.behave()

    def behave(self, **behaviour):
        """Decides what befalls the folds, as fold_1={"error": …}."""
        behaviour = {
            name.removeprefix("fold_"): what for name, what in behaviour.items()
        }
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def run(self, *words, n_folds=3, folds=None, jobs=1):
        """Cross-validates."""
        return cross_validate(
            self.script,
            self.hparams_file,
            list(words),
            self.results,
            n_folds=n_folds,
            folds=range(n_folds) if folds is None else folds,
            jobs=jobs,
        )

    def log(self):
        """What the stub did, in order."""
        path = self.folder / "log.txt"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, line):
        """Waits until the stub has done something."""
        deadline = time.monotonic() + 30
        while line not in self.log():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr("ms_sincresnet.training.cross_validation.POLL_S", 0.02)
    return Recipe(tmp_path)


def test_student_interval_is_that_of_the_sleep_data():
    # Student 1908; R's t.test of the ten differences says -2.4598858 and -0.7001142.
    differences = [-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4]
    assert student_interval(differences) == pytest.approx((-2.4598858, -0.7001142))


@pytest.mark.parametrize(("right", "tracks"), [(16, 20), (1, 7), (832, 1000)])
def test_clopper_pearson_leaves_a_fortieth_at_each_end(right, tracks):
    low, high = clopper_pearson_interval(right, tracks)
    assert stats.binom.sf(right - 1, tracks, low) == pytest.approx(0.025)
    assert stats.binom.cdf(right, tracks, high) == pytest.approx(0.025)


def test_clopper_pearson_at_the_ends():
    assert clopper_pearson_interval(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert clopper_pearson_interval(10, 10) == pytest.approx((0.025**0.1, 1))


def test_summary_is_that_counted_by_hand(small):
    summary = small.run()
    assert small.log() == [
        f"{n} {what}" for n in range(3) for what in ("starts", "ends")
    ]
    songs, clips = summary["song_accuracy"], summary["clip_accuracy"]
    assert songs["mean"] == pytest.approx(7 / 9)
    assert songs["sd"] == pytest.approx(np.sqrt(1 / 27))  # of 2/3, 1 and 2/3
    assert clips["mean"] == pytest.approx(0.1) and clips["sd"] == pytest.approx(0.1)
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom, from tables
    assert 0.1 - half < 0, "no accuracy is"
    assert clips["interval"] == pytest.approx([0, 0.1 + half], rel=1e-6)
    pooled = summary["pooled_song_accuracy"]
    assert pooled["right"] == 7 and pooled["accuracy"] == pytest.approx(7 / 9)
    assert (summary["tracks"], summary["clips"]) == (9, 18)
    assert (summary["folds_done"], summary["n_folds"]) == (3, 3)
    assert (summary["system"], summary["dataset"]) == ("small", "toy")
    assert [fold["fold"] for fold in summary["folds"]] == [0, 1, 2]
    assert json.loads((small.results / "summary.json").read_text()) == summary

    predictions = pd.read_csv(small.results / "predictions.csv")
    assert list(predictions.columns) == ["fold", "ID", "genre", "predicted", "clips"]
    assert (
        predictions.ID.is_unique and (predictions.clips == predictions.fold + 1).all()
    )
    matrix = pd.read_csv(small.results / "confusion_matrix.csv", index_col="genre")
    assert matrix.loc["rock"].to_dict() == {"blues": 0, "jazz": 2, "rock": 1}
    assert np.trace(matrix) == 7 and list(matrix.columns) == GENRES
    assert (small.results / "confusion_matrix.png").stat().st_size > 5000


def test_some_folds_make_a_summary_too(small):
    summary = small.run(folds=[1])
    assert summary["song_accuracy"] == {"mean": 1.0, "sd": None, "interval": None}
    assert describe(summary).splitlines()[0] == "1 of 3 folds"
    small.run(folds=[2])
    assert describe(small.run(folds=[2])).startswith("2 of 3 folds: mean ±")
    assert len(small.log()) == 4, "each once"


def test_options_reach_each_fold(small):
    small.run("--seed=7", "--precision=bf16", folds=[2])
    folder = small.results / "fold_2"
    hparams_file, *words = json.loads((folder / "arguments.json").read_text())
    assert hparams_file == str(small.hparams_file)
    expected = {"--seed=7", "--precision=bf16", "--n_folds=3", "--fold=2"}
    assert set(words) == expected | {f"--output_folder={folder}"}
    terminal = (folder / "terminal.txt").read_text().splitlines()
    assert terminal[0].startswith("$ ") and "--fold=2" in terminal[0]
    assert terminal[1] == "epoch 1 of fold 2"


def test_a_failing_fold_ends_the_others_and_keeps_their_results(small):
    small.behave(
        fold_1={"waits_for": "2 starts", "error": "error: no data\nget some"},
        fold_2={"sleeps": 60},
    )
    with pytest.raises(UserError) as error:
        small.run(jobs=2)
    message = str(error.value)
    assert message.startswith("fold 1 failed (exit status 1)")
    assert message.endswith("ends with\nerror: no data\nget some")
    assert str(small.results / "fold_1" / "terminal.txt") in message
    assert "2 interrupted" in small.log() and "2 ends" not in small.log()
    summary = json.loads((small.results / "summary.json").read_text())
    assert [fold["fold"] for fold in summary["folds"]] == [0]

    small.behave()
    assert small.run(jobs=2)["folds_done"] == 3
    assert small.log().count("0 starts") == 1, "done before"


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"killed": True}, "killed by SIGKILL"),
        ({"error": "Traceback: no error of ours"}, "100%\nTraceback: no error of ours"),
        ({"no model": True}, "exit status 0"),
    ],
)
def test_whatever_ends_a_fold_is_told(small, behaviour, said):
    small.behave(fold_0=behaviour)
    with pytest.raises(UserError, match=said):
        small.run()
    small.behave()
    small.run()
    assert small.log().count("0 starts") == 2, "not finished the first time"


@pytest.mark.parametrize("name", ["test_summary.json", "model/classifier.ckpt"])
def test_a_fold_that_lacks_something_is_run_again(small, name):
    small.run()
    (small.results / "fold_1" / name).unlink()
    assert small.run()["folds_done"] == 3
    assert small.log().count("1 starts") == 2


def test_an_old_error_is_not_told_again(small):
    small.behave(fold_0={"error": "error: the first"})
    with pytest.raises(UserError, match="the first"):
        small.run()
    small.behave(fold_0={"error": "another"})
    with pytest.raises(UserError, match="another") as error:
        small.run()
    assert "the first" not in str(error.value)


def in_a_process(function):
    """A fork that runs a function: it can be killed."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


def test_a_killed_call_goes_on_and_repeats_nothing(small):
    small.behave(fold_1={"sleeps": 2})
    process = in_a_process(small.run)
    small.wait_for("1 starts")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    summary = small.run()  # waits for fold 1, which the kill has left alone
    assert summary["folds_done"] == 3
    assert sorted(small.log()) == [
        f"{n} {what}" for n in range(3) for what in ("ends", "starts")
    ]


def test_an_interrupt_ends_the_folds(small, capfd):
    small.behave(fold_1={"sleeps": 30}, fold_2={"sleeps": 30})
    process = in_a_process(lambda: small.run(jobs=3))
    small.wait_for("1 starts")
    small.wait_for("2 starts")
    small.wait_for("0 ends")
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 1
    assert {"1 interrupted", "2 interrupted"} <= set(small.log())
    small.behave()
    assert small.run()["folds_done"] == 3
    assert small.log().count("0 starts") == 1


def test_two_calls_share_the_work(small):
    small.behave(**{f"fold_{n}": {"sleeps": 0.3} for n in range(3)})
    processes = [in_a_process(small.run) for _ in range(2)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    starts = [line for line in small.log() if line.endswith("starts")]
    assert sorted(starts) == ["0 starts", "1 starts", "2 starts"]
    assert starts[:2] == small.log()[:2], "two at a time"


def test_a_file_system_may_have_no_locks(small, monkeypatch):
    def flock(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert small.run()["folds_done"] == 3


def test_other_options_are_refused(small):
    small.run(f"--data_folder={small.folder}", "--device=cpu", folds=[0])
    same = f"--data_folder={small.folder}/results/.."
    small.run(same, "--seed=1234", "--device=cuda:1", "--num_workers=0", folds=[1])
    for words, differences in [
        ([same, "--seed=5"], "seed was 1234, is 5 now"),
        ([same, "--kernel_sizes=[251, 1001]"], "was not given, is [251, 1001] now"),
        ([same, "--precision=bf16"], "precision was not given, is bf16 now"),
        ([], f"data_folder was {small.folder}, is not given now"),
    ]:
        with pytest.raises(HparamError) as error:
            small.run(*words)
        assert differences in str(error.value) and str(small.results) in str(
            error.value
        )
    with pytest.raises(HparamError, match="n_folds was 3, is 4 now"):
        small.run(same, n_folds=4)
    text = small.hparams_file.read_text().replace(".inf", "5.0")
    small.hparams_file.write_text(text)
    with pytest.raises(HparamError, match="max_grad_norm was inf, is 5.0 now"):
        small.run(same)
    assert len(small.log()) == 4


def test_options_are_free_until_something_is_learned(small):
    note_options(small.results, {"seed": 1})
    (small.results / "fold_0" / "save").mkdir(parents=True)
    note_options(small.results, {"seed": 2})
    noted = yaml.safe_load((small.results / "options.yaml").read_text())
    assert noted == {"seed": 2}


def test_options_are_part_of_the_summary(small):
    summary = small.run("--seed=7", f"--data_folder={small.folder}", "--device=cpu")
    assert summary["options"] == {"seed": 7, "device": "cpu"}


def test_runs_of_train_py_are_summed_up_without_a_note(small):
    small.run("--seed=7")
    (small.results / "options.yaml").unlink()
    summary = small.run()
    assert summary["folds_done"] == 3 and summary["options"] is None
    assert not (small.results / "options.yaml").exists()
    assert len(small.log()) == 6


def test_a_fold_of_another_split_is_refused(small):
    folder = small.results / "fold_2" / "manifests"
    folder.mkdir(parents=True)
    report = {"options": {"fold": 2, "n_folds": 10, "seed": 1234}}
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(HparamError, match="fold_2: it was split with n_folds=10, exp"):
        small.run()
    small.run(n_folds=10, folds=[2])


def test_folds_with_one_track_are_no_split(small):
    small.run()
    (small.results / "fold_1").rename(small.results / "away")
    path = small.results / "fold_2" / "test_predictions.csv"
    path.write_text(path.read_text().replace("jazz.2", "jazz.0"))
    with pytest.raises(UserError, match="folds 0 and 2 both tested jazz.0"):
        summarize_folds(small.results, 3)


def test_a_damaged_summary_is_named(small):
    small.run()
    path = small.results / "fold_1" / "test_summary.json"
    path.write_text('{"song_accu')
    with pytest.raises(UserError, match="fold_1/test_summary.json: not json"):
        small.run()


def test_folds_share_processor_and_gpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert share_machine(1) == [dict(os.environ)]
    added = {"OMP_NUM_THREADS": "2"}
    assert share_machine(3) == [dict(os.environ) | added] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpus = [one["CUDA_VISIBLE_DEVICES"] for one in share_machine(3, "cuda")]
    assert gpus == ["0", "1", "0"]
    assert "CUDA_VISIBLE_DEVICES" not in share_machine(3, "cuda:1")[0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    first, second = share_machine(2)
    assert (first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]) == ("4", "7")
    assert first["OMP_NUM_THREADS"] == "5"


@pytest.fixture
def stubbed(small, monkeypatch):
    """cross_validate.py of the recipe with the stub for its train.py."""
    monkeypatch.setattr(recipe, "TRAIN", small.script)
    monkeypatch.chdir(small.folder)
    return small


def test_command_line(stubbed, capsys):
    recipe.main(["small.yaml", "--folds=2,0", "--seed=5", "--data_folder", "GTZAN"])
    folder = Path("results", "small", "cross_validation", "seed_5")
    summary = json.loads((folder / "summary.json").read_text())
    assert [fold["fold"] for fold in summary["folds"]] == [0, 2]
    words = json.loads((folder / "fold_0" / "arguments.json").read_text())
    assert words[1:4] == ["--seed=5", "--data_folder", "GTZAN"]
    printed = capsys.readouterr().out
    assert "fold 2: 66.7 % of 3 songs, 20.0 % of 9 clips" in printed
    assert f"{folder}: 2 of 3 folds: mean" in printed
    recipe.main(["small.yaml", "--n_folds=2", "--output_folder=here"])
    assert Path("here", "fold_1", "model").is_dir()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--fold=1"], ["--fold: each fold gets its own", "--folds"]),
        (["--save_folder=x"], ["--save_folder: each fold gets its own"]),
        (["--folds=0,3"], ["from 0 to 2", "'0,3'"]),
        (["--folds=first"], ["from 0 to 2", "'first'"]),
        (["--n_folds=1"], ["--n_folds", "2 or more"]),
        (["--protocol=filtered"], ["one split", "train.py small.yaml"]),
        (["--sead=1"], ["did you mean --seed?"]),
        (["--output_folder=small.yaml"], ["small.yaml: cannot be made"]),
    ],
)
def test_mistakes_are_named(stubbed, words, parts):
    with pytest.raises(UserError) as error:
        recipe.main(["small.yaml", *words])
    for part in parts:
        assert part in str(error.value)
    assert stubbed.log() == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["small.yaml", "--table1"],
        ["small.yaml", "--rows=mel_resnet"],
        ["small.yaml", "--jobs=0"],
        ["small.yaml", "--n_folds=ten"],
    ],
)
def test_usage_is_shown(stubbed, words, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(words)
    assert error.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_table1_is_written_beside_the_papers(stubbed, capsys):
    rows = "--rows=sincnet_k80_l251,ms_sincresnet_k160_spp"
    recipe.main(["--table1", rows, "--n_folds=2", "--resnet_weights=null"])
    folder = Path("results", "table1")
    table = pd.read_csv(folder / "table1.csv", dtype={"K": str}).set_index("row")
    assert len(table) == 17
    assert list(table.index[table["mean"].notna()]) == rows[7:].split(",")
    assert table["mean"].dropna().tolist() == [83.33, 83.33]  # of 2/3 and 1
    assert table.sd.dropna().tolist() == [23.57, 23.57]
    assert table.paper_GTZAN["mel_resnet"] == 85.49
    lines = (folder / "table1.md").read_text().splitlines()
    assert len(lines) == 2 + 2 + 17
    assert lines[-1] == (
        "| MS-SincResNet | 160 | 251, 501, 1001 | yes | toy | 2 of 2 | 83.33 ± 23.57 "
        "| 91.49 | 91.91 |"
    )
    mel = "| ResNet (mel-spectrogram) |  |  |  |  |  |  | 85.49 | 88.34 |"
    assert mel in lines
    for row, expected in [
        ("sincnet_k80_l251", ["--n_filters=80", "--kernel_size=251"]),
        ("ms_sincresnet_k160_spp", ["--pooling=spp", "--resnet_weights=null"]),
    ]:
        words = json.loads((folder / row / "fold_0" / "arguments.json").read_text())
        assert set(expected) <= set(words)
    assert len(stubbed.log()) == 8
    recipe.main(["--table1", rows, "--n_folds=2", "--resnet_weights=null"])
    assert len(stubbed.log()) == 8, "finished"


def test_table1_is_written_when_a_row_fails(stubbed):
    stubbed.behave(fold_1={"error": "error: no"})
    with pytest.raises(UserError, match="row sincnet_k80_l251: fold 1 failed"):
        recipe.main(["--table1"])
    table = pd.read_csv(Path("results", "table1", "table1.csv"))
    assert table.folds.dropna().tolist() == ["1 of 10"]
    assert table["mean"].dropna().tolist() == [66.67] and table.sd.isna().all()
    text = Path("results", "table1", "table1.md").read_text()
    assert "| toy | 1 of 10 | 66.67 | 73.98 | 81.34 |" in text


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--rows=sincnet"], "--rows: no row 'sincnet' in Table 1; expected some of"),
        (["--n_filters=8"], "--n_filters: the rows of Table 1 set it"),
        (["--n_filter=8"], "--n_filter: no such hparam in any of the rows' files"),
        (["--rows=mel_resnet", "--kernel_sizes=[3]"], "--kernel_sizes: no such hparam"),
        (["--protocol=filtered"], "row sincnet_k80_l251: protocol: 'filtered' is one"),
    ],
)
def test_mistakes_in_table1_are_named(stubbed, words, part):
    with pytest.raises(UserError) as error:
        recipe.main(["--table1", *words])
    assert part in str(error.value)
    assert stubbed.log() == []


def test_parameters_are_counted(stubbed, capsys):
    recipe.main(["--parameters", "--rows=ms_sincresnet_k160_spp,mel_resnet"])
    resnet = 11_176_512  # torchvision's resnet18 without its last layer
    mel = resnet + 513 * 512 + 513 * 10
    bank = 2 * 160 + 2 * 160  # cut-offs, batch norm
    ours = resnet + 3 * bank + (5 * 512 + 1) * 512 + 513 * 10
    expected = [f"| mel_resnet | {mel:,} |", f"| ms_sincresnet_k160_spp | {ours:,} |"]
    assert capsys.readouterr().out.splitlines()[2:] == expected
    assert list(stubbed.folder.glob("results")) == [], "nothing is run"


def test_train_py_itself_is_cross_validated(tmp_path, monkeypatch):
    """A fold of the recipe, with small filterbanks, on synthetic music."""
    monkeypatch.chdir(recipe.HERE)
    data_folder = make_synthetic_gtzan(tmp_path / "a b", n_tracks=3, duration_s=0.5)
    hparams = {
        "data_folder": data_folder,
        "cache_folder": tmp_path / "audio_16k",
        "n_filters": 8,
        "n_frames": 32,
        "clip_samples": 8000,
        "number_of_epochs": 1,
        "clips_per_track": 1,
        "valid_fraction": 0.5,
        "num_workers": 0,
        "resnet_weights": "null",
    }
    words = [f"--{name}={value}" for name, value in hparams.items()]
    words += ["--n_folds=3", f"--output_folder={tmp_path / 'out'}", "--device=cpu"]
    recipe.main(["hparams/ms_sincresnet.yaml", *words, "--folds=1"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["folds_done"], summary["tracks"]) == (1, 10)
    assert summary["options"]["n_filters"] == 8
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv")
    right = (predictions.genre == predictions.predicted).sum()
    assert summary["pooled_song_accuracy"]["right"] == right
    terminal = tmp_path / "out" / "fold_1" / "terminal.txt"
    said = terminal.read_text()
    recipe.main(["hparams/ms_sincresnet.yaml", *words, "--folds=1"])
    assert terminal.read_text() == said, "finished"
