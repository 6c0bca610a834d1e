"""The model card: how to load a model, its training, and its accuracy if tested."""

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ms_sincresnet.files import read_json
from ms_sincresnet.models.weights import TEMPLATES

ON_THE_HUB = {"GTZAN": "marsyas/gtzan"}  # the recipes' data sets


class Training(NamedTuple):
    """A model's training and test, as the files of its run describe them."""

    dataset: str
    protocol: str
    figures: dict[str, Any] | None  # test_summary.json; None if it was not tested


def training_of(
    run: str | PathLike, hparams: dict[str, Any], epoch: int | None
) -> Training:
    """Training of the run in a folder, with figures if its test was of this epoch."""
    seeds = f"seed {hparams['seed']}"
    if hparams.get("split_seed", hparams["seed"]) != hparams["seed"]:
        seeds = f"split seed {hparams['split_seed']}, {seeds}"
    protocol = seeds
    if hparams.get("protocol") == "random":
        fold = f"fold {hparams['fold']} of {hparams['n_folds']}, counted from 0"
        protocol = f"stratified random folds ({fold}; {seeds})"
    elif hparams.get("protocol") == "filtered":
        split = "fault- and artist-filtered split of Kereliuk, Sturm and Larsen"
        protocol = f"{split} ({seeds})"
    elif hparams.get("protocol") == "all":
        protocol = f"all tracks, none left to test ({seeds})"
    elif "test_part" in hparams:
        protocol = f"training part to {hparams['test_part']} part ({seeds})"
    try:
        figures = read_json(Path(run) / "test_summary.json")
    except (FileNotFoundError, ValueError):  # not tested, or killed while writing
        figures = {}
    tested = epoch is not None and figures.get("epoch") == epoch
    return Training(hparams["dataset"], protocol, figures if tested else None)


def song_card(
    name: str, arguments: dict[str, Any], settings: dict[str, Any]
) -> ModelCard:
    """The card of a model of songs; its header also serves for a Space of the Hub."""
    training = settings.get("training")
    header = ModelCardData(title=f"Music genres by {name}")
    if training and training["dataset"] in ON_THE_HUB:
        header.datasets = [ON_THE_HUB[training["dataset"]]]
    if training and training["figures"]:
        header.model_name = name
        header.eval_results = _results(**training, voting=settings["voting"])
    template = (TEMPLATES / "model_card.md.template").read_text("utf-8")
    values = arguments | settings | {"name": name, "training": training}
    return ModelCard.from_template(header, template_str=template, **values)


def _results(dataset: str, protocol: str, figures: dict, voting: str) -> list:
    """Figures as the header's ``model-index`` holds them."""
    metrics = {
        f"song accuracy ({voting} of the clips)": figures["song_accuracy"],
        "clip accuracy": figures["clip_accuracy"],
    }
    test: Any = {
        "task_type": "audio-classification",
        "task_name": "Music genre classification",
        "dataset_type": ON_THE_HUB.get(dataset, dataset),
        "dataset_name": f"{dataset}, {protocol}; {figures['tracks']} test tracks",
        "dataset_split": "test",
        "metric_type": "accuracy",
    }
    return [
        EvalResult(**test, metric_name=name, metric_value=round(value, 4))
        for name, value in metrics.items()
    ]
