"""The figures show what was computed otherwise, and the commands say what is wrong."""

import argparse
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from speechbrain.utils.train_logger import FileTrainLogger

from ms_sincresnet import MelResNet, MSSincNet, MSSincResNet, SincNet
from ms_sincresnet.inference.model_folder import save_model_folder
from ms_sincresnet.plots import (
    add_arguments,
    cutoff_table,
    main,
    plot_confusion_matrix,
    plot_filters,
    plot_losses,
    plot_representations,
    plot_timeline,
    read_confusion_matrix,
    read_losses,
    run,
    save_figure,
)

MATRIX = "genre,jazz,rock,pop\njazz,3,1,0\nrock,0,120,0\npop,2,0,4\n"
HAND_CRAFTED = [
    "spectrogram",
    "harmonic spectrogram",
    "percussive spectrogram",
    "mel-spectrogram",
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that commands drew, which are not written."""
    figures = []
    monkeypatch.setattr(
        "ms_sincresnet.plots.save_figure", lambda figure, path: figures.append(figure)
    )
    return figures


@pytest.fixture(scope="module")
def mel_folder(tmp_path_factory):
    """The folder of a model that learns no filters."""
    folder = tmp_path_factory.mktemp("mel") / "model"
    save_model_folder(folder, MelResNet(2), ["jazz", "rock"])
    return folder


def axes_by_title(figure):
    """The axes of a figure that have a title."""
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def highest_pixel(axes):
    """Where an image is the brightest: x and y in the units of its axes."""
    (image,) = axes.get_images()
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    row, column = np.unravel_index(values.argmax(), values.shape)
    x = left + (right - left) * (column + 0.5) / values.shape[1]
    return x, bottom + (top - bottom) * (row + 0.5) / values.shape[0]


def mel_cutoffs(n_filters):
    """SincNet's initial cut-offs at 16 kHz, by the formula of the mel scale."""
    ends = 2595 * np.log10(1 + np.array([30, 7900]) / 700)
    edges_hz = 700 * (10 ** (np.linspace(*ends, n_filters + 1) / 2595) - 1)
    low_hz = edges_hz[:-1] + 50
    return low_hz, np.minimum(low_hz + np.diff(edges_hz) + 50, 8000)


@pytest.fixture
def tone_and_click():
    """3 s of 1 kHz, slowly in and out, with a click at 2 s."""
    clip = 0.1 * torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(48000))
    clip *= torch.hann_window(48000)
    clip[32000] = 1.0
    return clip


def test_a_tone_and_a_click_are_where_they_are_in_every_panel(tone_and_click):
    pytest.importorskip("librosa")
    frontend = MSSincNet(n_filters=40).eval()
    figure = plot_representations(frontend, tone_and_click, start_s=10.0, title="tone")
    assert figure.get_suptitle() == "tone"
    panels = axes_by_title(figure)
    learned = [f"learned by filters of {n} taps" for n in (251, 501, 1001)]
    assert list(panels) == HAND_CRAFTED + learned
    for name in HAND_CRAFTED[:2]:
        assert highest_pixel(panels[name])[1] == pytest.approx(1000)
    time_s, _ = highest_pixel(panels["percussive spectrogram"])
    assert time_s == pytest.approx(12, abs=256 / 16000)

    low_hz, high_hz = mel_cutoffs(40)
    for name in HAND_CRAFTED[3:] + learned:
        _, row = highest_pixel(panels[name])
        named = panels[name].get_yticks(), panels[name].get_yticklabels()
        (label,) = [text for tick, text in zip(*named, strict=True) if tick == row]
        if name in learned:
            low, high = low_hz[int(row)], high_hz[int(row)]
            assert low < 1000 < high
            assert label.get_text() == f"{(low + high) / 2:.0f}"
        else:
            assert float(label.get_text()) == pytest.approx(1000, abs=16)

    for name, axes in panels.items():
        assert axes.get_xlim() == pytest.approx((10, 13))
        row = {"mel-spectrogram": "mel band", **dict.fromkeys(learned, "filter")}
        by = f"{row[name]}, by its centre (Hz)" if name in row else "frequency (Hz)"
        assert axes.get_ylabel() == by
    for name in ("mel-spectrogram", learned[-1]):  # the lowest ones
        assert panels[name].get_xlabel() == "time (s)"


def test_learned_maps_are_the_frontends(tone_and_click):
    pytest.importorskip("librosa")
    frontend = MSSincNet(n_filters=8, kernel_sizes=(251, 251, 1001)).eval()
    figure = plot_representations(frontend, tone_and_click)
    expected = frontend(tone_and_click[None])[0].detach().numpy()
    images = [axes.get_images()[0] for axes in figure.axes if axes.get_images()]
    for image, values in zip(images[4:], expected, strict=True):
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_extent() == [0, 3, -0.5, 7.5]
        assert image.origin == "lower"


