"""A new classifier for genres of one's own, on a model that stays as it is.

Front-end and ResNet are frozen: few songs would overfit them. So the embeddings of a
song's clips are computed once, which takes most of the time, and kept in files.
"""

import hashlib
import json
import logging
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.batch import PaddedBatch
from torch import Tensor, nn
from tqdm import tqdm

from ms_sincresnet.data import cache, clips, dataset, prepare
from ms_sincresnet.errors import DataFolderError, UserError
from ms_sincresnet.files import atomic_path, file_state, read_json
from ms_sincresnet.models import GenreModel, hub
from ms_sincresnet.nnet import calibration, voting
from ms_sincresnet.nnet.devices import default_device
from ms_sincresnet.pretrained import card, model_folder
from ms_sincresnet.training.brain import GenreBrain, check_run_options
from ms_sincresnet.training.checkpoints import WholeCheckpointer
from ms_sincresnet.training.hparams import flatten, open_hparams, read_plainly
from ms_sincresnet.training.logs import RunLogger

logger = logging.getLogger(__name__)

HPARAMS = Path(__file__).with_name("finetune.yaml")
FEW = 8  # songs of a genre: with fewer there is a warning


class HeadBrain(GenreBrain):
    """Trains a classifier on embeddings [clips, size] of songs: ``hparams.heard``."""

    def compute_forward(self, batch: PaddedBatch, stage: sb.Stage) -> list[Tensor]:
        """Log-posteriors [clips, n_genres] of songs; in training of a random clip."""
        songs = [self.hparams.heard[track_id] for track_id in batch.id]
        if stage == sb.Stage.TRAIN:
            songs = [song[torch.randint(len(song), (1,))] for song in songs]
        clips = self.modules.model(torch.cat(songs)[:, None].to(self.device))
        return list(clips.split([*map(len, songs)]))

    def on_stage_end(self, stage: sb.Stage, *about: Any) -> None:
        """Decides on stopping, before the checkpoint that keeps the decision."""
        if stage == sb.Stage.VALID:
            loss = self.scores[stage].figures()["loss"]
            self.hparams.epoch_counter.update_metric(loss)
        super().on_stage_end(stage, *about)


