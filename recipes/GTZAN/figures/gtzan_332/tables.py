"""Prints the tables of README.md, from the predictions next to this file."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from scipy.stats import binomtest

from ms_sincresnet.files import as_markdown
from ms_sincresnet.nnet.calibration import calibration_error, fit_temperature
from ms_sincresnet.plots.calibration import plot_reliability

HERE = Path(__file__).parent
PAIRS = [
    ("ms_sincresnet, learned", "ms_sincresnet, fixed"),
    ("ms_sincresnet, learned", "ms_sincresnet"),
    ("ms_sincresnet, learned, linear", "ms_sincresnet, fixed, linear"),
    ("ms_sincresnet, learned, random edges", "ms_sincresnet, fixed, random edges"),
    ("ms_sincresnet", "sincresnet"),
    ("ms_sincresnet", "mel_resnet"),
    ("ms_sincresnet_plus", "ms_sincresnet, learned"),
    ("mel_resnet, plus", "mel_resnet"),
    ("ms_sincresnet_plus", "musicnn, logistic regression"),
    ("ms_sincresnet_plus", "ms_sincresnet_plus + mel_resnet"),
]


def share(right: pd.Series) -> str:
    """Share of right predictions in %, with Wilson's interval of 95 %."""
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * right.mean():.1f} [{low:.1f}, {high:.1f}]"


