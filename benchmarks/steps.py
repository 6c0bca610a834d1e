"""Builders of the steps that are measured, as ``measure`` takes them."""

from collections import deque
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from measure import Step
from peers import Frontend, PlainModel
from speechbrain.dataio.dataloader import make_dataloader
from torch import nn
from torch.nn import functional as F

from ms_sincresnet import GenreClassifier, MSSincNet, MSSincResNet, split_clips, vote
from ms_sincresnet.data.audio import SAMPLE_RATE, read_audio
from ms_sincresnet.data.dataset import PassSampler, clip_batch, genre_datasets
from ms_sincresnet.data.prepare import find_tracks, prepare_manifests
from ms_sincresnet.data.synthetic import GENRES, make_synthetic_gtzan, render_track
from ms_sincresnet.inference.batch import classify_songs
from ms_sincresnet.pretrained.model_folder import save_model_folder

SONG_RATE = 22050  # Hz, as in GTZAN
SEED = 0


class Sizes(NamedTuple):
    """The sizes of everything; the defaults are the paper's and the recipe's."""

    n_filters: int = 160
    kernel_sizes: tuple[int, ...] = (251, 501, 1001)
    n_frames: int = 1024
    clip_samples: int = 48000
    hop_samples: int = 8000
    few_clips: int = 8  # for the front-ends
    batch_size: int = 32  # clips in a training step, and in a batch of a song
    gpu_batch_size: int = 64
    song_s: tuple[int, ...] = (30, 120, 480, 3600)
    n_songs: int = 4  # in a folder, of song_s[0] each
    n_tracks: int = 100  # for the loader, of song_s[0] each
    epoch_clips: int = 3200  # about as many as in GTZAN

    def n_clips(self, seconds: int) -> int:
        """Clips in a song."""
        return 1 + (seconds * SAMPLE_RATE - self.clip_samples) // self.hop_samples


_SMALL = {"n_filters": 8, "kernel_sizes": (11, 21, 31), "n_frames": 64}
_SHORT = {"clip_samples": 4800, "hop_samples": 2400, "song_s": (1, 2, 4)}
_FEW = {"few_clips": 2, "batch_size": 4, "gpu_batch_size": 4, "epoch_clips": 40}
QUICK = Sizes(**_SMALL, **_SHORT, **_FEW, n_songs=2, n_tracks=10)


def our_model(sizes: Sizes) -> MSSincResNet:
    """A model with random weights, the same whenever it is built."""
    torch.manual_seed(SEED)
    shape = sizes.n_filters, sizes.kernel_sizes
    return MSSincResNet(len(GENRES), *shape, n_frames=sizes.n_frames)


def frontend_step(sizes: Sizes, training: bool, name: str) -> Step:
    """A pass of a front-end, "ours" or one of ``peers.CONVOLUTIONS``."""
    torch.manual_seed(SEED)
    frontend = MSSincNet(sizes.n_filters, sizes.kernel_sizes, sizes.n_frames)
    if name != "ours":
        frontend = Frontend(name, frontend)
    frontend.train(training)
    wavs = torch.randn(sizes.few_clips, sizes.clip_samples)

    def step():
        frontend.zero_grad()
        with torch.set_grad_enabled(training):
            maps = frontend(wavs)
        if training:
            maps.square().mean().backward()

    return step


def training_step(
    sizes: Sizes, device: str, batch_size: int, name: str, precision: str
) -> Step:
    """Forward, loss, backward and SGD of "plain" or "ours"."""
    model: nn.Module = our_model(sizes)
    model = PlainModel(model) if name == "plain" else model
    model.train().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.005, 0.9, nesterov=True)
    wavs = torch.randn(batch_size, sizes.clip_samples, device=device)
    labels = torch.randint(len(GENRES), (batch_size,), device=device)

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            log_posteriors = model(wavs)
        F.nll_loss(log_posteriors, labels).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def plain_songs_step(paths: list[str], sizes: Sizes) -> Step:
    """Files to voted genres by the plain pipeline, one song after another."""
    model = PlainModel(our_model(sizes)).eval()

    def classify(path):
        wav = torch.from_numpy(read_audio(path))
        clips = split_clips(wav, sizes.clip_samples, sizes.hop_samples)
        with torch.no_grad():
            batches = [model(batch) for batch in clips.split(sizes.batch_size)]
        return GENRES[vote(torch.cat(batches))[0]]

    return lambda: [classify(path) for path in paths]


def songs_step(paths: list[str], model_folder: str, precision: str) -> Step:
    """Files to voted genres by ours, as by ``ms-sincresnet classify``."""
    run_opts = {"device": "cpu", "precision": precision}
    classifier = GenreClassifier.from_pretrained(model_folder, run_opts=run_opts)
    return lambda: [song.genre for _, song in classify_songs(classifier, paths)]


def loader_epoch(folder: str, cache: str, sizes: Sizes) -> Step:
    """An epoch of the loader of training clips, as the recipe sets it up."""
    options = {"clip_samples": sizes.clip_samples, "seed": SEED, "cache": cache}
    tracks = genre_datasets(folder, folder, n_genres=len(GENRES), **options)[0]["train"]
    sampler = PassSampler(len(tracks), sizes.epoch_clips // len(tracks), SEED)
    options = {"num_workers": 2 if cache == "disk" else 0, "collate_fn": clip_batch}
    loader = make_dataloader(tracks, sampler=sampler, batch_size=32, **options)
    return lambda: deque(loader, maxlen=0)


def write_model_folder(folder: str, sizes: Sizes) -> str:
    """Writes the model folder of ``our_model`` below a folder, and returns its path."""
    path, clips = f"{folder}/model", {"clip_samples": sizes.clip_samples}
    clips["hop_samples"] = sizes.hop_samples
    save_model_folder(path, our_model(sizes), GENRES, **clips)
    return path


def write_song(path: str, seconds: int) -> None:
    """Writes a song in GTZAN's format, 16-bit mono at 22.05 kHz; long ones repeat."""
    part = render_track(GENRES[0], 0, duration_s=30.0, sample_rate=SONG_RATE, seed=SEED)
    samples = np.resize(part.astype(np.float32), seconds * SONG_RATE)
    soundfile.write(path, samples, SONG_RATE, "PCM_16")


def write_cached_tracks(folder: str, sizes: Sizes) -> None:
    """Writes tracks of all genres, their 16 kHz copies and manifests, all to train."""
    n_tracks, seconds = sizes.n_tracks // len(GENRES), sizes.song_s[0]
    make_synthetic_gtzan(folder, n_tracks=n_tracks, duration_s=seconds, seed=SEED)
    split = {"assign_parts": lambda tracks: ["train"] * len(tracks), "options": {}}
    prepare_manifests(find_tracks(f"{folder}/genres"), folder, folder, **split)
