"""The figures: what was learned and how, and what a song looks like to the model.

``python -m ms_sincresnet.plots COMMAND --help`` tells what each is drawn from. The
functions return a ``matplotlib.figure.Figure``, which ``save_figure`` writes.
"""

import argparse
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ms_sincresnet.errors import UserError, exit_on_user_error

# Torch and matplotlib are imported where they are used, so that a command line is read
# without them. Not pyplot, which keeps every figure and may ask for a screen.

SUFFIXES = (".png", ".pdf", ".svg")
LOG = "train_log.txt"

# What SpeechBrain's FileTrainLogger writes of an epoch; of a test, no train loss.
EPOCH_LINE = re.compile(r"\bepoch: (\d+)\b.* - train loss: ([^\s,]+)")

# The short-term Fourier transform of the paper's section 4.1.
WINDOW_SAMPLES = 512
HOP_SAMPLES = 128

RESPONSE_SAMPLES = 4096  # bins of 4 Hz at 16 kHz; filters of 1001 taps resolve 16 Hz

FLOOR_DB = -80  # what is less is drawn as this

TICKS_HZ = (100, 250, 500, 1000, 2000, 4000, 8000)
# Of matplotlib's style tableau-colorblind10.
BLUE, ORANGE, SKY = "#006BA4", "#FF800E", "#5F9ED1"

THIN = {"aspect": 50, "pad": 0.02}  # colour bars


