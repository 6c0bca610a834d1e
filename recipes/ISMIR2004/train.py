#!/usr/bin/env python3
"""Trains a music genre classifier on ISMIR2004 and tests it by voting.

python train.py hparams/ms_sincresnet.yaml --data_folder=ISMIR2004
"""

import sys

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml
from ismir2004_prepare import HOW_TO_GET
from speechbrain.utils.distributed import ddp_init_group, run_on_main

from ms_sincresnet import GenreBrain
from ms_sincresnet.errors import exit_on_user_error
from ms_sincresnet.training.checkpoints import refuse_other_split
from ms_sincresnet.training.hparams import flatten, open_hparams, quoted


def main(arguments: list[str]) -> None:
    """Prepares the data, trains, tests, and writes the model folder."""
    hparams_file, run_opts, overrides = sb.parse_arguments(quoted(arguments))
    ddp_init_group(run_opts)
    with open_hparams(hparams_file, overrides, HOW_TO_GET) as (file, overrides):
        hparams = flatten(load_hyperpyyaml(file, overrides))
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)

    run_on_main(hparams["prepare_data"])
    folders = hparams["save_folder"], hparams["manifest_folder"]
    run_on_main(refuse_other_split, folders)
    datasets, hparams["label_encoder"] = hparams["make_datasets"](
        n_genres=hparams["n_genres"]
    )
    sampler = hparams["train_sampler"](len(datasets["train"]))

    brain = GenreBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs={**hparams["train_loader"], "sampler": sampler},
        valid_loader_kwargs=hparams["song_loader"],
    )
    brain.evaluate(datasets["test"], test_loader_kwargs=hparams["song_loader"])
    brain.save_model()
    print(f"Model folder: {hparams['model_folder']}")


if __name__ == "__main__":
    with exit_on_user_error("stopped; the same command resumes the training"):
        main(sys.argv[1:])