def loss_difference(a: pd.Series, b: pd.Series) -> str:
    """Mean difference of log losses, with its bootstrap interval of 95 %."""
    differences = (a - b).to_numpy()
    draws = np.random.default_rng(0).choice(differences, (5000, len(differences)))
    low, high = np.percentile(draws.mean(1), [2.5, 97.5])
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def measures(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """Accuracy, mean posterior of the predictions, calibration error, and log loss."""
    confidence, right = np.exp(scores.max(1)), scores.argmax(1) == labels
    loss = -scores[np.arange(len(labels)), labels].mean()
    return [right.mean(), confidence.mean(), calibration_error(confidence, right), loss]


def compare_systems(table: pd.DataFrame) -> None:
    """Prints the systems, pairs of them, and the switches that were tried."""
    genres = sorted(table.genre.unique())
    table["right"] = table.genre.astype(str) == table.predicted.astype(str)
    own = table[genres].to_numpy()[range(len(table)), [*map(genres.index, table.genre)]]
    table["loss"] = -np.log(np.maximum(own, 1e-4))
    first = table[table.seed < 2]
    systems = {name: rows.set_index("ID") for name, rows in first.groupby("system")}
    plus, mel = systems["ms_sincresnet_plus"], systems["mel_resnet"]
    both = (plus[genres] + mel.loc[plus.index, genres]) / 2
    fused = plus.assign(right=both.idxmax(axis=1) == plus.genre.astype(str), clips=0)
    fused["loss"] = [-np.log(both.loc[i, g]) for i, g in plus.genre.astype(str).items()]
    systems["ms_sincresnet_plus + mel_resnet"] = fused
    rows = []
    for name, system in systems.items():
        if len(system) == 332:
            right, clips = system.right, (system.clips_right / system.clips).mean()
            shares = map(share, (right, right[system.mini], right[~system.mini]))
            of_clips = f"{100 * clips:.1f}" if clips <= 1 else "–"
            rows.append([name, *shares, of_clips, f"{system.loss.mean():.3f}"])
    header = ["system", "songs, %", "mini copy", "others", "clips, %", "log loss"]
    print(as_markdown(header, rows))

    rows = []
    for names in PAIRS:
        a, b = (systems[name].loc[systems[names[0]].index] for name in names)
        alone = [(a.right & ~b.right).sum(), (b.right & ~a.right).sum()]
        p = f"{binomtest(alone[0], sum(alone)).pvalue:.2f}"
        rows.append([*names, len(a), *alone, p, loss_difference(a.loss, b.loss)])
    header = ["A", "B", "tracks", "only A right", "only B", "p", "log loss, A − B"]
    print(as_markdown(header, rows))
    for a, b in PAIRS[5:7]:
        new = systems[a][systems[a].fold > 0]  # tracks that chose no switch
        other = systems[b].loc[new.index]
        loss = loss_difference(new.loss, other.loss)
        shares = f"{share(new.right)} {a}, {share(other.right)} {b}"
        print(f"Folds 1 and 2: {shares}; log loss {loss}\n")

    rows = []
    chosen = table[(table.fold == 0) & table.seed.isin([1, 2])]
    for name, system in chosen.groupby("system", observed=True):
        if str(name).startswith("mel") and "plus" not in name:
            clips = system.clips_right.sum() / system.clips.sum()
            shares = f"{100 * system.right.mean():.1f}", f"{100 * clips:.1f}"
            rows.append([name, *shares, f"{system.loss.mean():.3f}"])
    print(as_markdown(["switch", "songs, %", "clips, %", "log loss"], rows))


def compare_hops(clips: pd.DataFrame) -> None:
    """Prints precisions and hops, and the confusion matrix of the first of them."""
    truth, found, rows = clips.groupby("ID").genre.first().astype(str), {}, []
    for precision in ("fp32", "bf16"):
        for step in (1, 2, 3, 4, 6):
            some = clips[clips["clip"] % step == 0].filter(like=precision)
            genre = np.exp(some).groupby("ID").mean().idxmax(axis=1).str[5:]
            first = found.setdefault("first", genre)
            same = f"{100 * (genre == first).mean():.1f} %"
            rows.append([f"{precision}, {step / 2:g} s", share(genre == truth), same])
    print(as_markdown(["precision, hop", "songs, %", "as the first row"], rows))
    print(pd.crosstab(truth, first).to_string())


def calibrate(clips: pd.DataFrame) -> None:
    """Prints the bundled model's temperature and what it does; draws reliability.png.

    It is fitted on whole tracks; for the figures of a fold, on those of the others.
    """
    some = clips[clips["clip"] % 6 == 0]  # a hop of 3 s
    posteriors = np.exp(some.filter(like="fp32").astype(float)).groupby("ID").mean()
    before = log_softmax(np.log(posteriors.to_numpy()), 1)
    songs = some.groupby("ID")[["genre", "fold", "mini"]].first()
    labels = pd.Categorical("fp32_" + songs.genre.astype(str), posteriors.columns).codes
    whole = (some.groupby("ID").size() >= 9).to_numpy()
    print(f"temperature: {fit_temperature(before[whole], labels[whole]):.3g}")
    after = before.copy()
    for mine in (songs.fold.to_numpy() == fold for fold in range(3)):
        temperature = fit_temperature(before[whole & ~mine], labels[whole & ~mine])
        after[mine] = log_softmax(before[mine] / temperature, 1)
    table, groups = {}, {"whole": whole, "mini copy": songs.mini, "not whole": ~whole}
    for name, group in groups.items():
        group, cells = np.flatnonzero(group), []
        draws = np.random.default_rng(0).choice(group, (2000, len(group)))
        for scores in (before, after):
            drawn = [measures(scores[some], labels[some]) for some in draws]
            ends = np.percentile(drawn, [2.5, 97.5], axis=0)
            rows = zip(measures(scores[group], labels[group]), *ends, strict=True)
            cells.append(["{:.3f} [{:.3f}, {:.3f}]".format(*row) for row in rows])
        table[f"{name}, {len(group)}"] = [*map(" → ".join, zip(*cells, strict=True))]
    print(pd.DataFrame(table, ["right", "posterior", "ECE", "log loss"]).T.to_string())
    right = (after.argmax(1) == labels)[whole]
    figure = plot_reliability(np.exp(after[whole].max(1)), right, "145 whole tracks")
    figure.savefig(HERE / "reliability.png", dpi=120)


if __name__ == "__main__":
    compare_systems(pd.read_parquet(HERE / "predictions.parquet"))
    scored = pd.read_parquet(HERE / "out_of_fold.parquet").set_index("ID")
    scored.index = scored.index.astype(str)
    compare_hops(scored)
    calibrate(scored)