def save_figure(figure, path):
    """Writes a figure, whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or pathlib.Path
        The image to write, in the format of its suffix. Its folder is made.

    Raises
    ------
    UserError
        If it cannot be written there.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> path = getfixture("tmp_path") / "figures" / "empty.svg"
    >>> save_figure(Figure(), path)
    >>> path.read_text()[:5]
    '<?xml'
    """
    from ms_sincresnet.data.audio import atomic_path

    path = Path(path)
    try:
        with atomic_path(path) as temporary_path:
            figure.savefig(temporary_path, format=path.suffix[1:], dpi=120)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def plot_representations(frontend, clip, start_s=0.0, title=""):
    """The paper's Fig. 4: a clip as it is seen by hand-crafted and by learned filters.

    On the left, in dB below their highest value: spectrogram, its harmonic and its
    percussive part, and mel-spectrogram, as in section 4.1. The parts are those of
    median filtering (D. Fitzgerald, "Harmonic/percussive separation using median
    filtering", DAFx 2010) over 31 frames and 31 bins, with soft masks. On the right the
    maps that the ResNet gets, a row a filter.

    Arguments
    ---------
    frontend : MSSincNet
        A front-end in evaluation mode.
    clip : torch.Tensor [time]
        A clip at its sample rate.
    start_s : float
        Where in the song the clip starts, in s.
    title : str
        What is shown.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    UserError
        If the front-end learns no maps, or librosa is not installed.

    Example
    -------
    >>> import torch
    >>> plot_representations(torch.nn.Identity(), torch.zeros(48000))
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.UserError: the model learns no maps: expected one with the \
front-end MSSincNet, such as MSSincResNet; its front-end is Identity
    """
    import torch
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    from ms_sincresnet.nnet.frontend import MSSincNet

    if not isinstance(frontend, MSSincNet):
        raise UserError(
            "the model learns no maps: expected one with the front-end MSSincNet, "
            f"such as MSSincResNet; its front-end is {type(frontend).__name__}"
        )
    rate = frontend.banks[0].sample_rate
    end_s = start_s + len(clip) / rate
    spectrograms, frames_s = _spectrograms(clip.cpu(), rate)
    with torch.no_grad():
        maps = frontend(clip[None])[0].cpu().numpy()

    figure = Figure(figsize=(13, 10), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subfigures(1, 2)
    panels = left.subplots(len(spectrograms), sharex=True)
    for axes, (name, (decibels, rows_hz)) in zip(
        panels, spectrograms.items(), strict=True
    ):
        times_s = _edges(start_s + frames_s)
        if name == "mel-spectrogram":
            image = _draw_image(axes, decibels, times_s, vmin=FLOOR_DB, vmax=0)
            _name_rows(axes, rows_hz, "mel band")
        else:
            _draw_image(axes, decibels, times_s, _edges(rows_hz), vmin=FLOOR_DB, vmax=0)
            axes.set(ylabel="frequency (Hz)", ylim=(0, rate / 2))
        axes.set(title=name, xlim=(start_s, end_s))
    axes.set_xlabel("time (s)")
    left.colorbar(image, ax=panels, label="relative to the highest value (dB)", **THIN)

    # Few values are high. By square roots the others are seen as well.
    scale = PowerNorm(0.5, 0, np.quantile(maps, 0.999), clip=True)
    panels = right.subplots(len(maps), sharex=True)
    for axes, bank, values in zip(panels, frontend.banks, maps, strict=True):
        image = _draw_image(axes, values, (start_s, end_s), norm=scale)
        _name_rows(axes, _centres_hz(bank))
        axes.set_title(f"learned by filters of {bank.kernel_size} taps")
    axes.set_xlabel("time (s)")
    right.colorbar(image, ax=panels, label="value in the map", extend="max", **THIN)
    return figure


def _spectrograms(clip, rate):
    """By name: images of a clip in dB, frequencies of their rows; times of columns."""
    from ms_sincresnet.nnet.mel import LogMelSpectrogram

    try:
        import librosa
    except ImportError as error:
        raise UserError(
            "the harmonic and percussive spectrograms need librosa, which is not "
            "installed: pip install 'ms_sincresnet[plots]'"
        ) from error
    spectrum = np.abs(
        librosa.stft(clip.numpy(), n_fft=WINDOW_SAMPLES, hop_length=HOP_SAMPLES)
    )
    harmonic, percussive = librosa.decompose.hpss(spectrum)
    highest = spectrum.max()
    bins_hz = np.linspace(0, rate / 2, len(spectrum))
    mel = LogMelSpectrogram(
        window_samples=WINDOW_SAMPLES, hop_samples=HOP_SAMPLES, sample_rate=rate
    )
    bands = mel(clip[None])[0, 0].exp().sqrt().numpy()
    bands_hz = np.linspace(0, rate / 2, mel.bands.shape[1])[mel.bands.argmax(1)]
    spectrograms = {
        "spectrogram": (_decibels(spectrum, highest), bins_hz),
        "harmonic spectrogram": (_decibels(harmonic, highest), bins_hz),
        "percussive spectrogram": (_decibels(percussive, highest), bins_hz),
        "mel-spectrogram": (_decibels(bands, bands.max()), bands_hz),
    }
    return spectrograms, np.arange(spectrum.shape[1]) * HOP_SAMPLES / rate


def _decibels(amplitudes, highest):
    """Amplitudes in dB below the highest; silence is at the floor."""
    least = 10 ** (FLOOR_DB / 20)
    return 20 * np.log10(np.maximum(amplitudes / (highest or 1), least))


def _edges(middles):
    """Where the first of evenly spaced rows or columns begins, and the last ends."""
    half = (middles[1] - middles[0]) / 2
    return middles[0] - half, middles[-1] + half


def _draw_image(axes, values, x, y=None, **scale):
    """Draws an image between two edges in x, and two in y or with a unit a row."""
    y = y or (-0.5, len(values) - 0.5)
    options = {"origin": "lower", "aspect": "auto", "cmap": "magma"}
    return axes.imshow(values, extent=(*x, *y), **options, **scale)


def _name_rows(axes, rows_hz, what="filter"):
    """Names some rows, those next to round frequencies, by their own."""
    rows_hz = np.asarray(rows_hz)
    rows = np.unique([np.abs(rows_hz - hz).argmin() for hz in TICKS_HZ])
    axes.set_yticks(rows, [f"{hz:.0f}" for hz in rows_hz[rows]])
    axes.set_ylabel(f"{what}, by its centre (Hz)")


def _centres_hz(bank):
    """The centre frequencies of a filterbank."""
    return (sum(bank.cutoffs()) / 2).detach().cpu().numpy()


def read_losses(path):
    """The training losses of a run.

    Arguments
    ---------
    path : str or pathlib.Path
        The ``train_log.txt`` of a run, or the run's folder.

    Returns
    -------
    pandas.Series
        Mean loss of each epoch, by its number; where an epoch was logged again, the
        later line counts.

    Raises
    ------
    UserError
        If there is no such file, or it tells of no epoch.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> line = "epoch: 1, lr: 1.0000e-05 - train loss: 2.3026 - valid loss: 2.3010"
    >>> _ = path.write_text(line)
    >>> read_losses(path)
    epoch
    1    2.3026
    Name: train loss, dtype: float64
    """
    path = Path(path)
    if path.is_dir():
        path /= LOG
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; expected the {LOG} of a run, or the run's folder"
        )
    found = EPOCH_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
    try:
        losses = {int(epoch): float(loss) for epoch, loss in found}
    except ValueError as error:
        raise UserError(f"{path}: not a training log ({error})") from error
    if not losses:
        raise UserError(
            f"{path}: tells of no epoch; expected lines such as "
            '"epoch: 1, lr: 1.0000e-05 - train loss: 2.3026 - valid loss: 2.3010"'
        )
    return pd.Series(losses, name="train loss").rename_axis("epoch").sort_index()