def finetune(
    songs: pd.DataFrame,
    output: str | os.PathLike,
    name: str,
    source: str | None = None,
    hparams_file: str | os.PathLike | None = None,
    device: str | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Writes a model of songs as of ``read_labels``, from a source as of ``hub.fetch``.

    Returns its predictions for the songs that chose the epoch. A folder next to
    ``output`` lets the same call resume, until the model is written.
    """
    output = Path(os.path.abspath(output))
    work = output.with_name(f"{output.name}.training")
    model_folder.check_replaceable(output)
    if work.exists() and any(work.iterdir()) and not (work / "audio_16k").is_dir():
        raise UserError(f"{work}: holds something other than a training; move it away")
    device, source_folder = device or default_device(), hub.fetch(source)
    check_run_options({"device": device})
    start = model_folder.read_model_folder(source_folder).to(device)
    if not hasattr(start.classifier, "layers"):
        raise UserError(f"{source_folder}: a {type(start).__name__} has no ResNet")
    # A run resumes with the same songs, model and hparams alone.
    hparams_file = Path(hparams_file or HPARAMS)
    files = [*songs.path, hparams_file, *sorted(source_folder.glob("[cm]*.*"))]
    state = repr([songs.to_csv(), seed, *map(file_state, files)])
    run = work / hashlib.sha256(state.encode()).hexdigest()[:16]
    given = {"output_folder": str(run)} | ({} if seed is None else {"seed": seed})
    with open_hparams(hparams_file, json.dumps(given)) as (file, nested):
        hparams = flatten(load_hyperpyyaml(file, nested))
    if missing := read_plainly(HPARAMS.read_text("utf-8")).keys() - hparams.keys():
        raise UserError(f"{hparams_file}: {', '.join(sorted(missing))} missing")
    n_samples = start.settings["clip_samples"]
    hparams |= {"dataset": name, "device": device, "clip_samples": n_samples}
    split: Any = {"assign_parts": partial(_assign_parts, hparams), "options": {}}
    prepare.prepare_manifests(songs, run, work / "audio_16k", **split)
    model, brain = _train(start, run, work / "audio_16k", hparams)
    scores, method = brain.scores[sb.Stage.TEST], hparams["voting"]
    songs_clips = map(torch.cat, scores.clips.values())
    valid = [voting.song_log_posteriors(song, method) for song in songs_clips]
    protocol = f"own songs: {len(hparams['heard']) - len(valid)} trained a classifier "
    origin = source_folder.name if source and os.path.isdir(source) else source
    protocol += f"on {origin or 'the bundled model'}, {len(valid)} chose the epoch"
    about: dict[str, Any] = {"clip_samples": n_samples, "hop_samples": n_samples}
    about |= {"voting": method, "full_scale": start.settings["full_scale"]}
    fit = calibration.fit_temperature(torch.stack(valid), [*scores.labels.values()])
    about |= {"training": card.Training(name, protocol, None), "temperature": fit}
    model_folder.save_model_folder(output, model, brain.genres, **about)
    shutil.rmtree(work)
    return scores.predictions(brain.genres)


def _assign_parts(hparams: dict[str, Any], tracks: pd.DataFrame) -> Any:
    """Parts of tracks, so that recordings and albums stay whole."""
    names = tracks.get("recording", tracks.ID)  # before decoding: no recordings
    counts = names.groupby(tracks.genre).nunique()
    if len(counts) < 2 or counts.min() < 2:
        found = f"one song of {counts.idxmin()!r}" if len(counts) > 1 else "one genre"
        expected = f"expected two genres or more, of 2 songs or better {FEW}"
        raise DataFolderError(f"{expected}; found {found}")
    if "recording" not in tracks:
        return None
    groups, before = tracks.recording, None
    while not groups.equals(before):  # a recording may be on several albums
        before = groups
        of_album = groups.groupby(tracks.album).transform("min")
        groups = of_album.where(tracks.album != "", groups)
        groups = groups.groupby(tracks.recording).transform("min")
    order = np.random.default_rng(hparams["seed"]).permutation(groups.unique())
    in_valid = pd.Series(False, tracks.index)
    for genre, own in tracks.groupby("genre").groups.items():
        wanted = max(1, round(hparams["valid_fraction"] * len(own)))
        sizes = groups[own].value_counts().reindex(order).dropna()
        # Groups with more songs than wanted come last.
        for group in (sizes > wanted).sort_values(kind="stable").index:
            more = in_valid | (groups == group)
            all_train = tracks.genre[~more].nunique() == len(counts)
            if all_train and in_valid[own].sum() < wanted:
                in_valid = more
        if len(own) < FEW:
            logger.warning("%s: %d songs are few; better %d", genre, len(own), FEW)
        if not in_valid[own].any():
            logger.warning("%s: a single album or recording, so none validates", genre)
    if not in_valid.any():
        raise DataFolderError("no song can validate; add songs of other albums")
    return np.where(in_valid, "valid", "train")


def _train(
    start: GenreModel, run: Path, cache_folder: Path, hparams: dict[str, Any]
) -> tuple[GenreModel, HeadBrain]:
    """A model with a new classifier, and the brain that trained and tested it."""
    n_genres = len(read_json(run / "report.json")["counts"]["train"])
    sizes = {k: hparams[k] for k in ("clip_samples", "seed")} | {"n_genres": n_genres}
    parts, encoder = dataset.genre_datasets(run, cache_folder, **sizes)
    train, valid = parts["train"], parts["valid"]
    model = type(start)(**start.config | {"n_genres": n_genres}).eval()
    last = "classifier.layers." + ("2." if start.config["hidden_size"] else "")
    kept = {k: v for k, v in start.state_dict().items() if not k.startswith(last)}
    model.load_state_dict(kept, strict=False)
    head, counter = GenreModel(), hparams["epoch_counter"]
    head.frontend = head.embedding = nn.Identity()
    head.classifier = model.classifier
    # disable=None: no bar where the output is a file
    tracks = tqdm({**train.data, **valid.data}.items(), "listening", disable=None)
    hparams["heard"] = {
        track_id: _embeddings(start, track["wav"], run / "embeddings", hparams)
        for track_id, track in tracks
    }
    hparams |= {"label_encoder": encoder, "train_logger": RunLogger(run)}
    options = {"device": hparams["device"], "noprogressbar": True}
    saves = WholeCheckpointer(run / "save", {"model": head, "counter": counter})
    brain = HeadBrain({"model": head}, hparams["opt_class"], hparams, options, saves)
    for part in (train, valid):
        part.set_output_keys(["id", "genre_encoded"])
    batch = {"batch_size": hparams["batch_size"]}
    passes = hparams["clips_per_track"], hparams["seed"]
    loader = {"sampler": dataset.PassSampler(len(train), *passes, **batch), **batch}
    epochs = tqdm(counter, "training", counter.limit, unit="epoch", disable=None)
    brain.fit(epochs, train, valid, train_loader_kwargs=loader)
    brain.evaluate(valid)  # by the best epoch
    return model, brain


@torch.no_grad()
def _embeddings(
    model: GenreModel, wav: str, folder: Path, hparams: dict[str, Any]
) -> Tensor:
    """Embeddings [clips, size] of a song's audible clips, kept in a file."""
    path = folder / f"{Path(wav).stem}.npy"
    if not path.exists():
        song, n_samples = cache.read_song(wav), hparams["clip_samples"]
        n_hops = max(1, hparams["clips_per_song"] - 1)
        hop = max(n_samples, (len(song) - n_samples) // n_hops)
        wavs = clips.split_clips(song, n_samples, hop) * model.settings["full_scale"]
        audible = wavs[~clips.silent(wavs)]
        wavs = audible if len(audible) else wavs
        batches = wavs.to(hparams["device"]).split(hparams["batch_size"])
        rows = [model.embedding(model.frontend(batch))[:, 0] for batch in batches]
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, torch.cat(rows).cpu().numpy())
    return torch.from_numpy(np.load(path))
