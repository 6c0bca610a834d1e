"""Functions that execute the commands; each returns an exit status, or None for 0."""

import json
import logging
import os
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from ms_sincresnet.errors import NoAudioError, UserError

logger = logging.getLogger(__name__)

FORMATS = {".txt": "table", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


def classify(arguments: Namespace) -> int:
    """Predicts the genres of songs, or embeds them."""
    _check_sources(arguments)
    if arguments.playlists and (arguments.engine == "ray" or "-" in arguments.songs):
        arguments.error("--playlists works neither with --engine ray nor with -")
    output, output_format = arguments.output, _output_format(arguments)
    run = _classify_on_ray if arguments.engine == "ray" else _classify_here
    try:
        n_songs, n_failed = run(arguments, output_format)
    except KeyboardInterrupt:
        if output is None or output_format == "table":
            raise
        message = "interrupted; run the same command again to resume"
        raise KeyboardInterrupt(message) from None
    if n_failed or output:
        where, n_named = f"{output}: " if output else "", n_songs - n_failed
        unsure = " or are unsure" if arguments.min_posterior else ""
        what = "an embedding" if arguments.embeds else f"a genre{unsure}"
        logger.info("%s%d of %d songs have %s", where, n_named, n_songs, what)
    return 3 if n_failed else 0


def _check_sources(arguments: Namespace) -> None:
    """Ends the command with its usage unless it names songs."""
    others = arguments.songs != ["-"] or arguments.files_from is not None
    if "-" in arguments.songs and (others or arguments.engine == "ray"):
        reason = "here, without --engine ray; name no others"
        arguments.error(f"- reads one song from the standard input {reason}")
    if arguments.songs and arguments.songs != ["-"]:
        from ms_sincresnet.data.audio import AUDIO_SUFFIXES
        from ms_sincresnet.data.playlists import PLAYLISTS
        from ms_sincresnet.models import hub
        from ms_sincresnet.pretrained import model_folder

        first = arguments.songs[0]
        if os.path.isdir(first) and model_folder.is_model_folder(first):
            arguments.error(f"{first} is a model folder; name it with --model {first}")
        known = AUDIO_SUFFIXES | PLAYLISTS
        is_audio = "://" in first or Path(first).suffix.lower() in known
        if not is_audio and hub.local_path(first, 2) is None:
            advice = f"if it is a model on the Hub, name it with --model {first}"
            arguments.error(f"{first}: no such song or folder; {advice}")
    if not arguments.songs and arguments.files_from is None:
        arguments.error("name songs or folders, or list them in a file: --files-from")


def check_labels(arguments: Namespace) -> None:
    """Ends a command with its usage unless it names songs with genres in one way."""
    folder, file = arguments.folder, arguments.labels
    if (folder is None) == (file is None) or (file and arguments.from_tags):
        arguments.error("name a FOLDER of songs, or list songs and genres in --labels")


def _output_format(arguments: Namespace) -> Any:
    """The format of the results; ends the command with its usage if it is unknown."""
    suffix = os.path.splitext(arguments.output or "")[1].lower()
    if arguments.engine == "ray":
        if arguments.output is None:
            arguments.error("--engine ray needs --output, a folder for parquet files")
        if arguments.format not in (None, "parquet"):
            arguments.error("--engine ray writes parquet files")
        return "parquet"
    for name in ("address", "workers", "shard_size"):
        if getattr(arguments, name) is not None:
            arguments.error(f"--{name.replace('_', '-')} is for --engine ray")
    if suffix == ".json":
        advice = f"use --output {arguments.output}l"
        arguments.error(f"JSON is written as JSON Lines; {advice}")
    output_format = arguments.format or FORMATS.get(suffix or ".txt")
    if arguments.embeds and output_format != "parquet":
        arguments.error("--output: expected a name that ends in .parquet")
    if output_format is None:
        advice = f"use {', '.join(FORMATS)}, or --format"
        arguments.error(f"--output: no format has the suffix {suffix!r}; {advice}")
    if output_format == "parquet" and arguments.output is None:
        arguments.error("--format parquet needs a file: --output FILE")
    return output_format


def _classify_here(arguments: Namespace, output_format: str) -> tuple[int, int]:
    """Predicts the genres of songs in this process."""
    from tqdm import tqdm

    from ms_sincresnet.data import playlists
    from ms_sincresnet.inference import batch, embeddings, results

    sources = list_sources(arguments)
    songs, named = batch.find_songs(sources), {*sources}
    if not songs:
        raise UserError(batch.NO_SONGS)
    classifier = load_classifier(arguments, arguments.device)
    stdout: Any = sys.stdout
    if arguments.output is None:
        # A terminal shows a name as well as it can; jsonl and csv are always UTF-8.
        encoding = None if output_format == "table" else "utf-8"
        stdout.reconfigure(errors="backslashreplace", encoding=encoding)
    genres = classifier.hparams.label_encoder.ind2lab.values()
    traits = arguments.embeds, arguments.top, arguments.timeline
    kind = embeddings.kind_of(classifier, *traits, arguments.min_posterior)
    output, n_failed, n_without, rows = arguments.output, 0, 0, []
    facts: dict = {}
    file = results.open_results(output_format, output, kind, songs, genres)
    todo = [song for song in songs if song not in file.done]
    # disable=None: no bar if the standard error is a file
    bar = tqdm(total=len(songs), initial=len(file.done), unit="song", disable=None)
    with file, bar:
        options = {"jobs": arguments.jobs, "embeds": arguments.embeds}
        found = batch.classify_songs(classifier, todo, facts=facts, **options)
        for song, prediction in found:
            bar.update()
            about = facts.pop(song)
            if isinstance(prediction, NoAudioError) and song not in named:
                n_without += 1
                continue
            row = kind.row(song, prediction, about)
            with bar.external_write_mode(sys.stdout):
                file.write(row)
            if row["error"] is not None:
                n_failed += 1
                if output_format != "table" or arguments.output:
                    logger.error("%s: %s", song, row["error"])
            rows += [row] if arguments.playlists else []
    if n_without:
        logger.info("%d files in the folders hold no audio", n_without)
    if arguments.playlists:
        if output is not None and output_format != "table":
            rows = list(results.read_rows(output, output_format, kind))
        named_songs = ((row["genre"], row["file"], row["duration"]) for row in rows)
        playlists.write_genres(arguments.playlists, genres, named_songs)
    return len(songs) - n_without, n_failed


def list_sources(arguments: Namespace) -> list[str]:
    """The songs and folders that a command line names and lists."""
    from ms_sincresnet.data import playlists

    listed = playlists.read_list(arguments.files_from) if arguments.files_from else []
    return [*arguments.songs, *listed]


def _classify_on_ray(arguments: Namespace, _: str) -> tuple[int, int]:
    """Predicts the genres of songs on a cluster."""
    from ms_sincresnet.inference.ray import classify_on_ray
    from ms_sincresnet.nnet import devices

    if arguments.precision == "auto":  # the same for all workers
        arguments.precision = devices.fastest_precision(arguments.device or "cpu")
    load, sources = partial(load_classifier, arguments), list_sources(arguments)
    names = ("address", "workers", "embeds", "top", "timeline", "min_posterior")
    options = {name: getattr(arguments, name) for name in names}
    options |= {"device": arguments.device or "cpu"}
    options |= {"shard_size": arguments.shard_size or 100}
    return classify_on_ray(load, sources, arguments.output, **options)


def load_classifier(arguments: Namespace, device: str | None) -> Any:
    """The classifier that a command line names, on a device or the fastest one."""
    import torch

    from ms_sincresnet import GenreClassifier
    from ms_sincresnet.nnet import devices

    options = {"precision": arguments.precision}
    if device is not None:
        options["device"] = device
        try:
            torch.zeros(1, device=device).item()
        except Exception as error:  # each kind of device has its own
            reason = str(error).partition("\n")[0].partition(". ")[0]
            message = f"--device {device}: cannot be used ({reason})"
            raise UserError(message) from error
    devices.keep_freed_memory()
    if arguments.precision == "auto":
        options["precision"] = devices.fastest_precision(device)
    models = [arguments.model, *arguments.fuse] if arguments.fuse else arguments.model
    classifier = GenreClassifier.from_pretrained(models, run_opts=options)
    if arguments.voting is not None:
        classifier.hparams.voting = arguments.voting
    if arguments.hop is not None:
        classifier.hop_s = arguments.hop
    return classifier


def export(arguments: Namespace) -> None:
    """Makes a model folder from a training run."""
    from ms_sincresnet.training.export import export_run

    export_run(arguments.run_folder, arguments.folder, half=arguments.half)
    print(f"written: {arguments.folder}")


def push(arguments: Namespace) -> None:
    """Uploads a model folder, and prints its address."""
    from ms_sincresnet.pretrained.hub import push_folder

    options = {"revision": arguments.revision, "space": arguments.space}
    private = arguments.private or None
    print(push_folder(arguments.folder, arguments.repo, private=private, **options))


def convert(arguments: Namespace) -> None:
    """Makes a model folder from a released checkpoint."""
    from ms_sincresnet.pretrained.released import convert_checkpoint

    convert_checkpoint(arguments.checkpoint, arguments.folder, arguments.genres)
    print(f"written: {arguments.folder}")


def onnx(arguments: Namespace) -> None:
    """Exports a clip classifier."""
    from ms_sincresnet.inference.onnx import export_onnx

    export_onnx(arguments.model, arguments.file)
    print(f"written: {arguments.file}")


def info(arguments: Namespace) -> None:
    """Describes a model."""
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
    if "temperature" not in facts["settings"]:
        print("posteriors are not calibrated")


def demo(arguments: Namespace) -> None:
    """Opens a page where songs can be tried."""
    from ms_sincresnet.inference.demo import launch

    launch(arguments.model, host=arguments.host, port=arguments.port)
