"""Comparisons come to what the literature and other formulas say."""

import numpy as np
import pandas as pd
import pytest
import torch

from ms_sincresnet.errors import UserError
from ms_sincresnet.inference.fusion import sum_rule
from ms_sincresnet.training.comparison import (
    compare,
    compare_sources,
    fuse_predictions,
    read_predictions,
    shared_tracks,
)
from ms_sincresnet.training.scores import StageScores

GENRES = ["blues", "jazz", "rock"]
COUNTS = ("both", "only_first", "only_second", "neither")


def compare_counts(*counts):
    """Compares two models of which so many tracks are right in both, one and none."""
    first, second = ([True, True, False, False], [True, False, True, False])
    return compare(np.repeat(first, counts), np.repeat(second, counts))


def write(folder, predicted, name="predictions.csv", genre="jazz"):
    """The folder of a model with these predictions of tracks of a single genre."""
    folder.mkdir()
    table = pd.DataFrame({"genre": genre, "predicted": predicted})
    table.rename_axis("ID").to_csv(folder / name)
    return folder


def test_a_published_table_is_compared_as_published():
    # A. Agresti, "Categorical Data Analysis", 2nd ed. 2002, Table 10.1: who approved of
    # a prime minister in each of two surveys of the same 1600 voters.
    counts = 794, 150, 86, 570
    comparison = compare_counts(*counts)
    assert tuple(comparison[name] for name in COUNTS) == counts
    assert comparison["difference"] == pytest.approx(100 * (944 - 880) / 1600)
    # Section 10.1.2: 0.04 ± 1.96 · 0.0095, paired; unpaired it would be far wider.
    assert comparison["low"] == pytest.approx(2.13, abs=0.1)
    assert comparison["high"] == pytest.approx(5.87, abs=0.1)
    # R's mcnemar.test, by the chi-squared distribution: 3.099e-05 without continuity
    # correction, 4.115e-05 with it, which is a little too careful.
    assert 3.099e-5 < comparison["p"] < 4.115e-5
    assert compare_counts(*counts) == comparison, "seeded"


def test_only_tracks_of_both_models_count(tmp_path):
    a = write(tmp_path / "a", {"1": "jazz", "2": "jazz", "3": "rock", "4": "rock"})
    b = write(tmp_path / "b", {"4": "jazz", "3": "rock", "2": "jazz", "9": "jazz"})
    assert compare_sources([a, b]).splitlines() == [
        "3 tracks shared by all",
        f"  {a}: 1 right, 33.3 % (1 more tested)",
        f"  {b}: 2 right, 66.7 % (1 more tested)",
        "",
        f"first: {a}",
        f"second: {b}",
        "right: both 1, the first alone 0, the second alone 1, neither 1",
        "first − second: -33.3 points, 95 % interval -100.0 to +0.0 (bootstrap over "
        "tracks)",
        "McNemar's exact test: p = 1",
    ]


def test_predictions_of_a_single_run_and_a_file_are_read(tmp_path):
    run = write(tmp_path / "run", {"None": "rock"}, "test_predictions.csv", "None")
    assert read_predictions(run).equals(read_predictions(run / "test_predictions.csv"))
    assert read_predictions(run).genre["None"] == "None", "a name, not a gap"


def test_fusion_decides_as_fused_models_do():
    logits = torch.randn(3, 40, 5, 3, generator=torch.manual_seed(0))
    clips = (2 * logits).log_softmax(-1)  # [models, tracks, clips, genres]
    tables = {}
    for n, model in enumerate(clips):
        scores = StageScores()
        for track, log_posteriors in enumerate(model):
            scores.add(f"track {track:02}", 0, log_posteriors)
        tables[n] = scores.predictions(GENRES).set_index("ID")
    tables[1] = tables[1][tables[1].columns[::-1]]  # genres in any order
    expected = sum_rule(clips).exp().mean(1).argmax(1)
    fused = fuse_predictions(shared_tracks(tables))
    assert [GENRES.index(genre) for genre in fused] == expected.tolist()
    assert (fused != tables[0].predicted).any(), "or the test tests nothing"


def test_fusion_is_compared_with_each_system(tmp_path):
    columns = ["genre", "predicted", "posterior_jazz", "posterior_rock"]
    tracks = {
        "a": [["jazz", "jazz", 0.9, 0.1], ["rock", "jazz", 0.6, 0.4]],
        "b": [["jazz", "rock", 0.4, 0.6], ["rock", "rock", 0.1, 0.9]],
        "c": [["jazz", "rock", 0.3, 0.7], ["rock", "rock", 0.2, 0.8]],
    }
    for name, rows in tracks.items():
        (tmp_path / name).mkdir()
        frame = pd.DataFrame(rows, columns=columns).rename_axis("ID")
        frame.to_csv(tmp_path / name / "predictions.csv")
    report = compare_sources([tmp_path / name for name in tracks], fuse=True)
    _, *systems = (line.split(": ")[-1] for line in report.splitlines()[:5])
    assert systems == ["1 right, 50.0 %"] * 3 + ["2 right, 100.0 %"]
    assert report.count("first: fused by the sum rule\n") == 3
    assert report.count("first − second: +50.0 points") == 3


@pytest.fixture
def broken(tmp_path):
    """Sources that users may give, by name."""
    write(tmp_path / "a", {"1": "jazz", "2": "jazz"})
    write(tmp_path / "elsewhere", {"2": "jazz", "9": "jazz"})
    write(tmp_path / "of rock", {"1": "jazz", "2": "rock"}, genre="rock")
    rows = "ID,genre,predicted,posterior_{}\n1,jazz,jazz,1\n2,jazz,jazz,{}\n"
    texts = {"other": "a,b\n1,2\n", "pop": rows.format("pop", "0.5")}
    texts |= {"jazz": rows.format("jazz", 0.5), "diverged": rows.format("jazz", "")}
    texts |= {"twins": "ID,genre,predicted\n1,jazz,jazz\n1,jazz,rock\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a", "nowhere"], "nowhere: no predictions found"),
        (["a", "other.csv"], r"other.csv: .*ID, genre, predicted missing"),
        (["a", "twins.csv"], "twins.csv: .*one row per track; 1 has more"),
        (["a", "elsewhere"], r"elsewhere: .*share 1 \(of 2, 2\)"),
        (["a", "of rock"], "1 is jazz in .*a and rock in"),
        (["a", "jazz.csv", "pop.csv"], "expected two models, .*--fuse"),
        (["jazz.csv", "pop.csv", "--fuse"], "posterior_pop here and posterior_j"),
        (["jazz.csv", "diverged.csv", "--fuse"], "diverged.csv: 2 has no posteriors"),
    ],
)
def test_mistakes_are_named(sources, message, broken):
    paths = [broken / source for source in sources if source != "--fuse"]
    with pytest.raises(UserError, match=message):
        compare_sources(paths, fuse="--fuse" in sources)
