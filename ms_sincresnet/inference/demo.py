"""A web page on which a model classifies a song that is dropped there."""

import html
import logging
import re
from collections.abc import Callable
from functools import partial
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ms_sincresnet.data.clips import split_clips
from ms_sincresnet.errors import UserError, needs_extra
from ms_sincresnet.inference.classifier import GenreClassifier
from ms_sincresnet.inference.fusion import genres_of
from ms_sincresnet.inference.predictions import ClipPrediction, SongPrediction
from ms_sincresnet.nnet.frontend import MSSincNet
from ms_sincresnet.plots.representations import plot_maps
from ms_sincresnet.plots.timeline import plot_timeline, read_envelope

KEPT_S = 3600  # how long an upload is kept, since the page plays it
FINE_HOP_S = 0.5  # at most: timelines show where a song changes
DPI = 150  # of figures that are 11 inches wide and shown over the page's width

ABOUT = """
# What genre is it?

{model} distinguishes {n_genres} genres: {genres}. It listens to clips of {clip_s:g} s,
every {hop_s:g} s. Speech and noise get one of these names too.
"""
SHARES = {"majority": "shares of the clips’ votes", "mean": "posteriors"}
LEARNED = """
### What the network sees

Its filters turn {start_s:g} to {end_s:g} s of the song, the clip with the highest
posterior of {genre}, into these images.
"""
NOTES = """
P.-C. Chang, Y.-S. Chen, C.-H. Lee, “MS-SincResNet: Joint learning of 1D and 2D kernels
using multi-scale SincNet and ResNet for music genre classification”, ICMR 2021.

Songs stay on the machine that serves this page, and are deleted after an hour.
"""
# On a phone figures are wider than the screen, so that they can be read.
STYLE = """
.figure {overflow-x: auto}
.figure .layout {align-items: flex-start}
.figure img {width: 100%; min-width: 40rem; border-radius: var(--radius-md)}
.notes {font-size: var(--text-sm)}
"""


class SongView(NamedTuple):
    """Prediction, figures and most certain clip of a song, as the page shows them."""

    prediction: SongPrediction
    timeline: Figure
    surest: ClipPrediction
    maps: Figure | None


def analyze_song(
    classifier: GenreClassifier, path: str | Path, progress: Callable = iter
) -> SongView:
    """Prediction and figures of a song, whose seconds ``progress`` passes on."""
    rate = classifier.hparams.sample_rate
    envelope, wav = read_envelope(path, rate), classifier.load_audio(path)
    blocks = progress(wav.split(rate))
    ((_, prediction),) = classifier.predict_songs([(path, blocks)])
    if isinstance(prediction, UserError):
        raise prediction
    posteriors = prediction.timeline()
    surest = prediction.clips[np.nanargmax(posteriors[prediction.genre])]
    timeline = plot_timeline(posteriors, prediction.duration, envelope)
    maps = _plot_maps(classifier, wav[round(surest.start_s * rate) :], surest.start_s)
    return SongView(prediction, timeline, surest, maps)


@torch.no_grad()
def _plot_maps(classifier: Any, wav: Tensor, start_s: float) -> Figure | None:
    """The learned maps, if any, of the clip with which a waveform begins."""
    embedding = classifier.mods.embedding_model
    if not isinstance(embedding.frontend, MSSincNet):
        return None
    clip = split_clips(wav, embedding.clip_samples)[0]
    maps = embedding.frontend(embedding.full_scale * clip[None])[0].cpu().numpy()
    banks = embedding.frontend.banks
    centres_hz = [sum(bank.cutoffs()).cpu().numpy() / 2 for bank in banks]
    sizes = [bank.kernel_size for bank in banks]
    clip_s = embedding.clip_samples / classifier.hparams.sample_rate
    return plot_maps(maps, centres_hz, sizes, start_s, clip_s)


