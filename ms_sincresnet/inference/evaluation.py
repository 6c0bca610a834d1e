"""Scores of a model on songs whose genres are known."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import classification_report
from tqdm import tqdm

from ms_sincresnet.data.prepare import letters
from ms_sincresnet.errors import UserError
from ms_sincresnet.files import as_utf8, printable
from ms_sincresnet.inference.batch import classify_songs, model_identity
from ms_sincresnet.inference.fusion import genres_of
from ms_sincresnet.nnet.calibration import calibration_error
from ms_sincresnet.plots.calibration import plot_reliability
from ms_sincresnet.plots.drawing import save_figure
from ms_sincresnet.plots.training import plot_confusion_matrix

logger = logging.getLogger(__name__)


def evaluate_songs(
    classifier: Any, labels: pd.DataFrame, genre_map: dict[str, list], jobs: int = 2
) -> dict[str, Any]:
    """Scores on songs; ``genre_map`` has their names for the model's genres."""
    genres = _match(genres_of(classifier.hparams), labels.genre, genre_map)
    unknown = labels.genre[~labels.genre.isin(genres)].value_counts().to_dict()
    if unknown:
        counts = ", ".join(f"{name} ({n})" for name, n in unknown.items())
        logger.warning("left out genres that the model does not know: %s", counts)
    labels = labels[labels.genre.isin(genres)]
    found = classify_songs(classifier, labels.path, jobs=jobs)
    bar = tqdm(found, total=len(labels), unit="song", disable=None)
    rows, errors = [], []
    for label, (path, outcome) in zip(labels.genre, bar, strict=True):
        song: dict[str, Any] = {"file": as_utf8(str(path)), "genre": genres[label]}
        if isinstance(outcome, UserError):
            logger.error("%s", outcome)
            errors.append(song | {"error": as_utf8(str(outcome))})
            continue
        best, posterior = outcome.genre, round(outcome.posteriors[outcome.genre], 6)
        rows.append(song | {"predicted": best, "posterior": posterior})
    if not rows:
        raise UserError(f"no song can be read, as the first: {errors[0]['error']}")
    songs = pd.DataFrame(rows)
    pair, right = (songs.genre, songs.predicted), songs.genre == songs.predicted
    names = sorted({*songs.genre, *songs.predicted})
    report: Any = classification_report(*pair, output_dict=True, zero_division=0)
    matrix = pd.crosstab(*pair).reindex(index=names, columns=names, fill_value=0)
    wrong = songs[~right].sort_values("posterior", ascending=False, kind="stable")
    interval = binomtest(sum(right), len(songs)).proportion_ci(method="wilson")
    return {
        "model": model_identity(classifier),
        "accuracy": float(right.mean()),
        "interval": [interval.low, interval.high],
        "calibration_error": calibration_error(songs.posterior, right),
        "genres": {name: report[name] for name in names},
        "confusion": matrix.to_dict("index"),
        "mistakes": wrong.head(10).to_dict("records"),
        "unknown": unknown,
        "unreadable": errors,
        "songs": rows,
    }


def _match(
    genres: list[str], labels: pd.Series, genre_map: dict[str, list[str]]
) -> dict[str, str]:
    """The genre of the model that is meant by each label, if there is one."""
    known = {letters(name): name for name in genres} | {name: name for name in genres}
    meant: dict[str, str] = {}

    def find(name: str) -> str | None:
        return known.get(name) or known.get(letters(name))

    for ours, theirs in genre_map.items():
        genre, keys = find(ours), {*map(letters, theirs)}
        if genre is None or keys & meant.keys():
            expected = f"one of {', '.join(genres)}, and names that no other has"
            raise UserError(f"--genre-map: expected {expected}; got {ours}: {theirs}")
        meant |= dict.fromkeys(keys, genre)
    found = {label: meant.get(letters(label)) or find(label) for label in labels}
    if not any(found.values()):
        both = f"{', '.join(sorted(found))}; the model's are {', '.join(genres)}"
        advice = "name those that are the same in a file for --genre-map"
        raise UserError(f"the genres of the songs are {both}; {advice}")
    return {label: genre for label, genre in found.items() if genre}


def as_text(scores: dict[str, Any]) -> str:
    """Scores for the eye."""
    low, high = scores["interval"]
    table = pd.DataFrame(scores["genres"]).T.rename(columns={"support": "songs"})
    lines = [
        f"{len(scores['songs'])} songs, {scores['accuracy']:.1%} correct",
        f"95 % interval of this accuracy {low:.1%} to {high:.1%}",
        f"expected calibration error {scores['calibration_error']:.3f}\n",
        table.round(2).astype({"songs": int}).to_string(),
        "\nsongs by genre (rows) and predicted genre (columns)\n",
        pd.DataFrame(scores["confusion"]).T.to_string(),
        "\nsurest mistakes\n" if scores["mistakes"] else "\nno mistakes",
    ]
    for song in scores["mistakes"]:
        what = f"{song['genre']}, predicted {song['predicted']}"
        lines.append(f"{song['posterior']:.2f}  {printable(song['file'])}: {what}")
    return "\n".join(lines)


def draw(scores: dict[str, Any], folder: Path, title: str) -> None:
    """Draws the confusion matrix and the reliability diagram."""
    songs, matrix = pd.DataFrame(scores["songs"]), pd.DataFrame(scores["confusion"]).T
    save_figure(plot_confusion_matrix(matrix, title), folder / "confusion_matrix.png")
    diagram = plot_reliability(songs.posterior, songs.genre == songs.predicted, title)
    save_figure(diagram, folder / "reliability.png")
