"""One run of a recipe, once its manifests are written."""

import logging

from speechbrain.utils.distributed import run_on_main

from ms_sincresnet.data.dataset import PassSampler, clip_loader_options, genre_datasets
from ms_sincresnet.training.brain import GenreBrain
from ms_sincresnet.training.checkpoints import refuse_other_split
from ms_sincresnet.training.distributed import rank_and_processes

logger = logging.getLogger(__name__)


def train_and_test(hparams, run_opts):
    """Trains a system, tests it by voting, and writes the model folder.

    Arguments
    ---------
    hparams : dict
        A recipe's hparams, as ``load_hparams`` returns them; ``manifest_folder``
        holds the three manifests.
    run_opts : dict
        SpeechBrain's run options.

    Raises
    ------
    HparamError
        If an hparam does not fit the data or this machine, or the output folder holds
        a run on another split.

    Example
    -------
    >>> import sys
    >>> from speechbrain.utils.distributed import ddp_init_group
    >>> from ms_sincresnet.training.hparams import load_hparams, parse_arguments
    >>> def main(arguments):  # a recipe in short
    ...     hparams_file, run_opts, overrides = parse_arguments(arguments)
    ...     ddp_init_group(run_opts)
    ...     hparams = load_hparams(hparams_file, overrides)
    ...     run_on_main(prepare, kwargs=...)
    ...     train_and_test(hparams, run_opts)
    """
    run_on_main(
        refuse_other_split, [hparams["save_folder"], hparams["manifest_folder"]]
    )
    datasets, hparams["label_encoder"] = genre_datasets(
        hparams["manifest_folder"],
        hparams["cache_folder"],
        n_genres=hparams["n_genres"],
        clip_samples=hparams["clip_samples"],
        seed=hparams["seed"],
        cache=hparams["cache"],
    )
    rank, n_processes = rank_and_processes()
    sampler = PassSampler(
        len(datasets["train"]),
        hparams["clips_per_track"],
        hparams["seed"],
        batch_size=hparams["train_loader"]["batch_size"],
        rank=rank,
        n_processes=n_processes,
    )
    brain = GenreBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.train_sampler = sampler
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=clip_loader_options(
            datasets["train"], sampler, **hparams["train_loader"]
        ),
        valid_loader_kwargs=hparams["song_loader"],
    )
    brain.evaluate(datasets["test"], test_loader_kwargs=hparams["song_loader"])
    brain.save_model()
    logger.info("Model folder: %s", hparams["model_folder"])