def test_silence_has_a_figure():
    pytest.importorskip("librosa")
    frontend = MSSincNet(n_filters=8).eval()
    figure = plot_representations(frontend, torch.zeros(48000))
    figure.canvas.draw()
    for axes in figure.axes[:7]:
        for image in axes.get_images():
            assert np.isfinite(image.get_array()).all()


def test_librosa_is_asked_for_by_name(monkeypatch, tmp_path, model_folder, write_song):
    monkeypatch.setitem(sys.modules, "librosa", None)
    song = write_song(tmp_path / "song.wav", ("jazz", 3))
    with pytest.raises(SystemExit, match=r"pip install 'ms_sincresnet\[plots\]'"):
        main(["representations", str(model_folder), str(song)])


def write_log(folder, *epochs):
    """Writes a log by SpeechBrain: (epoch, train loss) each, and a test at the end."""
    folder.mkdir(parents=True)
    logger = FileTrainLogger(str(folder / "train_log.txt"), precision=4)
    for epoch, loss in epochs:
        logger.log_stats(
            {"data": "GTZAN, fold 0", "epoch": epoch, "lr": 1e-5},
            train_stats={"loss": loss, "clip_accuracy": 0.1},
            valid_stats={"loss": 9.0},
        )
    logger.log_stats({"tested epoch": 1}, test_stats={"loss": 7.0})
    return folder


def test_losses_are_those_that_were_logged_last(tmp_path):
    folder = write_log(
        tmp_path / "run", (1, 2.25), (2, 2.0), (3, 0.0123), (3, 0.5), (4, float("nan"))
    )
    for path in (folder, str(folder / "train_log.txt")):
        losses = read_losses(path)
        assert losses.index.tolist() == [1, 2, 3, 4]
        assert losses.tolist()[:3] == [2.25, 2.0, 0.5]
        assert np.isnan(losses[4])


def test_each_run_has_its_curve():
    losses = [pd.Series([2.3, 1.5 / n], index=[1, 2]) for n in range(1, 13)]
    runs = {f"run {n}": series for n, series in enumerate(losses)}
    figure = plot_losses(runs)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel().endswith("(nats)")
    assert axes.get_ylim()[0] == 0
    for line, series in zip(axes.lines, losses, strict=True):
        assert line.get_xdata().tolist() == [1, 2]
        assert line.get_ydata().tolist() == series.tolist()
    assert [text.get_text() for text in axes.get_legend().texts] == list(runs)
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 12


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["results/run"], ["run"]),
        (["a/fold_0", "b/fold_0"], ["a/fold_0", "b/fold_0"]),
        (["all/sincnet", "all/mel_resnet.v2"], ["sincnet", "mel_resnet.v2"]),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(tmp_path, drawn, folders, names):
    logs = [write_log(tmp_path / folder, (1, 2.0)) for folder in folders]
    logs[0] /= "train_log.txt"
    main(["loss", *map(str, logs)])
    main(["loss", *map(str, logs), "--labels", *map(str, range(len(logs)))])
    for figure, expected in zip(drawn, (names, list("012")[: len(logs)]), strict=True):
        assert [line.get_label() for line in figure.axes[0].lines] == expected


@pytest.mark.parametrize("model", [MSSincResNet(n_filters=8), SincNet(n_filters=8)])
def test_the_table_tells_how_far_cutoffs_moved(model):
    banks = [part for part in model.modules() if hasattr(part, "low_hz_")]
    with torch.no_grad():
        for scale, bank in enumerate(banks):
            bank.low_hz_ += 10 * (scale + 1)
            bank.band_hz_[2] += 25
    table = cutoff_table(model)
    low_hz, high_hz = mel_cutoffs(8)
    assert len(table) == 8 * len(banks)
    for scale, part in table.groupby("scale"):
        assert set(part.kernel_size) == {banks[scale].kernel_size}
        assert part["filter"].tolist() == list(range(8))
        moved_hz = 10 * (scale + 1)
        np.testing.assert_allclose(part.init_low_hz, low_hz, rtol=1e-6)
        np.testing.assert_allclose(part.init_high_hz, high_hz, rtol=1e-6)
        np.testing.assert_allclose(part.low_hz, low_hz + moved_hz, rtol=1e-6)
        moved_high_hz = high_hz + moved_hz + 25 * (np.arange(8) == 2)
        expected = np.minimum(moved_high_hz, 8000)  # half the sample rate
        np.testing.assert_allclose(part.high_hz, expected, rtol=1e-6)


