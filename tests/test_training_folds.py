"""Folds are run once, whatever happens, and summed up as by hand."""

import re
import subprocess
from pathlib import Path

import cross_validate as recipe
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ms_sincresnet.errors import HparamError, UserError
from ms_sincresnet.files import read_json, write_json
from ms_sincresnet.training.folds import run_folds, write_summary

HPARAMS = """
data_folder: null
fold: 0
seed: 1234
n_folds: 3
protocol: random
kernel_sizes: [251, 501]
num_workers: 2
output_folder: !ref results/fold_<fold>
"""


class Recipe:
    """A yaml file, and what replaces its train.py."""

    def __init__(self, folder):
        self.results = folder / "results"
        self.log = []  # folds that were started
        self.accidents = {}  # by fold, an exit status or an exception
        (folder / "small.yaml").write_text(HPARAMS)

    def train(self, command):
        """Leaves the files that train.py leaves, in their order."""
        words = command[2:]
        options = dict(word[2:].split("=", 1) for word in words[1:])
        fold, folder = int(options["fold"]), Path(options["output_folder"])
        self.log.append(fold)
        accident = self.accidents.get(fold, 0)
        if accident is KeyboardInterrupt:
            raise accident
        if accident == 0:
            right = fold == 1  # otherwise its third song is predicted as jazz
            table = pd.DataFrame({"genre": ["blues", "jazz", "rock"]})
            table.insert(0, "ID", table.genre + f".{fold}")
            table["predicted"] = ["blues", "jazz", "rock" if right else "jazz"]
            (folder / "model").mkdir(parents=True, exist_ok=True)
            write_json(words, folder / "arguments.json")
            path = folder / "test_predictions.csv"
            table.assign(clips=fold + 1).to_csv(path, index=False)
            summary = {"dataset": "toy", "song_accuracy": (2 + right) / 3, "epoch": 7}
            summary |= {"clip_accuracy": fold / 10, "tracks": 3, "clips": 3 * fold + 3}
            write_json(summary, folder / "test_summary.json")
            for name in ("config.json", "model.safetensors"):
                (folder / "model" / name).touch()
        return subprocess.CompletedProcess(command, accident)

    def run(self, *words):
        recipe.main(["small.yaml", f"--output_folder={self.results}", *words])
        return read_json(self.results / "summary.json")


@pytest.fixture
def small(tmp_path, monkeypatch):
    small = Recipe(tmp_path)
    monkeypatch.setattr(subprocess, "run", small.train)
    monkeypatch.chdir(tmp_path)
    return small


def test_summary_is_that_counted_by_hand(small, capsys):
    summary = small.run("--seed=7")
    assert small.log == [0, 1, 2]
    songs, clips = summary["song_accuracy"], summary["clip_accuracy"]
    assert songs["mean"] == pytest.approx(7 / 9)
    assert songs["sd"] == pytest.approx(np.sqrt(1 / 27))  # of 2/3, 1 and 2/3
    assert clips["mean"] == pytest.approx(0.1) and clips["sd"] == pytest.approx(0.1)
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom, from tables
    assert clips["interval"] == pytest.approx([0, 0.1 + half], rel=1e-6)  # not below 0
    pooled = summary["pooled_song_accuracy"]
    assert pooled["right"] == 7 and pooled["accuracy"] == pytest.approx(7 / 9)
    low, high = pooled["interval"]  # a fortieth at each end
    assert stats.binom.sf(6, 9, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 9, high) == pytest.approx(0.025)
    assert (summary["tracks"], summary["clips"]) == (9, 18)
    assert (summary["folds_done"], summary["n_folds"]) == (3, 3)
    assert (summary["system"], summary["dataset"]) == ("small", "toy")
    assert summary["options"] == ["--seed=7"]
    assert [fold["fold"] for fold in summary["folds"]] == [0, 1, 2]
    assert "3 of 3 folds: mean ±" in capsys.readouterr().out

    predictions = pd.read_csv(small.results / "predictions.csv")
    assert list(predictions.columns) == ["fold", "ID", "genre", "predicted", "clips"]
    assert predictions.ID.is_unique
    assert (predictions.clips == predictions.fold + 1).all()
    matrix = pd.read_csv(small.results / "confusion_matrix.csv", index_col="genre")
    assert matrix.loc["rock"].to_dict() == {"blues": 0, "jazz": 2, "rock": 1}
    assert (small.results / "confusion_matrix.png").stat().st_size > 5000


def test_some_folds_make_a_summary_too(small, capsys):
    summary = small.run("--folds=1")
    assert summary["song_accuracy"] == {"mean": 1.0, "sd": None, "interval": None}
    assert "1 of 3 folds\n" in capsys.readouterr().out
    small.run("--folds=2")
    assert small.run("--folds=2,1")["folds_done"] == 2
    assert small.log == [1, 2], "each once"
    small.run("--folds=1", "--device=cuda:1", "--num_workers=0")  # change no figure


def test_options_reach_each_fold(small):
    recipe.main(["small.yaml", "--folds=2,0", "--seed=5", "--precision=bf16"])
    folder = Path("results/small/cross_validation/seed_5")
    words = read_json(folder / "fold_2" / "arguments.json")
    own = ["--fold=2", f"--output_folder={folder / 'fold_2'}"]
    assert words == ["small.yaml", "--seed=5", "--precision=bf16", *own]
    folds = [fold["fold"] for fold in read_json(folder / "summary.json")["folds"]]
    assert folds == [0, 2]
    recipe.main(["small.yaml", "--n_folds=2", "--output_folder=here"])
    assert {path.name for path in Path("here").glob("fold_*")} == {"fold_0", "fold_1"}


