"""The bundled model's temperature, from the out-of-fold posteriors beside this file.

python calibration.py: prints a table, draws reliability.png
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ms_sincresnet.nnet.calibration import calibration_error, fit_temperature
from ms_sincresnet.plots.calibration import plot_reliability
from ms_sincresnet.plots.drawing import save_figure

HERE = Path(__file__).parent


def divided(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Log-posteriors [songs, genres] after division by a temperature."""
    scores = scores / temperature
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def measures(scores: np.ndarray, labels: np.ndarray, few: np.ndarray) -> list[float]:
    """Expected calibration error and log loss of some of the songs."""
    scores, labels = scores[few], labels[few]
    confidence, right = np.exp(scores.max(1)), scores.argmax(1) == labels
    loss = -scores[np.arange(len(labels)), labels].mean()
    return [calibration_error(confidence, right), float(loss)]


def main() -> None:
    """Fits on two folds, measures on the third; then fits on all."""
    clips = pd.read_parquet(HERE / "out_of_fold.parquet").astype({"ID": str})
    names = [name for name in clips if name.startswith("fp32_")]
    draws = np.random.default_rng(0)
    print("| hop | temperature | error before | after | log loss before | after |")
    print("| --- | --- | --- | --- | --- | --- |")
    for step in (1, 6):
        songs = clips[clips["clip"] % step == 0].groupby("ID")
        scores = songs[names].agg(lambda rows: np.log(np.exp(rows).mean())).to_numpy()
        labels = songs.genre.first().map([n[5:] for n in names].index).to_numpy()
        folds, calibrated = songs.fold.first().to_numpy(), scores.copy()
        for fold in np.unique(folds):
            mine = folds == fold
            temperature = fit_temperature(scores[~mine], labels[~mine])
            calibrated[mine] = divided(scores[mine], temperature)
        versions, cells = (divided(scores, 1), calibrated), []
        found = [measures(each, labels, slice(None)) for each in versions]
        some = draws.integers(len(labels), size=(2000, len(labels)))
        drawn = [[measures(each, labels, few) for few in some] for each in versions]
        low, high = np.percentile(drawn, [2.5, 97.5], axis=1)
        for value, *ends in zip(*np.transpose([found, low, high], (0, 2, 1)).reshape(3, -1), strict=True):
            cells.append("{:.3f} [{:.3f}, {:.3f}]".format(value, *ends))
        print(f"| {step / 2:g} s | {fit_temperature(scores, labels):.3g} | {' | '.join(cells)} |")