def test_initial_cutoffs_are_those_of_the_models_init():
    table = cutoff_table(MSSincResNet(n_filters=4, init="linear"))
    expected = 80 + 1967.5 * np.arange(4)  # 30 to 7900 Hz in four, and 50 Hz
    np.testing.assert_allclose(table.init_low_hz[:4], expected, rtol=1e-6)


def test_filters_pass_what_lies_between_their_cutoffs():
    model = MSSincResNet(n_filters=8)
    bank = model.frontend.banks[1]
    with torch.no_grad():
        bank.low_hz_[3] += 300
        bank.band_hz_[5] += 200
    figure = plot_filters(model, "a model")
    assert figure.get_suptitle() == "a model"
    responses, shifts = figure.axes[2:4]
    low_hz, high_hz = mel_cutoffs(8)
    low_hz[3] += 300
    high_hz[3] += 300
    high_hz[5] += 200
    (image,) = responses.get_images()
    left, right, bottom, top = image.get_extent()
    values = np.asarray(image.get_array())
    bins_hz = left + (right - left) * (np.arange(values.shape[1]) + 0.5) / len(values.T)
    assert (bottom, top) == (-0.5, 7.5)
    for decibels, low, high in zip(values[:7], low_hz, high_hz, strict=False):
        at = {hz: np.interp(hz, bins_hz, decibels) for hz in (low, high)}
        assert all(-8 < level < -4.5 for level in at.values())  # half, by a window
        middle = (bins_hz > low + 40) & (bins_hz < high - 40)
        assert (decibels[middle] > -2).all()
        assert (decibels[(bins_hz < low - 60) | (bins_hz > high + 60)] < -40).all()
    assert responses.get_xlabel() == shifts.get_xlabel() == ""
    assert figure.axes[4].get_xlabel() == "frequency (Hz)"
    assert figure.axes[5].get_xlabel() == "initial cut-off (Hz)"

    assert shifts.get_ylabel() == "learned less initial cut-off (Hz)"
    assert shifts.get_title().endswith("0.0 Hz in the median, 300.0 Hz at most")
    lower, upper = (line.get_ydata() for line in shifts.lines[:2])
    np.testing.assert_allclose(lower, 300 * (np.arange(8) == 3), atol=1e-3)
    expected = 300 * (np.arange(8) == 3) + 200 * (np.arange(8) == 5)
    np.testing.assert_allclose(upper, expected, atol=1e-3)


def test_the_confusion_matrix_is_that_of_the_file(tmp_path):
    path = tmp_path / "confusion_matrix.csv"
    path.write_text(MATRIX)
    figure = plot_confusion_matrix(read_confusion_matrix(path), "130 songs")
    (axes,) = figure.axes
    assert axes.get_title() == "130 songs: 130 tracks, 97.7% right"
    counts = [text.get_text() for text in axes.texts]
    assert counts == ["3", "1", "0", "0", "120", "0", "2", "0", "4"]
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == ["jazz", "rock", "pop"]
    assert axes.get_xlabel() == "predicted genre"
    assert axes.get_ylabel() == "true genre"


def clips_of(path, model):
    """Posteriors of a song's clips at every half second, by the model alone."""
    samples, _ = soundfile.read(path, dtype="float32")
    starts = range(0, len(samples) - 48000 + 1, 8000)
    clips = np.stack([samples[start : start + 48000] for start in starts])
    return model(torch.from_numpy(clips)).exp().numpy()


def test_a_timeline_shows_every_posterior(
    tmp_path, write_song, model_folder, tone_model, genres, drawn
):
    song = write_song(tmp_path / "my song.wav", ("rock", 8), ("jazz", 5))
    expected = clips_of(song, tone_model)
    main(["timeline", str(model_folder), str(song)])
    axes = drawn[0].axes[0]
    votes = np.bincount(expected.argmax(1), minlength=len(genres))
    share = votes[genres.index("rock")] / len(expected)
    assert axes.get_title() == (
        f"my song.wav: rock, {share:.0%} of the votes of {len(expected)} clips"
    )
    assert axes.get_xlabel() == "time (s)"
    assert axes.get_xlim() == (0, 13)
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named[-1] == "rock"
    order = [genres.index(name) for name in named]
    assert (np.diff(expected.mean(0)[order]) >= 0).all()
    mesh = axes.collections[0]
    found = mesh.get_array().reshape(len(genres), -1)
    np.testing.assert_allclose(found, expected[:, order].T, atol=1e-4)

    (dots,) = axes.lines
    at = dict(zip(*dots.get_data(), strict=True))
    assert list(at) == [1.5 + 0.5 * n for n in range(len(expected))]
    assert named[at[1.5]] == "rock" and named[at[11.5]] == "jazz"
    edges_s = mesh.get_coordinates()[0, :, 0]
    assert edges_s[:2].tolist() == [0, 1.75] and edges_s[-2:].tolist() == [11.25, 13]