def build_demo(source: str | Path | GenreClassifier) -> Any:
    """The page of a model, a ``gradio.Blocks`` that sends no request elsewhere."""
    classifier: Any = source
    if not isinstance(source, GenreClassifier):
        classifier = GenreClassifier.from_pretrained(source)
    classifier.hop_s = min(classifier.hop_s, FINE_HOP_S)
    with needs_extra("the page", "demo"):
        import gradio as gr
    hparams, genres = classifier.hparams, genres_of(classifier.hparams)
    model = type(hparams.model).__name__
    about = ABOUT.format(
        model=f"{model} ({_plain(source)})" if isinstance(source, str) else model,
        n_genres=len(genres),
        genres=", ".join(map(_plain, genres)),
        clip_s=hparams.clip_samples / hparams.sample_rate,
        hop_s=classifier.hop_s,
    )
    library = logging.getLogger("ms_sincresnet")
    blank = [None, gr.update(visible=False), None, "", None]

    def show(path, progress=gr.Progress()):  # noqa: B008, gradio's way
        yield blank
        if path is None:
            return
        warnings = BufferingHandler(1000)
        warnings.setLevel(logging.WARNING)
        library.addHandler(warnings)
        listening = partial(progress.tqdm, desc="listening", unit="s")
        try:
            progress(0, "reading")
            view = analyze_song(classifier, path, listening)
        except UserError as error:
            message = _message(error, path)
            raise gr.Error(message, duration=None, print_exception=False) from None
        finally:
            library.removeHandler(warnings)
        # The same ones come each time that the file is read.
        for warning in {record.getMessage(): None for record in warnings.buffer}:
            gr.Warning(_message(warning, path), duration=None)
        genre, shares = view.prediction.genre, view.prediction.shares
        shares = {genre: shares[genre], **shares}  # first in a tie
        clip = view.surest._replace(genre=_plain(genre))
        learned = LEARNED.format(**clip._asdict()) if view.maps else ""
        for figure in filter(None, (view.timeline, view.maps)):
            figure.set_dpi(DPI)
        yield [shares, gr.update(visible=True), view.timeline, learned, view.maps]

    title, kept = "Music genre classification", (KEPT_S // 4, KEPT_S)
    with gr.Blocks(analytics_enabled=False, title=title, delete_cache=kept) as demo:
        gr.Markdown(about)
        with gr.Row(equal_height=True):
            song = gr.Audio(type="filepath", label="song", editable=False, buttons=[])
            genre = gr.Label(label=SHARES[hparams.voting], num_top_classes=5)
        with gr.Column(visible=False) as details:
            gr.Markdown("### The song’s genre over time")
            timeline = gr.Plot(container=False, elem_classes="figure")
            learned = gr.Markdown()
            maps = gr.Plot(container=False, elem_classes="figure")
        gr.Markdown(NOTES, elem_classes="notes")
        once: Any = {"trigger_mode": "always_last", "concurrency_limit": 1}
        outputs = [genre, details, timeline, learned, maps]
        private: Any = {"show_progress_on": genre, "api_visibility": "private"}
        song.change(show, song, outputs, **private, **once)
    demo.queue(api_open=False)
    # Gradio accepts these here only, and the app.py of a Space passes none.
    page: Any = {"theme": gr.themes.Default(primary_hue="blue"), "css": STYLE}
    page |= {"footer_links": [], "run_history": False, "share": False}
    demo.launch = partial(demo.launch, **page)
    return demo


def launch(source: Any, *, host: str = "127.0.0.1", port: int | None = None) -> None:
    """Serves the page of a model until it is interrupted.

    Arguments
    ---------
    source
        Model folder, ``user/repository`` on the Hub, or a ``GenreClassifier``; None:
        the model that comes with the package.
    host, port
        Address to listen on ("0.0.0.0" admits other machines), and port; by default
        the first free one from 7860.

    Example
    -------
    >>> launch("no/such/folder")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: no/such/folder: no such model folder
    """
    demo = build_demo(source)
    try:
        demo.launch(server_name=host, server_port=port)
    except OSError as error:
        raise UserError(f"the page cannot be served: {error}") from error


def _plain(text: str) -> str:
    """Markdown that shows a text literally."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def _message(text: object, path: str | Path) -> str:
    """A message about a file as html, with the name under which it was uploaded."""
    return html.escape(str(text).replace(str(path), Path(path).name))
