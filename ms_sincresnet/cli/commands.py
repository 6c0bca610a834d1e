"""What the commands of ``ms-sincresnet`` do with what was parsed.

What a command needs is imported when it runs, so that help is there at once.
"""

import argparse
import json
import logging
import os
import sys

from ms_sincresnet.errors import UserError

logger = logging.getLogger(__name__)

FORMATS = {".txt": "table", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
"""Formats of results, by the suffix of their file."""

NO_SONGS = "no audio found; name songs, or folders that hold some: wav, flac, mp3 …"

SOME_FAILED = 3
"""Exit status if some songs have no genre."""


def run(arguments):
    """Runs a command.

    Arguments
    ---------
    arguments : argparse.Namespace
        What was parsed; ``command`` is its name, ``error`` ends it with its usage.

    Returns
    -------
    int or None
        The exit status; None is 0.

    Raises
    ------
    UserError
        If something that it is about is missing or of another kind than expected.

    Example
    -------
    >>> run(argparse.Namespace(command="info", model="no/such/model"))
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: no/such/model: no such model folder
    """
    return _COMMANDS[arguments.command](arguments)


def _classify(arguments):
    """Names songs, and returns the exit status."""
    if not arguments.paths and arguments.files_from is None:
        arguments.error("name songs or folders, or give a list by --files-from")
    if arguments.engine == "ray":
        return _classify_on_ray(arguments)
    for name in ("address", "workers", "shard_size"):
        if getattr(arguments, name) is not None:
            arguments.error(f"--{name.replace('_', '-')} is for --engine ray")
    form = _format_of(arguments)

    from tqdm import tqdm

    from ms_sincresnet.inference.batch import (
        classify_songs,
        find_songs,
        model_identity,
        read_list,
        song_row,
    )
    from ms_sincresnet.inference.results import open_results

    listed = read_list(arguments.files_from) if arguments.files_from else []
    files = find_songs([*arguments.paths, *listed])
    if not files:
        raise UserError(NO_SONGS)
    classifier = _load_classifier(arguments)
    if arguments.output is None:
        # A screen shows what it can of a name; json and csv are UTF-8 anywhere.
        encoding = {} if form == "table" else {"encoding": "utf-8"}
        sys.stdout.reconfigure(errors="backslashreplace", **encoding)
    genres = classifier.hparams.label_encoder.ind2lab.values()
    top = min(arguments.top, len(genres))
    kind = {"top": top, "timeline": arguments.timeline}
    results = open_results(
        form,
        arguments.output,
        model=model_identity(classifier),
        files=files,
        genres=genres,
        **kind,
    )
    to_do = [file for file in files if file not in results.done]
    n_failed = 0
    # disable=None: no bar where the errors go to a file
    progress = tqdm(
        total=len(files), initial=len(results.done), unit="song", disable=None
    )
    with results, progress:
        for file, prediction in classify_songs(classifier, to_do, jobs=arguments.jobs):
            row = song_row(file, prediction, **kind)
            n_failed += row["error"] is not None
            with progress.external_write_mode(sys.stdout):
                results.write(row)
            if row["error"] is not None and (form != "table" or arguments.output):
                logger.error("%s: %s", file, row["error"])
            progress.update()
    if n_failed or arguments.output:
        of = f"{arguments.output}: " if arguments.output else ""
        named = len(files) - n_failed
        logger.info("%s%d of %d songs have a genre", of, named, len(files))
    return SOME_FAILED if n_failed else 0


def _classify_on_ray(arguments):
    """Names songs on a cluster, and returns the exit status."""
    if arguments.output is None:
        arguments.error("--engine ray needs --output, a folder for its parquet files")
    if arguments.format not in (None, "parquet"):
        arguments.error("--engine ray writes parquet files")

    from ms_sincresnet.inference.batch import read_list
    from ms_sincresnet.inference.ray import classify_on_ray, find_addresses

    listed = read_list(arguments.files_from) if arguments.files_from else []
    songs = find_addresses([*arguments.paths, *listed])
    if not songs:
        raise UserError(NO_SONGS)
    shards = (
        {} if arguments.shard_size is None else {"shard_size": arguments.shard_size}
    )
    n_songs, n_failed = classify_on_ray(
        [arguments.model, *arguments.fuse] if arguments.fuse else arguments.model,
        songs,
        arguments.output,
        address=arguments.address,
        workers=arguments.workers,
        device=arguments.device,
        precision=arguments.precision,
        voting=arguments.voting,
        top=arguments.top,
        timeline=arguments.timeline,
        **shards,
    )
    logger.info(
        "%s: %d of %d songs have a genre", arguments.output, n_songs - n_failed, n_songs
    )
    return SOME_FAILED if n_failed else 0


def _format_of(arguments):
    """The format of the results; the command line is wrong if there is none."""
    suffix = os.path.splitext(arguments.output or "")[1].lower()
    form = arguments.format or FORMATS.get(suffix or ".txt")
    if form is None:
        arguments.error(
            f"--output {arguments.output}: the format cannot be told from {suffix!r}; "
            f"give a name that ends in {', '.join(FORMATS)}, or --format"
        )
    if form == "parquet" and arguments.output is None:
        arguments.error("--format parquet is for files; give one by --output")
    return form


def _load_classifier(arguments):
    """The classifier that a command line asks for."""
    import torch

    from ms_sincresnet import GenreClassifier

    if arguments.device is not None:
        try:
            torch.zeros(1, device=arguments.device).item()
        except Exception as error:  # each kind of device has its own
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"--device {arguments.device}: cannot be used ({reason})"
            ) from error
    options = {"device": arguments.device, "precision": arguments.precision}
    classifier = GenreClassifier.from_pretrained(
        [arguments.model, *arguments.fuse] if arguments.fuse else arguments.model,
        run_opts={name: value for name, value in options.items() if value is not None},
    )
    if arguments.voting is not None:
        classifier.hparams.voting = arguments.voting
    return classifier