def test_a_song_shorter_than_a_clip(tmp_path, write_song, model_folder, drawn):
    song = str(write_song(tmp_path / "song.wav", ("blues", 0.5)))
    main(["timeline", str(model_folder), song])
    axes = drawn[0].axes[0]
    assert axes.get_title() == "song.wav: blues, 100% of the votes of 1 clips"
    assert axes.get_xlim() == (0, 0.5)
    assert axes.collections[0].get_coordinates()[0, :, 0].tolist() == [0, 0.5]
    assert axes.lines[0].get_xdata().tolist() == [0.25]

    pytest.importorskip("librosa")
    main(["representations", str(model_folder), song])
    assert drawn[1].get_suptitle() == "song.wav, 0 to 3 s"
    (image,) = drawn[1].axes[0].get_images()
    levels = np.asarray(image.get_array())[:, 10:-10].max(0)
    assert levels.min() > -10  # it is repeated: there is no silence


def test_mean_voting_is_named(tmp_path, write_song, tone_model, genres, drawn):
    save_model_folder(tmp_path / "model", tone_model, genres, voting="mean")
    song = write_song(tmp_path / "song.wav", ("metal", 4))
    main(["timeline", str(tmp_path / "model"), str(song)])
    share = clips_of(song, tone_model).mean(0)[genres.index("metal")]
    assert drawn[0].axes[0].get_title() == (
        f"song.wav: metal, {share:.0%} of the mean posterior of 3 clips"
    )


def test_a_timeline_of_an_hour():
    middles_s = 1.5 + 0.5 * np.arange(7195)
    posteriors = pd.DataFrame(np.full((7195, 10), 0.1), middles_s, list("abcdefghij"))
    figure = plot_timeline(posteriors, 3600.0)
    figure.canvas.draw()
    assert figure.axes[0].get_xlim() == (0, 3600)


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_the_suffix_is_the_format(tmp_path, suffix, begins, capsys):
    (tmp_path / "matrix.csv").write_text(MATRIX)
    path = tmp_path / "new folder" / f"figure{suffix}"
    main(["confusion", str(tmp_path / "matrix.csv"), "--output", str(path)])
    assert path.read_bytes().startswith(begins)
    assert capsys.readouterr().out == f"written: {path}\n"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_figures_go_to_the_working_folder(
    tmp_path, monkeypatch, write_song, model_folder, capsys
):
    monkeypatch.chdir(tmp_path)
    song = str(write_song(tmp_path / "song.1.wav", ("jazz", 4)))
    (tmp_path / "matrix.csv").write_text(MATRIX)
    write_log(tmp_path / "run", (1, 2.0))
    before = set(tmp_path.iterdir())
    main(["loss", "run"])
    main(["filters", str(model_folder)])
    main(["confusion", "matrix.csv"])
    main(["timeline", str(model_folder), song])
    names = ["confusion.png", "filters.png", "loss.png", "song.1_timeline.png"]
    assert sorted(path.name for path in set(tmp_path.iterdir()) - before) == names
    assert "written: song.1_timeline.png\n" in capsys.readouterr().out
    for name in names:
        assert (tmp_path / name).stat().st_size > 10_000


