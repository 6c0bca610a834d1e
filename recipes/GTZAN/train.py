#!/usr/bin/env python3
"""Trains a music genre classifier on one fold of GTZAN and tests it by voting.

    python train.py hparams/ms_sincresnet.yaml --data_folder=GTZAN --fold=0

Without the data set, on synthesised music:

    python train.py hparams/quickstart.yaml
"""

import sys

import speechbrain as sb
from gtzan_prepare import find_genres, prepare_gtzan
from speechbrain.utils.distributed import ddp_init_group, run_on_main

from ms_sincresnet.errors import exit_on_user_error
from ms_sincresnet.training.experiment import train_and_test
from ms_sincresnet.training.hparams import (
    load_hparams,
    parse_arguments,
    plain_hparams,
)


def main(arguments):
    """Prepares the data, trains, tests, and writes the model folder.

    Arguments
    ---------
    arguments : list of str
        The yaml file, hparams that override it, and SpeechBrain's run options.
    """
    hparams_file, run_opts, overrides = parse_arguments(arguments)
    ddp_init_group(run_opts)
    plain = plain_hparams(hparams_file, overrides)
    if "make_data" not in plain:
        find_genres(plain["data_folder"])  # before weights are downloaded
    hparams = load_hparams(hparams_file, overrides)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    if "make_data" in hparams:
        run_on_main(hparams["make_data"])
    run_on_main(
        prepare_gtzan,
        kwargs={
            "data_folder": hparams["data_folder"],
            "manifest_folder": hparams["manifest_folder"],
            "cache_folder": hparams["cache_folder"],
            "protocol": hparams["protocol"],
            "fold": hparams["fold"],
            "n_folds": hparams["n_folds"],
            "valid_fraction": hparams["valid_fraction"],
            "seed": hparams["seed"],
        },
    )
    train_and_test(hparams, run_opts)


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