def _export(arguments):
    """Makes a model folder of a training run."""
    from ms_sincresnet.training.export import export_run

    export_run(arguments.run_folder, arguments.folder)
    print(f"written: {arguments.folder}")


def _push(arguments):
    """Uploads a model folder."""
    from ms_sincresnet.pretrained.hub import push_folder

    address = push_folder(
        arguments.folder,
        arguments.repo,
        private=arguments.private or None,
        revision=arguments.revision,
        space=arguments.space,
    )
    print(address)


def _convert(arguments):
    """Makes a model folder of a released checkpoint."""
    from ms_sincresnet.pretrained.released import convert_checkpoint

    genres = arguments.genres
    if genres is None:
        try:
            with open(arguments.genres_file, encoding="utf-8") as file:
                genres = [line.strip() for line in file if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{arguments.genres_file}: cannot be read ({error})"
            ) from error
    convert_checkpoint(arguments.checkpoint, arguments.folder, genres)
    print(f"written: {arguments.folder}")


def _onnx(arguments):
    """Exports a clip classifier."""
    from ms_sincresnet.inference.onnx import export_onnx

    export_onnx(arguments.model, arguments.file)
    print(f"written: {arguments.file}")


def _info(arguments):
    """Tells what a model is."""
    from ms_sincresnet.pretrained.hub import describe

    facts = describe(arguments.model)
    if arguments.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, fact in facts.items():
        if isinstance(fact, dict):
            print(f"{name}:", *(f"  {key}: {fact[key]}" for key in fact), sep="\n")
        else:
            print(f"{name}: {fact}")


def _demo(arguments):
    """Opens a page where songs can be tried."""
    from ms_sincresnet.inference.demo import launch

    launch(arguments.model, host=arguments.host, port=arguments.port)


def _plot(arguments):
    """Draws a figure, which has a command line of its own."""

    from ms_sincresnet.cli import plot as command

    parser = argparse.ArgumentParser(
        "ms-sincresnet plot", description=command.__doc__.splitlines()[0]
    )
    command.add_arguments(parser)
    command.run(parser.parse_args(arguments.argv))


_COMMANDS = {
    "classify": _classify,
    "export": _export,
    "push": _push,
    "convert": _convert,
    "onnx": _onnx,
    "info": _info,
    "demo": _demo,
    "plot": _plot,
}