def plot_losses(runs):
    """The paper's Fig. 5: training losses of several runs.

    Arguments
    ---------
    runs : dict of str to pandas.Series
        What ``read_losses`` returns, by the names of the runs.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Example
    -------
    >>> losses = pd.Series([2.3, 1.9], index=[1, 2])
    >>> figure = plot_losses({"SincNet": losses, "MS-SincResNet": losses / 2})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['SincNet', 'MS-SincResNet']
    """
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    colours = matplotlib.style.library["tableau-colorblind10"]["axes.prop_cycle"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(matplotlib.cycler(linestyle=["-", "--", ":"]) * colours)
    for name, losses in runs.items():
        # Marks, since a line through one epoch would not be seen.
        marker = "o" if len(losses) < 20 else None
        axes.plot(losses.index, losses, label=name, marker=marker, markersize=4)
    axes.set(
        title="training loss",
        xlabel="epoch",
        ylabel="mean negative log-likelihood of a clip (nats)",
    )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def cutoff_table(model):
    """The cut-off frequencies of a model's filters, at first and as they are now.

    Arguments
    ---------
    model : torch.nn.Module
        A system with ``config``, such as ``MSSincResNet``.

    Returns
    -------
    pandas.DataFrame
        A row a filter: scale and filter, counted from 0, kernel_size, init_low_hz,
        init_high_hz, low_hz and high_hz.

    Raises
    ------
    UserError
        If the model learns no filters.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> table = cutoff_table(MSSincResNet(n_filters=8))
    >>> len(table), (table.low_hz == table.init_low_hz).all().item()
    (24, True)
    """
    from ms_sincresnet.nnet.filterbank import SincFilterbank

    tables = []
    for scale, bank in enumerate(_filterbanks(model)):
        first = SincFilterbank(
            bank.n_filters,
            bank.kernel_size,
            bank.sample_rate,
            model.config["init"],
            bank.min_low_hz,
            bank.min_band_hz,
        )
        names = ("init_low_hz", "init_high_hz", "low_hz", "high_hz")
        cutoffs = zip(names, (*first.cutoffs(), *bank.cutoffs()), strict=True)
        columns = {name: hz.detach().cpu().numpy() for name, hz in cutoffs}
        sizes = {"scale": scale, "kernel_size": bank.kernel_size}
        tables.append(pd.DataFrame(sizes | {"filter": range(bank.n_filters)} | columns))
    return pd.concat(tables, ignore_index=True)


def _filterbanks(model):
    """The filterbanks of a model."""
    from ms_sincresnet.nnet.filterbank import SincFilterbank

    banks = [part for part in model.modules() if isinstance(part, SincFilterbank)]
    if not banks:
        raise UserError(
            "the model learns no filters: expected one with a SincFilterbank, such as "
            f"MSSincResNet or SincNet; got a {type(model).__name__}"
        )
    return banks


def plot_filters(model, title=""):
    """The learned filters: frequency responses, and how far the cut-offs moved.

    A row of panels a scale. On the left the responses, each in dB below its own highest
    value, with the initial cut-offs as lines. On the right the change of each cut-off
    over where it started.

    Arguments
    ---------
    model : torch.nn.Module
        A system with ``config``, such as ``MSSincResNet``.
    title : str
        What is shown.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    UserError
        If the model learns no filters.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> figure = plot_filters(MSSincResNet(n_filters=8))
    >>> figure.axes[1].get_title()
    'cut-offs moved by 0.0 Hz in the median, 0.0 Hz at most'
    """
    from matplotlib.figure import Figure

    banks, table = _filterbanks(model), cutoff_table(model)
    figure = Figure(figsize=(13, 1.5 + 3.3 * len(banks)), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(len(banks), 2, squeeze=False, sharex=True)
    for (left, right), bank, (_, cutoffs) in zip(
        panels, banks, table.groupby("scale"), strict=True
    ):
        image = _draw_responses(left, bank, cutoffs)
        _draw_shifts(right, cutoffs)
    left.set_xlabel("frequency (Hz)")
    right.set_xlabel("initial cut-off (Hz)")
    label = "relative to the filter's highest value (dB)"
    figure.colorbar(image, ax=panels[:, 0], label=label, **THIN)
    return figure


def _draw_responses(axes, bank, cutoffs):
    """Draws the frequency responses of a filterbank, and its initial cut-offs."""
    taps = bank.filters().detach().cpu().double().numpy()
    responses = np.abs(np.fft.rfft(taps, RESPONSE_SAMPLES))
    bins_hz = np.linspace(0, bank.sample_rate / 2, responses.shape[1])
    decibels = np.stack([_decibels(response, response.max()) for response in responses])
    image = _draw_image(axes, decibels, _edges(bins_hz), vmin=-60, vmax=0)
    for name in ("init_low_hz", "init_high_hz"):
        axes.plot(cutoffs[name], cutoffs["filter"], color=SKY, linewidth=0.8)
    _name_rows(axes, _centres_hz(bank))
    title = f"filters of {bank.kernel_size} taps (lines: initial cut-offs)"
    axes.set(title=title, xlim=(0, bins_hz[-1]))
    return image


def _draw_shifts(axes, cutoffs):
    """Draws how far the cut-offs of a filterbank moved."""
    shifts = []
    for name, label, colour, marker in [
        ("low_hz", "lower cut-off", BLUE, "o"),
        ("high_hz", "upper cut-off", ORANGE, "x"),
    ]:
        first = cutoffs[f"init_{name}"]
        shifts.append(cutoffs[name] - first)
        axes.plot(first, shifts[-1], marker, color=colour, markersize=4, label=label)
    moved = pd.concat(shifts).abs()
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(
        title=f"cut-offs moved by {moved.median():.1f} Hz in the median, "
        f"{moved.max():.1f} Hz at most",
        ylabel="learned less initial cut-off (Hz)",
    )
    axes.grid(alpha=0.3)
    axes.legend()


def read_confusion_matrix(path):
    """A confusion matrix as a test writes it.

    Arguments
    ---------
    path : str or pathlib.Path
        A ``confusion_matrix.csv``.

    Returns
    -------
    pandas.DataFrame
        Numbers of tracks by genre (rows) and predicted genre (columns).

    Raises
    ------
    UserError
        If there is no such file, or it is none.

    Example
    -------
    >>> path = getfixture("tmp_path") / "confusion_matrix.csv"
    >>> _ = path.write_text("genre,jazz,rock\\njazz,3,1\\nrock,0,4\\n")
    >>> read_confusion_matrix(path).loc["jazz", "rock"].item()
    1
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a confusion_matrix.csv")
    try:
        matrix = pd.read_csv(path, index_col="genre", dtype={"genre": str})
    except ValueError as error:  # as pandas' and Unicode's own are
        raise UserError(f"{path}: not a confusion matrix ({error})") from error
    counts = matrix.to_numpy()
    if (
        list(matrix.index) != list(matrix.columns)
        or counts.dtype.kind != "i"
        or (counts < 0).any()
    ):
        raise UserError(
            f"{path}: not a confusion matrix; expected a column genre and a column of "
            "counts for each genre, in the order of the rows"
        )
    return matrix


def plot_confusion_matrix(matrix, dataset):
    """The confusion matrix of a test.

    Arguments
    ---------
    matrix : pandas.DataFrame
        Numbers of tracks by genre (rows) and predicted genre (columns).
    dataset : str
        What was tested on.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Example
    -------
    >>> genres = ["jazz", "rock"]
    >>> matrix = pd.DataFrame([[3, 1], [0, 4]], genres, genres)
    >>> plot_confusion_matrix(matrix, "eight songs").axes[0].get_title()
    'eight songs: 8 tracks, 87.5% right'
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    counts = matrix.to_numpy()
    display = ConfusionMatrixDisplay(counts, display_labels=matrix.columns)
    display.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set(
        title=f"{dataset}: {counts.sum()} tracks, {accuracy:.1%} right",
        xlabel="predicted genre",
        ylabel="true genre",
    )
    return figure


def plot_timeline(posteriors, duration_s, title=""):
    """A song's genre timeline: the posteriors of its clips, the likeliest ones marked.

    Each moment has the posteriors of the clip whose middle is the nearest. The genre of
    the highest mean posterior is on top.

    Arguments
    ---------
    posteriors : pandas.DataFrame
        A row a clip, by the time of its middle in s; a column a genre.
    duration_s : float
        Length of the song, in s.
    title : str
        What is shown.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Example
    -------
    >>> clips = {"jazz": [0.9, 0.3], "rock": [0.1, 0.7]}
    >>> figure = plot_timeline(pd.DataFrame(clips, index=[1.5, 2.0]), duration_s=3.5)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['rock', 'jazz']
    """
    from matplotlib.figure import Figure

    genres = posteriors.mean().sort_values().index
    values, middles_s = posteriors[genres].to_numpy(), posteriors.index.to_numpy()
    edges_s = [0, *(middles_s[1:] + middles_s[:-1]) / 2, duration_s]
    height = 1.6 + 0.32 * len(genres)
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots()
    image = axes.pcolormesh(
        edges_s,
        np.arange(len(genres) + 1) - 0.5,
        values.T,
        cmap="Blues",
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    axes.plot(
        middles_s,
        values.argmax(1),
        ".",
        color=ORANGE,
        label="likeliest genre of the clip",
    )
    axes.set_yticks(range(len(genres)), genres)
    axes.set(title=title, xlabel="time (s)")
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.08), frameon=False)
    figure.colorbar(image, label="posterior of the clip", **THIN)
    return figure


def add_arguments(parser):
    """Adds the commands, one a figure.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        The parser. What it parses is for ``run``.

    Example
    -------
    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["loss", "results/run"]).logs
    [PosixPath('results/run')]
    """
    commands = parser.add_subparsers(dest="figure", metavar="COMMAND", required=True)

    def add(draw, name, text):
        command = commands.add_parser(name, help=text, description=f"{text}.")
        command.set_defaults(draw=draw)
        command.add_argument(
            "--output",
            type=_image_path,
            help="the image to write, .png, .pdf or .svg (default: a .png in this "
            "folder, named after the figure)",
        )
        return command

    add_model = {"metavar": "MODEL", "help": "a model folder"}
    add_audio = {"metavar": "AUDIO", "type": Path, "help": "a song"}
    command = add(
        _draw_representations,
        "representations",
        "a clip's spectrograms beside the maps that the model learned (Fig. 4)",
    )
    command.add_argument("model", **add_model)
    command.add_argument("audio", **add_audio)
    command.add_argument(
        "--start", type=_seconds, default=0.0, help="where the clip starts, in s"
    )

    command = add(_draw_losses, "loss", "training losses of several runs (Fig. 5)")
    command.add_argument(
        "logs", metavar="LOG", type=Path, nargs="+", help=f"a run's folder or its {LOG}"
    )
    command.add_argument("--labels", nargs="+", help="names of the runs, in order")

    command = add(
        _draw_filters, "filters", "what the filters became and where they started"
    )
    command.add_argument("model", **add_model)

    command = add(_draw_confusion_matrix, "confusion", "a confusion matrix")
    command.add_argument(
        "csv", metavar="CSV", type=Path, help="a confusion_matrix.csv of a test"
    )

    command = add(_draw_timeline, "timeline", "the genres of a song over its time")
    command.add_argument("model", **add_model)
    command.add_argument("audio", **add_audio)


def _image_path(text):
    """A path that figures can be written to."""
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(
            f"expected a name that ends in {', '.join(SUFFIXES)}; got {text!r}"
        )
    return path


def _seconds(text):
    """A time in a song."""
    try:
        time_s = float(text)
    except ValueError:
        time_s = -1
    if not 0 <= time_s < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time ≥ 0 in s; got {text!r}")
    return time_s


def _load(model):
    """The classifier of a model folder."""
    from ms_sincresnet import GenreClassifier

    return GenreClassifier.from_hparams(model)


def _draw_representations(arguments):
    """The figure of a clip, from the command line."""
    from ms_sincresnet.data.audio import repeat_to_length

    classifier = _load(arguments.model)
    rate, n_samples = classifier.hparams.sample_rate, classifier.hparams.clip_samples
    wav = repeat_to_length(classifier.load_audio(arguments.audio), n_samples)
    start = round(arguments.start * rate)
    if start + n_samples > len(wav):
        raise UserError(
            f"{arguments.audio}: the last clip of {n_samples / rate:g} s starts at "
            f"{(len(wav) - n_samples) / rate:g} s; got {arguments.start:g} s"
        )
    clip = wav[start : start + n_samples]
    end_s = arguments.start + n_samples / rate
    title = f"{arguments.audio.name}, {arguments.start:g} to {end_s:g} s"
    frontend = classifier.mods.embedding_model.frontend
    return plot_representations(frontend, clip, arguments.start, title)


def _draw_losses(arguments):
    """The figure of losses, from the command line."""
    names = arguments.labels or _names_of_runs(arguments.logs)
    if len(names) != len(arguments.logs) or len(set(names)) != len(names):
        raise UserError(
            f"expected a label of its own for each of the {len(arguments.logs)} runs; "
            f"got {', '.join(names)}"
        )
    losses = [read_losses(path) for path in arguments.logs]
    return plot_losses(dict(zip(names, losses, strict=True)))


def _names_of_runs(paths):
    """What tells the folders of runs apart."""
    paths = [path.resolve() for path in paths]
    folders = [path if path.is_dir() else path.parent for path in paths]
    root = os.path.commonpath([folder.parent for folder in folders])
    return [os.path.relpath(folder, root) for folder in folders]


def _draw_filters(arguments):
    """The figure of filters, from the command line."""
    model = _load(arguments.model).hparams.model
    return plot_filters(model, f"{arguments.model}: learned filters")


def _draw_confusion_matrix(arguments):
    """The figure of a confusion matrix, from the command line."""
    matrix = read_confusion_matrix(arguments.csv)
    return plot_confusion_matrix(matrix, arguments.csv.resolve().parent.name)


def _draw_timeline(arguments):
    """The figure of a song, from the command line."""
    import torch

    from ms_sincresnet.nnet.voting import vote

    classifier = _load(arguments.model)
    hparams, mods = classifier.hparams, classifier.mods
    wav = classifier.load_audio(arguments.audio)
    with torch.no_grad(), classifier.inference_ctx:
        embeddings = mods.embedding_model(wav[None])
        (clips,) = mods.classifier.clip_log_posteriors(embeddings)
    index, shares = vote(clips, hparams.voting)
    genres = hparams.label_encoder.decode_torch(torch.arange(clips.shape[1]))
    duration_s = len(wav) / hparams.sample_rate
    first_s = min(duration_s, hparams.clip_samples / hparams.sample_rate) / 2
    starts_s = np.arange(len(clips)) * hparams.hop_samples / hparams.sample_rate
    posteriors = pd.DataFrame(clips.exp().cpu().numpy(), first_s + starts_s, genres)
    of = {"majority": "votes", "mean": "mean posterior"}[hparams.voting]
    title = (
        f"{arguments.audio.name}: {genres[index]}, {shares[index]:.0%} of the {of} of "
        f"{len(clips)} clips"
    )
    return plot_timeline(posteriors, duration_s, title)


def run(arguments):
    """Draws a figure, writes it and tells where.

    Arguments
    ---------
    arguments : argparse.Namespace
        What was parsed.

    Raises
    ------
    UserError
        If a file is missing or of another kind than expected.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> path = getfixture("tmp_path") / "empty.pdf"
    >>> arguments = argparse.Namespace(draw=lambda arguments: Figure(), output=path)
    >>> run(arguments)  # doctest: +ELLIPSIS
    written: ...empty.pdf
    """
    figure = arguments.draw(arguments)
    path = arguments.output
    if path is None:
        of = f"{arguments.audio.stem}_" if hasattr(arguments, "audio") else ""
        path = Path(f"{of}{arguments.figure}{SUFFIXES[0]}")
    save_figure(figure, path)
    print(f"written: {path}")


def main(argv=None):
    """Draws a figure from the command line.

    Arguments
    ---------
    argv : list of str, optional
        The command line.

    Example
    -------
    >>> main(["confusion", "nowhere.csv"])
    Traceback (most recent call last):
    ...
    SystemExit: error: nowhere.csv: no such file; expected a confusion_matrix.csv
    """
    parser = argparse.ArgumentParser(
        "python -m ms_sincresnet.plots", description=__doc__.splitlines()[0]
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with exit_on_user_error():
        run(arguments)


if __name__ == "__main__":
    main()
