"""A page in the browser on which a model is tried: drop a song, see its genre.

``build_demo`` makes the page, for this machine as well as for a Space of the Hub;
``launch`` serves it here. What it shows of a song is found out by ``analyze_song``.
"""

import html
import logging
import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import NamedTuple

import numpy as np
import torch

from ms_sincresnet.data.audio import read_audio, read_blocks
from ms_sincresnet.data.clips import repeat_to_length
from ms_sincresnet.errors import UserError
from ms_sincresnet.inference.classifier import GenreClassifier
from ms_sincresnet.inference.predictions import SongPrediction
from ms_sincresnet.nnet.frontend import MSSincNet
from ms_sincresnet.plots.representations import plot_maps
from ms_sincresnet.plots.timeline import plot_timeline, read_envelope

KEPT_S = 3600  # how long an upload is kept, since the page plays it
DPI = 150  # of figures that are 11 inches wide and shown over the page's width

ABOUT = """
# What genre is it?

{model} tells {n_genres} genres apart: {genres}. It listens to {clip_s:g} s of a song
at a time, every {hop_s:g} s. It knows no other names: whatever it hears, be it speech
or noise, gets one of these.
"""
SHARES = {
    "majority": "shares of the clips’ votes",
    "mean": "mean posteriors of the clips",
}
LEARNED = """
### What the network sees

Its learned filters make these images of {start_s:g} to {end_s:g} s, where it is the
surest of {genre}.
"""
NOTES = """
P.-C. Chang, Y.-S. Chen, C.-H. Lee, “MS-SincResNet: Joint learning of 1D and 2D kernels
using multi-scale SincNet and ResNet for music genre classification”, ICMR 2021.

Songs do not leave the machine that serves this page, and are deleted after an hour.
"""
# On a phone figures are wider than the screen, so that they can be read.
STYLE = """
.figure {overflow-x: auto}
.figure .layout {align-items: flex-start}
.figure img {width: 100%; min-width: 40rem; border-radius: var(--radius-md)}
.notes {font-size: var(--text-sm)}
"""


class SongView(NamedTuple):
    """What the page shows of a song.

    Arguments
    ---------
    prediction : SongPrediction
        Genre, votes and clips.
    timeline : matplotlib.figure.Figure
        The posteriors of the clips below the envelope of the song.
    surest : ClipPrediction
        The clip whose posterior of the genre is the largest.
    maps : matplotlib.figure.Figure or None
        What the front-end learned to make of that clip; of models that learn no maps,
        nothing.
    """

    prediction: SongPrediction
    timeline: object
    surest: tuple
    maps: object


def analyze_song(classifier, path, on_progress):
    """Finds out all that the page shows of a song.

    Arguments
    ---------
    classifier : GenreClassifier
        The model.
    path : str or pathlib.Path
        The song, of any length, sample rate and channel count.
    on_progress : callable
        Called with what part is done, from 0 to 1, and what is being done.

    Returns
    -------
    SongView
        Prediction and figures.

    Raises
    ------
    AudioFileError
        If the file cannot be used as audio.

    Example
    -------
    >>> import soundfile
    >>> from ms_sincresnet import MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path")
    >>> save_model_folder(folder / "model", MSSincResNet(2, n_filters=8), ["a", "b"])
    >>> classifier = GenreClassifier.from_pretrained(folder / "model")
    >>> soundfile.write(folder / "song.wav", np.random.randn(64000) / 8, 16000)
    >>> view = analyze_song(classifier, folder / "song.wav", on_progress=lambda *_: None)
    >>> view.prediction.genre in ("a", "b"), len(view.timeline.axes)
    (True, 3)
    """
    rate = classifier.hparams.sample_rate
    on_progress(0.0, "reading")
    envelope = read_envelope(path, rate)
    n_samples = len(envelope) * rate / 100
    prediction = _predict(classifier, path, n_samples, on_progress)
    posteriors = prediction.timeline()
    surest = prediction.clips[np.nanargmax(posteriors[prediction.genre])]
    embedding = classifier.mods.embedding_model
    maps = None
    if isinstance(embedding.frontend, MSSincNet):
        clip = read_audio(
            path, rate, excerpt=(surest.start_s, embedding.clip_samples / rate)
        )
        clip = repeat_to_length(torch.from_numpy(clip), embedding.clip_samples)
        clip = embedding.full_scale * clip.to(classifier.device)
        maps = plot_maps(embedding.frontend, clip, surest.start_s)
        maps.set_dpi(DPI)
    timeline = plot_timeline(posteriors, prediction.duration, envelope=envelope)
    timeline.set_dpi(DPI)
    return SongView(prediction, timeline, surest, maps)


def _predict(classifier, path, n_samples, on_progress):
    """The song's prediction, telling how much of it was heard."""

    def blocks():
        n_heard = 0
        for block in read_blocks(path, classifier.hparams.sample_rate):
            yield torch.from_numpy(block)
            n_heard += len(block)
            on_progress(n_heard / n_samples, "listening")

    ((_, prediction),) = classifier.predict_songs([(path, blocks())])
    if isinstance(prediction, UserError):
        raise prediction
    return prediction