def test_a_stopped_call_resumes_and_repeats_nothing(small):
    small.accidents = {1: 1}
    with pytest.raises(UserError, match=r"fold 1 failed \(exit status 1\)"):
        small.run()
    small.accidents = {1: KeyboardInterrupt}
    with pytest.raises(KeyboardInterrupt):
        small.run()
    assert read_json(small.results / "summary.json")["folds_done"] == 1
    small.accidents = {}
    assert small.run()["folds_done"] == 3
    assert small.log == [0, 1, 1, 1, 2]
    for name in ("test_summary.json", "model/model.safetensors"):
        (small.results / "fold_1" / name).unlink()
        assert small.run()["folds_done"] == 3
    assert small.log == [0, 1, 1, 1, 2, 1, 1]


def test_each_fold_is_a_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(HPARAMS)
    Path("train.py").write_text("import sys; sys.exit(len(sys.argv))")
    with pytest.raises(UserError, match=r"fold 0 failed \(exit status 5\)"):
        run_folds("train.py", "small.yaml", ["--seed=7"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--seed=5", "its folds were run with small.yaml; repeat"),
        ("--fould=5", r"did you mean --fold\?"),
        ("--save_folder=x", "--save_folder=x: each fold has its own"),
        ("--protocol=filtered", "single split without folds; run train.py"),
    ],
)
def test_options_that_do_not_fit_are_refused(small, word, message):
    small.run("--folds=0")
    with pytest.raises(HparamError, match=message):
        small.run("--folds=1", word)
    assert small.log == [0]


def test_folds_of_different_splits_are_refused(small):
    small.run()
    (small.results / "fold_1").rename(small.results / "away")
    path = small.results / "fold_2" / "test_predictions.csv"
    path.write_text(path.read_text().replace("jazz.2", "jazz.0"))
    with pytest.raises(UserError, match=r"folds 0 and 2 both tested jazz\.0"):
        write_summary(small.results, 3)


def test_table1_is_written_next_to_the_papers(small):
    rows = "--rows=sincnet_k80_l251,ms_sincresnet_k160_spp"
    words = ["--table1", rows, "--n_folds=2", "--resnet_weights", "null"]
    recipe.main([*words, "--data_folder=GTZAN"])
    folder = Path("results/table1")
    table = pd.read_csv(folder / "table1.csv", dtype={"K": str}).set_index("row")
    assert len(table) == 17
    assert list(table.index[table["mean"].notna()]) == rows[7:].split(",")
    assert table["mean"].dropna().tolist() == [83.33, 83.33]  # of 2/3 and 1
    assert table.sd.dropna().tolist() == [23.57, 23.57]
    assert table.paper_GTZAN["mel_resnet"] == 85.49
    lines = (folder / "table1.md").read_text().splitlines()
    assert len(lines) == 2 + 17
    assert lines[-1].startswith(
        "| ms_sincresnet_k160_spp | MS-SincResNet | 160 | 251, 501, 1001 | yes | toy | "
        "2 of 2 | 83.33 | 23.57 |"
    )
    assert lines[-1].endswith(" | 91.49 | 91.91 |")
    sincnet, ours = (
        read_json(folder / row / "fold_0" / "arguments.json")
        for row in rows.removeprefix("--rows=").split(",")
    )
    assert {"--n_filters=80", "--kernel_size=251"} <= {*sincnet}
    assert {"--pooling=spp", "--resnet_weights=null"} <= {*ours}
    assert "--resnet_weights=null" not in sincnet, "it has none"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows=sincnet"], "--rows: no row sincnet; expected sincnet_k80_l251, "),
        (["--n_filters=8"], "--n_filters: the rows of Table 1 set it"),
        (["--n_filter=8"], "--n_filter: no such hparam in any of the rows' files"),
        ([], "data_folder is missing"),
    ],
)
def test_mistakes_in_table1_are_named(small, words, message):
    with pytest.raises(UserError, match=message):
        recipe.main(["--table1", *words])
    assert small.log == []


def test_parameters_are_counted_as_in_the_readme(small, capsys):
    recipe.main(["--parameters"])
    counts = re.findall(r"\| ([\d,]+) \|$", capsys.readouterr().out, re.MULTILINE)
    readme = (recipe.HERE / "README.md").read_text()
    assert counts == re.findall(r"^\| .*\| (\d+,\d+,\d+) \|", readme, re.MULTILINE)
    bank = 2 * 160 + 2 * 160  # cut-offs, batch norm
    resnet = 11_176_512  # torchvision's resnet18 without its last layer
    ours = resnet + 3 * bank + (5 * 512 + 1) * 512 + 513 * 10
    assert len(counts) == 17 and counts[-1] == f"{ours:,}"


def test_models_are_compared_by_the_same_command(small, capsys):
    for folder in ("a", "b"):
        recipe.main(["small.yaml", "--folds=0,1", f"--output_folder={folder}"])
    recipe.main(["--compare", "a", "b"])
    printed = capsys.readouterr().out
    assert "6 tracks shared by all\n  a: 5 right, 83.3 %\n  b: 5 right" in printed
    with pytest.raises(UserError, match="columns posterior_<genre>"):
        recipe.main(["--compare", "a", "b", "--fuse"])
