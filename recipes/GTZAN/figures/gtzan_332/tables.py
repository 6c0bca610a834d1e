"""Tables of README.md from the predictions that lie beside this file.

python tables.py
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

HERE = Path(__file__).parent
PAPER = {"mel_resnet": 85.49, "sincresnet": 91.08, "ms_sincresnet": 91.49}  # Table 1, %
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


def main() -> None:
    """Prints the tables."""
    table = pd.read_parquet(HERE / "predictions.parquet")
    genres = sorted(table.genre.unique())
    table["right"] = table.genre.astype(str) == table.predicted.astype(str)
    own = [*map(genres.index, table.genre)]
    posteriors = table[genres].to_numpy()
    table["loss"] = -np.log(np.maximum(posteriors[np.arange(len(table)), own], 1e-4))

    print("| system | songs, % | mini copy | others | clips, % | log loss | paper |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    first = table[table.seed.isin([0, 1])]
    systems = {name: rows.set_index("ID") for name, rows in first.groupby("system")}
    plus, mel = systems["ms_sincresnet_plus"], systems["mel_resnet"]
    both = (plus[genres] + mel.loc[plus.index, genres]) / 2
    fused = plus.assign(right=both.idxmax(axis=1) == plus.genre.astype(str), clips=0)
    fused["loss"] = [-np.log(both.loc[i, g]) for i, g in plus.genre.astype(str).items()]
    systems["ms_sincresnet_plus + mel_resnet"] = fused
    for name, rows in systems.items():
        if len(rows) == 332:
            right, clips = rows.right, (rows.clips_right / rows.clips).mean()
            parts = [right, right[rows.mini], right[~rows.mini]]
            cells = [f"{100 * clips:.1f}", f"{rows.loss.mean():.3f}"]
            cells = [name, *map(share, parts), *cells]
            print(re.sub("nan|inf", "–", f"| {' | '.join(cells)} |"))

    print("\n| A | B | tracks | only A right | only B | p | log loss, A − B |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for names in PAIRS:
        a, b = (systems[name] for name in names)
        b = b.loc[a.index]
        only_a = int((a.right & ~b.right).sum())
        only_b = int((b.right & ~a.right).sum())
        p = binomtest(only_a, only_a + only_b).pvalue
        loss = loss_difference(a.loss, b.loss)
        cells = [*names, len(a), only_a, only_b, f"{p:.2f}", loss]
        print(f"| {' | '.join(map(str, cells))} |")
    for a, b in PAIRS[5:7]:
        new = systems[a][systems[a].fold > 0]  # tracks that chose no switch
        other = systems[b].loc[new.index]
        loss = loss_difference(new.loss, other.loss)
        shares = f"{share(new.right)} {a}, {share(other.right)} {b}"
        print(f"\nFolds 1 and 2: {shares}; log loss {loss}")

    print("\n| switch | songs, % | clips, % | log loss |\n| --- | --- | --- | --- |")
    chosen = table[(table.fold == 0) & table.seed.isin([1, 2])]
    for name, rows in chosen.groupby("system", observed=True):
        if str(name).startswith("mel") and "plus" not in name:
            clips = rows.clips_right.sum() / rows.clips.sum()
            cells = [f"{100 * rows.right.mean():.1f}", f"{100 * clips:.1f}"]
            print(f"| {name} | {' | '.join(cells)} | {rows.loss.mean():.3f} |")

    print("\n| precision, hop | songs, % | as the first row |\n| --- | --- | --- |")
    clips = pd.read_parquet(HERE / "out_of_fold.parquet").astype({"ID": str})
    truth = clips.groupby("ID").genre.first().astype(str)
    reference = None
    for precision in ("fp32", "bf16"):
        names = [f"{precision}_{genre}" for genre in genres]
        for step in (1, 2, 3, 4, 6):
            some = clips[clips["clip"] % step == 0]
            means = np.exp(some[names]).groupby(some.ID).mean()
            found = means.idxmax(axis=1).str[5:]
            reference = found if reference is None else reference
            same = f"{100 * (found == reference).mean():.1f} %"
            print(f"| {precision}, {step / 2:g} s | {share(found == truth)} | {same} |")
    names = [f"fp32_{genre}" for genre in genres]
    found = np.exp(clips[names]).groupby(clips.ID).mean().idxmax(axis=1).str[5:]
    print("\n" + pd.crosstab(truth, found).to_string())


if __name__ == "__main__":
    main()