def build_demo(source):
    """Makes the page of a model.

    Nothing that it does leaves the machine that serves it.

    Arguments
    ---------
    source : str, pathlib.Path or GenreClassifier
        A model folder, the name ``user/repository`` on the Hub, or a loaded model.

    Returns
    -------
    gradio.Blocks
        The page, to be served by its ``launch()``.

    Raises
    ------
    ModelFolderError
        If the model cannot be loaded.
    UserError
        If gradio is not installed.

    Example
    -------
    >>> build_demo("nowhere")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: nowhere: no such model folder
    """
    classifier = source
    if not isinstance(source, GenreClassifier):
        classifier = GenreClassifier.from_pretrained(source)
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError(
            "the page needs gradio, which is not installed: "
            "pip install 'ms_sincresnet[demo]'"
        ) from error
    blank = [None, gr.update(visible=False), None, "", None]

    def show(path, progress=gr.Progress()):  # noqa: B008, gradio's way
        yield blank
        if path is None:
            return
        try:
            with _warnings() as warnings:
                view = analyze_song(classifier, path, progress)
        except UserError as error:
            message = _message(error, path)
            raise gr.Error(message, duration=None, print_exception=False) from None
        for warning in dict.fromkeys(warnings):
            gr.Warning(_message(warning, path), duration=None)
        prediction = view.prediction
        shares = {prediction.genre: None, **prediction.shares}  # wins ties
        details = gr.update(visible=True)
        yield [shares, details, view.timeline, _learned(view), view.maps]

    with gr.Blocks(
        title="Music genre classification",
        analytics_enabled=False,
        delete_cache=(KEPT_S // 4, KEPT_S),
    ) as demo:
        gr.Markdown(_about(classifier, source))
        with gr.Row(equal_height=True):
            song = gr.Audio(type="filepath", label="song", editable=False, buttons=[])
            genre = gr.Label(label=SHARES[classifier.hparams.voting], num_top_classes=5)
        with gr.Column(visible=False) as details:
            gr.Markdown("### The song’s genre over time")
            timeline = gr.Plot(container=False, elem_classes="figure")
            learned = gr.Markdown()
            maps = gr.Plot(container=False, elem_classes="figure")
        gr.Markdown(NOTES, elem_classes="notes")
        song.change(
            show,
            song,
            [genre, details, timeline, learned, maps],
            show_progress_on=genre,
            api_visibility="private",
            trigger_mode="always_last",
            concurrency_limit=1,
        )
    demo.queue(api_open=False)
    # Gradio takes these here only, and the app.py of a Space gives none.
    demo.launch = partial(
        demo.launch,
        theme=gr.themes.Default(primary_hue="blue"),
        css=STYLE,
        footer_links=[],
        run_history=False,
        share=False,
    )
    return demo


def launch(source, *, host="127.0.0.1", port=None):
    """Serves the page of a model until it is interrupted.

    Arguments
    ---------
    source : str, pathlib.Path or GenreClassifier
        As in ``build_demo``.
    host : str
        The address to listen at: "0.0.0.0" lets other machines in.
    port : int, optional
        The port; if not given, the first free one from 7860 on.

    Raises
    ------
    UserError
        As ``build_demo``, or if the port is taken.

    Example
    -------
    >>> launch("nowhere")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.ModelFolderError: nowhere: no such model folder
    """
    demo = build_demo(source)
    try:
        demo.launch(server_name=host, server_port=port)
    except OSError as error:
        raise UserError(f"the page cannot be served: {error}") from error


def _about(classifier, source):
    """What the page says of a model."""
    hparams = classifier.hparams
    model = type(hparams.model).__name__
    if isinstance(source, str):
        model += f" ({_plain(source)})"
    genres = list(hparams.label_encoder.lab2ind)
    return ABOUT.format(
        model=model,
        n_genres=len(genres),
        genres=", ".join(map(_plain, genres)),
        clip_s=hparams.clip_samples / hparams.sample_rate,
        hop_s=hparams.hop_samples / hparams.sample_rate,
    )


def _learned(view):
    """What the page says of the maps."""
    if view.maps is None:
        return ""
    clip = view.surest
    return LEARNED.format(
        start_s=clip.start_s, end_s=clip.end_s, genre=_plain(view.prediction.genre)
    )


def _plain(text):
    """Markdown that shows a text as it is."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def _message(text, path):
    """What is told of a file: under the name that it came with, as plain html."""
    return html.escape(str(text).replace(str(path), Path(path).name))


@contextmanager
def _warnings():
    """What the library warns of in this thread, as it is logged."""
    messages, thread = [], get_ident()
    handler = logging.Handler(logging.WARNING)
    handler.addFilter(lambda record: record.thread == thread)
    handler.emit = lambda record: messages.append(record.getMessage())
    library = logging.getLogger("ms_sincresnet")
    library.addHandler(handler)
    try:
        yield messages
    finally:
        library.removeHandler(handler)
