"""What is measured: builders of steps, as ``measure`` takes them."""

import functools
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from peers import Frontend, PlainSystem
from speechbrain.dataio.dataloader import make_dataloader
from torch.nn import functional as F

from ms_sincresnet import (
    GenreClassifier,
    MelResNet,
    MSSincNet,
    MSSincResNet,
    SincNet,
    split_clips,
    vote,
)
from ms_sincresnet.data.audio import SAMPLE_RATE, read_audio
from ms_sincresnet.data.dataset import PassSampler, clip_loader_options, genre_datasets
from ms_sincresnet.data.synthetic import GENRES, render_track
from ms_sincresnet.inference.batch import classify_songs
from ms_sincresnet.pretrained.model_folder import save_model_folder

SONG_RATE = 22050  # Hz, GTZAN's


class Sizes(NamedTuple):
    """The sizes of everything; the defaults are the paper's and the recipe's.

    Arguments
    ---------
    n_filters : int
        Filters a scale.
    kernel_sizes : tuple of int
        Taps of each scale's filters.
    n_frames : int
        Frames of each map.
    clip_samples : int
        Samples of a clip.
    hop_samples : int
        Samples from one clip of a song to the next.
    few_clips : int
        Clips that the front-ends get.
    batch_size : int
        Clips of a training step, and of a song at a time.
    gpu_batch_size : int
        Clips of a training step on a GPU.
    gpu_larger_batch_sizes : tuple of int
        The same where ours is measured alone; the first that fits.
    song_s : tuple of int
        Lengths of songs, in s.
    n_songs : int
        Songs of a folder, of ``song_s[0]`` each.
    n_tracks : int
        Tracks that the loader reads from, of ``song_s[0]`` each.
    epoch_clips : int
        Clips of an epoch of the loader, about as many as GTZAN's.
    """

    n_filters: int = 160
    kernel_sizes: tuple = (251, 501, 1001)
    n_frames: int = 1024
    clip_samples: int = 48000
    hop_samples: int = 8000
    few_clips: int = 8
    batch_size: int = 32
    gpu_batch_size: int = 64
    gpu_larger_batch_sizes: tuple = (256, 128)
    song_s: tuple = (30, 120, 480, 3600)
    n_songs: int = 4
    n_tracks: int = 100
    epoch_clips: int = 3200

    def n_clips(self, seconds):
        """Clips of a song.

        Arguments
        ---------
        seconds : int
            Length of the song, in s.

        Returns
        -------
        int
            How many clips it is cut into.
        """
        return 1 + (seconds * SAMPLE_RATE - self.clip_samples) // self.hop_samples


