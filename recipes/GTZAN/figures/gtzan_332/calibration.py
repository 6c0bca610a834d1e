"""Prints the bundled model's temperature and what it does; draws reliability.png.

It is fitted on whole tracks; for the figures of a fold, on those of the two others.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from ms_sincresnet.nnet.calibration import calibration_error, fit_temperature
from ms_sincresnet.plots.calibration import plot_reliability

HERE = Path(__file__).parent


def measures(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """Accuracy, mean posterior of the predictions, calibration error, and log loss."""
    confidence, right = np.exp(scores.max(1)), scores.argmax(1) == labels
    loss = -scores[np.arange(len(labels)), labels].mean()
    return [right.mean(), confidence.mean(), calibration_error(confidence, right), loss]


def main() -> None:
    """Prints the table and draws the diagram."""
    clips = pd.read_parquet(HERE / "out_of_fold.parquet").astype({"ID": str})
    clips = clips[clips["clip"] % 6 == 0]  # a hop of 3 s
    names = [name for name in clips if name.startswith("fp32_")]
    posteriors = np.exp(clips[names].astype(float)).groupby(clips.ID).mean()
    before = log_softmax(np.log(posteriors.to_numpy()), 1)
    songs = clips.groupby("ID")[["genre", "fold", "mini"]].first()
    labels = pd.Categorical("fp32_" + songs.genre.astype(str), names).codes
    whole = (clips.groupby("ID").size() >= 9).to_numpy()
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
    main()