def test_representations_are_written(tmp_path, write_song, model_folder, capsys):
    pytest.importorskip("librosa")
    song = write_song(tmp_path / "song.flac", ("jazz", 4), rate=44100)
    path = tmp_path / "figure.png"
    main(["representations", str(model_folder), str(song), "--output", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"written: {path}\n")


def test_the_clip_begins_where_it_is_told(tmp_path, write_song, model_folder, drawn):
    pytest.importorskip("librosa")
    song = write_song(tmp_path / "song.wav", ("jazz", 4), ("metal", 4))
    command = ["representations", str(model_folder), str(song), "--start"]
    main([*command, "5"])
    assert drawn[0].get_suptitle() == "song.wav, 5 to 8 s"
    axes = drawn[0].axes[0]
    assert axes.get_xlim() == (5, 8)
    assert highest_pixel(axes)[1] == pytest.approx(3000)
    with pytest.raises(SystemExit, match="last clip of 3 s starts at 5 s; got 5.5 s"):
        main([*command, "5.5"])


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("representations nowhere song.wav", "nowhere: no such model folder"),
        ("representations MODEL nowhere.wav", "nowhere.wav: no such file"),
        ("representations MODEL matrix.csv", "matrix.csv: not readable as audio"),
        ("representations MEL song.wav", "learns no maps.* is LogMelSpectrogram"),
        ("timeline MODEL nowhere.wav", "nowhere.wav: no such file"),
        ("timeline run song.wav", "run: not a complete model folder"),
        ("filters nowhere", "nowhere: no such model folder"),
        ("filters MEL", "the model learns no filters.* got a MelResNet"),
        ("loss nowhere", "nowhere: no such file; expected the train_log.txt of a run"),
        ("loss nowhere/train_log.txt", "nowhere/train_log.txt: no such file"),
        ("loss empty", "empty/train_log.txt: no such file"),
        ("loss matrix.csv", "matrix.csv: tells of no epoch"),
        ("loss song.wav", "song.wav: tells of no epoch"),
        ("loss odd.txt", "odd.txt: not a training log .*'much'"),
        ("loss run run", "label of its own for each of the 2 runs; got run, run"),
        ("loss run --labels a b", "for each of the 1 runs; got a, b"),
        ("confusion nowhere.csv", "nowhere.csv: no such file"),
        ("confusion song.wav", "song.wav: not a confusion matrix"),
        ("confusion empty.csv", "empty.csv: not a confusion matrix"),
        ("confusion run/train_log.txt", "train_log.txt: not a confusion matrix"),
        ("confusion shares.csv", "shares.csv: not a confusion matrix; expected"),
        ("confusion order.csv", "order.csv: not a confusion matrix; expected"),
        ("confusion negative.csv", "negative.csv: not a confusion matrix; expected"),
        ("confusion matrix.csv --output matrix.csv/a.png", "cannot be written"),
        ("confusion matrix.csv --output folder.png", "folder.png: cannot be written"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(
    tmp_path, monkeypatch, write_song, model_folder, mel_folder, command, told
):
    monkeypatch.chdir(tmp_path)
    write_song(tmp_path / "song.wav", ("jazz", 3))
    write_log(tmp_path / "run", (1, 2.0))
    for folder in ("empty", "folder.png"):
        (tmp_path / folder).mkdir()
    for name, text in {
        "matrix.csv": MATRIX,
        "empty.csv": "",
        "odd.txt": "epoch: 1 - train loss: much",
        "shares.csv": "genre,jazz,rock\njazz,0.5,0.5\nrock,0,1\n",
        "order.csv": "genre,jazz,rock\nrock,0,1\njazz,1,0\n",
        "negative.csv": "genre,jazz,rock\njazz,1,-1\nrock,0,1\n",
    }.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    folders = {"MODEL": str(model_folder), "MEL": str(mel_folder)}
    with pytest.raises(SystemExit, match=told) as end:
        main([folders.get(word, word) for word in command.split()])
    assert str(end.value).startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("", "COMMAND"),
        ("loss", "LOG"),
        ("confusion a.csv --output a.gif", r"in .png, .pdf, .svg; got 'a.gif'"),
        ("confusion a.csv --output figures", "got 'figures'"),
        ("representations m a --start -1", "≥ 0 in s; got '-1'"),
        ("representations m a --start nan", "≥ 0 in s; got 'nan'"),
        ("representations m a --start soon", "≥ 0 in s; got 'soon'"),
    ],
)
def test_a_command_line_that_is_none(capsys, command, told):
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path):
    figure = plot_losses({"run": pd.Series([1.0], index=[1])})
    figure.axes[0].set_title(r"$\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(figure, tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_the_commands_are_for_another_parser_as_well(tmp_path):
    (tmp_path / "matrix.csv").write_text(MATRIX)
    commands = argparse.ArgumentParser().add_subparsers()
    parser = commands.add_parser("plot")
    add_arguments(parser)
    files = [str(tmp_path / "matrix.csv"), f"--output={tmp_path / 'figure.png'}"]
    run(parser.parse_args(["confusion", *files]))
    assert (tmp_path / "figure.png").is_file()


def test_the_module_is_a_command(tmp_path):
    command = [sys.executable, "-m", "ms_sincresnet.plots", "loss", "nowhere"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: nowhere: no such file")
    assert "Traceback" not in ended.stderr


def test_a_command_line_is_read_without_torch_and_matplotlib():
    script = """
import argparse, sys
from ms_sincresnet import plots
parser = argparse.ArgumentParser()
plots.add_arguments(parser)
parser.parse_args(["filters", "model", "--output", "a.png"])
print({"torch", "matplotlib", "sklearn", "librosa"} & set(sys.modules))
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