def system_of_ours(sizes, name="MSSincResNet"):
    """A system of Table 1, the same whenever it is built.

    Arguments
    ---------
    sizes : Sizes
        The sizes.
    name : str
        "MSSincResNet"; "SincResNet", with three banks of the longest filters;
        "SincNet", with half as many of the shortest; or "MelResNet".

    Returns
    -------
    torch.nn.Module
        With random weights.
    """
    torch.manual_seed(0)
    n_genres, n_filters = len(GENRES), sizes.n_filters
    shortest, *_, longest = sizes.kernel_sizes
    if name == "MelResNet":
        return MelResNet(n_genres, n_mels=n_filters)
    if name == "SincNet":
        return SincNet(n_genres, n_filters // 2, shortest)
    options = {"kernel_sizes": sizes.kernel_sizes, "n_frames": sizes.n_frames}
    if name == "SincResNet":
        options |= {"kernel_sizes": 3 * (longest,), "pooling": "avg"}
    return MSSincResNet(n_genres, n_filters, **options)


def frontend_step(name, training, sizes):
    """Builds a forward pass of a front-end, in training with its backward pass.

    Arguments
    ---------
    name : str
        "ours" or one of ``peers.CONVOLUTIONS``.
    training : bool
        Whether it is trained or evaluated.
    sizes : Sizes
        The sizes.

    Returns
    -------
    callable
        The step.
    """
    torch.manual_seed(0)
    frontend = MSSincNet(sizes.n_filters, sizes.kernel_sizes, sizes.n_frames)
    if name != "ours":
        frontend = Frontend(name, frontend)
    frontend.train(training)
    wavs = torch.randn(sizes.few_clips, sizes.clip_samples)

    def evaluate():
        with torch.no_grad():
            frontend(wavs)

    def train():
        frontend.zero_grad()
        frontend(wavs).square().mean().backward()

    return train if training else evaluate


def training_step(name, precision, batch_size, sizes, device="cpu"):
    """Builds a step of training: forward, loss, backward, SGD.

    Arguments
    ---------
    name : str
        "plain", or a system as in ``system_of_ours``.
    precision : str
        "fp32" or "bf16", which is autocast.
    batch_size : int
        Clips.
    sizes : Sizes
        The other sizes.
    device : str
        "cpu" or "cuda".

    Returns
    -------
    callable
        The step.
    """
    if name == "plain":
        system = PlainSystem(system_of_ours(sizes))
    else:
        system = system_of_ours(sizes, name)
    system.train().to(device)
    optimizer = torch.optim.SGD(
        system.parameters(), lr=0.005, momentum=0.9, nesterov=True
    )
    wavs = torch.randn(batch_size, sizes.clip_samples, device=device)
    labels = torch.randint(len(GENRES), (batch_size,), device=device)

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            log_posteriors = system(wavs)
        F.nll_loss(log_posteriors, labels).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def plain_song_step(path, sizes):
    """Builds the plain pipeline's way from a file to the voted genre.

    Arguments
    ---------
    path : str
        The file.
    sizes : Sizes
        The sizes.

    Returns
    -------
    callable
        The step; it returns the genre's name.
    """
    system = PlainSystem(system_of_ours(sizes)).eval()

    def step():
        wav = torch.from_numpy(read_audio(path))
        clips = split_clips(wav, sizes.clip_samples, sizes.hop_samples)
        with torch.no_grad():
            batches = [system(batch) for batch in clips.split(sizes.batch_size)]
        index, _ = vote(torch.cat(batches))
        return GENRES[index]

    return step


def song_step(path, model_folder, precision):
    """Builds our way from a file to the voted genre.

    Arguments
    ---------
    path : str
        The file.
    model_folder : str
        What ``write_model_folder`` wrote.
    precision : str
        "fp32" or "bf16".

    Returns
    -------
    callable
        The step; it returns the genre's name.
    """
    classifier = GenreClassifier.from_hparams(
        model_folder, run_opts={"device": "cpu", "precision": precision}
    )
    return lambda: classifier.predict_song(path).genre


def plain_songs_step(paths, sizes):
    """Builds the plain pipeline's way through some songs, one after the other.

    Arguments
    ---------
    paths : list of str
        The files.
    sizes : Sizes
        The sizes.

    Returns
    -------
    callable
        The step; it returns the genres' names.
    """
    songs = [plain_song_step(path, sizes) for path in paths]
    return lambda: [name() for name in songs]


def songs_step(paths, model_folder, precision):
    """Builds our way through some songs: what ``ms-sincresnet classify`` does.

    Arguments
    ---------
    paths : list of str
        The files.
    model_folder : str
        What ``write_model_folder`` wrote.
    precision : str
        "fp32" or "bf16".

    Returns
    -------
    callable
        The step; it returns the genres' names.
    """
    classifier = GenreClassifier.from_pretrained(
        model_folder, run_opts={"device": "cpu", "precision": precision}
    )
    return lambda: [song.genre for _, song in classify_songs(classifier, paths)]


def loader_epoch(folder, cache, recipe, sizes):
    """Builds an epoch of the training part's loader, with nothing that it feeds.

    Arguments
    ---------
    folder : str
        Where ``write_cached_tracks`` wrote.
    cache : str
        As in ``genre_datasets``.
    recipe : dict
        The recipe's hparams.
    sizes : Sizes
        The sizes.

    Returns
    -------
    callable
        The step.
    """
    datasets, _ = genre_datasets(
        folder,
        folder,
        n_genres=len(GENRES),
        clip_samples=sizes.clip_samples,
        seed=recipe["seed"],
        cache=cache,
    )
    tracks = datasets["train"]
    options = clip_loader_options(
        tracks,
        PassSampler(len(tracks), sizes.epoch_clips // len(tracks), recipe["seed"]),
        batch_size=recipe["batch_size"],
        num_workers=recipe["num_workers"],
    )
    loader = make_dataloader(tracks, **options)

    def step():
        for _ in loader:
            pass

    return step


def write_model_folder(folder, sizes, name="MSSincResNet"):
    """Writes the model folder of ``system_of_ours``.

    Arguments
    ---------
    folder : str
        The folder.
    sizes : Sizes
        The sizes.
    name : str
        The system.
    """
    save_model_folder(
        folder,
        system_of_ours(sizes, name),
        GENRES,
        clip_samples=sizes.clip_samples,
        hop_samples=sizes.hop_samples,
    )


def write_song(path, seconds):
    """Writes a song as GTZAN's are, 16-bit mono at 22.05 kHz; long ones repeat.

    Arguments
    ---------
    path : str
        The file.
    seconds : int
        Length of the song, in s.
    """
    part = _render(GENRES[0], SONG_RATE)
    missing = seconds * SONG_RATE
    with soundfile.SoundFile(path, "w", SONG_RATE, 1, "PCM_16") as file:
        while missing:
            file.write(part[:missing])
            missing -= len(part[:missing])


def write_cached_tracks(folder, sizes):
    """Writes 16 kHz tracks of all genres, as the preparation leaves them.

    Arguments
    ---------
    folder : str
        Where they go.
    sizes : Sizes
        The sizes.
    """
    rows = ["ID,duration,wav,genre"]
    for track in range(sizes.n_tracks):
        genre = GENRES[track % len(GENRES)]
        name = f"{genre}.{track:05d}"
        samples = _render(genre, SAMPLE_RATE)[: sizes.song_s[0] * SAMPLE_RATE]
        soundfile.write(Path(folder) / f"{name}.wav", samples, SAMPLE_RATE, "PCM_16")
        duration = len(samples) / SAMPLE_RATE
        rows.append(f"{name},{duration},$data_root/{name}.wav,{genre}")
    for part in ("train", "valid", "test"):
        (Path(folder) / f"{part}.csv").write_text("\n".join(rows) + "\n")


@functools.cache
def _render(genre, sample_rate):
    """Half a minute of synthesised music."""
    return render_track(genre, 0, duration_s=30.0, sample_rate=sample_rate, seed=0)
