"""``ms-sincresnet plot`` draws what it is asked for and reports mistakes."""

import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from speechbrain.utils.train_logger import FileTrainLogger

from ms_sincresnet import MelResNet, MSSincResNet
from ms_sincresnet.cli import main
from ms_sincresnet.plots.timeline import read_envelope
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.cutoffs import record_cutoffs

MATRIX = "genre,jazz,rock\njazz,3,1\nrock,0,120\n"
NAMES = [r"a$\b$", "$x$", "pop"]  # no formulas
HAND_CRAFTED = ["spectrogram", "harmonic spectrogram", "percussive spectrogram"]
HAND_CRAFTED += ["mel-spectrogram"]
LEARNED = [f"learned by filters of {n} taps" for n in (251, 501, 1001)]


def plot(*words):
    """Runs ``ms-sincresnet plot`` with these words."""
    assert main(["plot", *map(str, words)]) == 0


@pytest.fixture
def drawn(monkeypatch):
    """Figures that the commands would write, by name."""
    figures = {}
    monkeypatch.setattr(
        "ms_sincresnet.plots.drawing.save_figure",
        lambda figure, path: figures.update({str(path): figure}),
    )
    return figures


def test_runs_are_named_by_the_part_of_their_path_that_differs(tmp_path, drawn):
    names = ["a/fold_0", "b/fold_0", "b/mel_resnet.v2"]
    logs = [tmp_path / name for name in names]
    for number, log in enumerate(logs):
        log.mkdir(parents=True)
        logger = FileTrainLogger(str(log / "train_log.txt"), precision=4)
        losses = (1, 2.25), (2, 1.5 + number), (3, 0.0123), (3, 0.5), (4, np.nan)
        for epoch, loss in losses:  # the last one of an epoch counts
            about = {"data": "GTZAN, fold 0", "epoch": epoch, "lr": 1e-5}
            train = {"loss": loss, "clip_accuracy": 0.1}
            logger.log_stats(about, train, valid_stats={"loss": 9.0})
        logger.log_stats({"tested epoch": 1}, test_stats={"loss": 7.0})
    logs[0] /= "train_log.txt"
    plot("loss", *logs)
    plot("loss", *logs, "--labels", *NAMES, "--output", "labelled.svg")
    for path, expected in {"loss.png": names, "labelled.svg": NAMES}.items():
        drawn[path].draw_without_rendering()
        (axes,) = drawn[path].axes
        assert [text.get_text() for text in axes.get_legend().texts] == expected
        assert [line.get_label() for line in axes.lines] == expected
        for number, line in enumerate(axes.lines):
            losses = [2.25, 1.5 + number, 0.5, np.nan]
            np.testing.assert_array_equal(line.get_data(), [[1, 2, 3, 4], losses])


def test_the_confusion_matrix_agrees_with_the_file(tmp_path, drawn):
    path = tmp_path / r"run$\1$" / "confusion_matrix.csv"
    path.parent.mkdir()
    counts = [[3, 1, 0], [0, 120, 0], [2, 0, 4]]
    pd.DataFrame(counts, NAMES, NAMES).to_csv(path, index_label="genre")
    plot("confusion", path)
    drawn["confusion.png"].draw_without_rendering()
    (axes,) = drawn["confusion.png"].axes
    assert axes.get_title() == r"run$\1$: 130 tracks, 97.7% correct"
    assert [int(text.get_text()) for text in axes.texts] == np.ravel(counts).tolist()
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in axis] == NAMES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted genre", "true genre")


def test_a_timeline_shows_the_songs_posteriors(tmp_path, write_song, tone_model, drawn):
    genres = ["rock", *NAMES]
    save_model_folder(tmp_path / "model", tone_model, genres)
    path = write_song(tmp_path / r"a$\b$.wav", ("rock", 8), ("jazz", 9))
    samples, _ = soundfile.read(path, dtype="float32")
    samples[8 * 16000 : 12 * 16000] = 0
    soundfile.write(path, samples, 16000)
    clips = torch.from_numpy(samples).unfold(0, 48000, 8000)
    posteriors = tone_model(clips).exp().numpy()
    silent = clips.std(1) == 0
    posteriors[silent] = np.nan
    audible = posteriors[~silent]
    plot("timeline", path, "--model", tmp_path / "model")
    figure = drawn[r"a$\b$_timeline.png"]
    figure.draw_without_rendering()
    top, axes, _ = figure.axes
    share = (audible.argmax(1) == 0).mean()
    assert top.get_title() == rf"a$\b$.wav: rock, {share:.0%} of the votes of 26 clips"
    assert axes.get_xlim() == (0, 17)
    levels = np.array(top.collections[0].get_segments())
    assert len(levels) <= 1000 and np.ptp(levels[..., 1]) > 0.9  # of ±0.5
    silence = (levels[:, 0, 0] >= 8) & (levels[:, 0, 0] < 12)
    assert (levels[:, 1, 1] < 0.01).tolist() == silence.tolist()
    named = [label.get_text() for label in axes.get_yticklabels()]
    order = [genres.index(name) for name in named]
    assert (np.diff(audible.mean(0)[order]) >= 0).all()
    mesh = axes.collections[0]
    shown = np.ma.filled(mesh.get_array(), np.nan).reshape(4, 29)
    np.testing.assert_allclose(shown, posteriors[:, order].T, atol=1e-4)
    edges_s = mesh.get_coordinates()[0, :, 0].tolist()
    assert (edges_s[:2], edges_s[-2:]) == ([0, 1.75], [15.25, 17])
    (dots,) = axes.lines
    assert dots.get_xdata().tolist() == (1.5 + np.flatnonzero(~silent) / 2).tolist()
    assert [order[row] for row in dots.get_ydata()] == audible.argmax(1).tolist()


def test_the_envelope_is_the_loudest_sample_of_each_hundredth(tmp_path):
    # 16 whole blocks of the decoder and a few samples of another hundredth.
    samples = np.random.default_rng(0).uniform(-1, 1, 16 * 16384 + 7)
    samples *= np.linspace(0, 1, len(samples))
    soundfile.write(tmp_path / "song.wav", samples, 16000, subtype="FLOAT")
    envelope = read_envelope(tmp_path / "song.wav", 16000)
    whole = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(1)
    np.testing.assert_allclose(envelope[:-1], whole, rtol=1e-6)
    assert len(envelope) == len(whole) + 1
    assert envelope.index[-1] == pytest.approx(len(whole) / 100)


def test_a_song_shorter_than_a_clip(tmp_path, write_song, model_folder, drawn):
    song = write_song(tmp_path / "song.wav", ("blues", 0.5))
    plot("timeline", song, "--model", model_folder)
    top, axes, _ = drawn["song_timeline.png"].axes
    assert top.get_title() == "song.wav: blues, 100% of the votes of 1 clips"
    assert axes.collections[0].get_coordinates()[0, :, 0].tolist() == [0, 0.5]
    assert axes.lines[0].get_xdata().tolist() == [0.25]


def highest_pixel(axes):
    """Position of the brightest pixel, in the units of the axes."""
    (image,) = axes.get_images()
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    row, column = np.unravel_index(values.argmax(), values.shape)
    x = left + (right - left) * (column + 0.5) / values.shape[1]
    return x, bottom + (top - bottom) * (row + 0.5) / values.shape[0]


def test_a_tone_and_a_click_appear_in_every_panel(
    tmp_path, model_folder, tone_model, drawn
):
    pytest.importorskip("librosa")
    clip = 0.1 * np.sin(2 * np.pi * 1000 / 16000 * np.arange(48000)) * np.hanning(48000)
    clip[32000] = 1.0
    song = tmp_path / r"a$\b$.wav"  # no formula
    soundfile.write(song, np.append(np.zeros(80000), clip), 16000, subtype="FLOAT")
    command = ["representations", song, "--model", model_folder, "--start"]
    plot(*command, 5)
    figure = drawn[r"a$\b$_representations.png"]
    figure.draw_without_rendering()
    assert figure.get_suptitle() == r"a$\b$.wav, 5 to 8 s"
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == HAND_CRAFTED + LEARNED
    for name in HAND_CRAFTED[:2]:
        assert highest_pixel(panels[name])[1] == pytest.approx(1000)
    time_s, _ = highest_pixel(panels["percussive spectrogram"])
    assert time_s == pytest.approx(7, abs=256 / 16000)
    mel = panels["mel-spectrogram"]
    _, row = highest_pixel(mel)
    labels = zip(mel.get_yticks(), mel.get_yticklabels(), strict=True)
    (label,) = [text for tick, text in labels if tick == row]
    assert float(label.get_text()) == pytest.approx(1000, abs=16)
    for axes in panels.values():
        assert axes.get_xlim() == pytest.approx((5, 8))
    frontend = tone_model.frontend
    maps = frontend(torch.tensor(clip[None], dtype=torch.float32))[0].numpy()
    for name, bank, expected in zip(LEARNED, frontend.banks, maps, strict=True):
        (image,) = panels[name].get_images()
        np.testing.assert_allclose(image.get_array(), expected, atol=1e-5)
        assert image.get_extent() == [5, 8, -0.5, 7.5] and image.origin == "lower"
        centres_hz = sum(bank.cutoffs()) / 2
        labels = [label.get_text() for label in panels[name].get_yticklabels()]
        rows = panels[name].get_yticks()
        assert labels == [f"{centres_hz[row]:.0f}" for row in rows] and len(rows) > 3
    for start in ("5.5", "nan"):
        with pytest.raises(SystemExit, match=f"between 0 and 5 s; got {start} s"):
            plot(*command[:-1], f"--start={start}")


def test_hand_crafted_representations_need_librosa(
    tmp_path, write_song, model_folder, monkeypatch
):
    monkeypatch.setitem(sys.modules, "librosa", None)
    song = write_song(tmp_path / "song.wav", ("jazz", 3))
    with pytest.raises(SystemExit, match=r"librosa, .*pip install '\.\[plots\]'"):
        plot("representations", song, "--model", model_folder)


def test_the_suffix_is_the_format(tmp_path, capsys):
    (tmp_path / "matrix.csv").write_text(MATRIX)
    path = tmp_path / "new folder" / "figure.pdf"
    plot("confusion", tmp_path / "matrix.csv", "--output", path)
    assert path.read_bytes().startswith(b"%PDF")
    assert capsys.readouterr().out == f"written: {path}\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("representations matrix.csv --model MODEL", "csv: not readable as audio"),
        ("representations song.wav --model mel", "no learned maps.* got MelResNet"),
        ("timeline nowhere.wav --model MODEL", "nowhere.wav: no such file"),
        ("filters run", "run/cutoffs.csv: no such file; expected .* a run"),
        ("filters odd", "odd/cutoffs.csv: not a table of cut-offs: .*columns epoch"),
        ("loss matrix.csv", "matrix.csv: no epochs found"),
        ("loss odd.txt", "odd.txt: not a training log .*'much'"),
        ("loss run run", "expected 2 different --labels, .*; got run, run"),
        ("confusion song.wav", "song.wav: not a confusion matrix"),
        ("confusion order.csv", "order.csv: not a confusion matrix; expected"),
        ("confusion matrix.csv --output folder.png", "folder.png: cannot be written"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(
    tmp_path, monkeypatch, write_song, model_folder, command, message
):
    monkeypatch.chdir(tmp_path)
    if "mel" in command:
        save_model_folder("mel", MelResNet(2, n_mels=8), ["jazz", "rock"])
    write_song(tmp_path / "song.wav", ("jazz", 3))
    for folder in ("folder.png", "run", "odd"):
        (tmp_path / folder).mkdir()
    for name, text in {
        "run/train_log.txt": "epoch: 1, lr: 1.0e-05 - train loss: 2.0\n",
        "matrix.csv": MATRIX,
        "odd/cutoffs.csv": MATRIX,
        "odd.txt": "epoch: 1 - train loss: much",
        "order.csv": "genre,jazz,rock\nrock,0,1\njazz,1,0\n",
    }.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match=message):
        plot(*command.replace("MODEL", str(model_folder)).split())
    assert sorted(tmp_path.rglob("*")) == before


def test_filters_of_a_run_pass_the_bands_between_their_cutoffs(tmp_path, drawn):
    run = tmp_path / r"my$\b$"  # no formula
    run.mkdir()
    model = MSSincResNet(n_filters=8)
    bank = model.frontend.banks[1]
    record_cutoffs(run, model, 0)
    with torch.no_grad():
        bank.low_hz_[3] += 300
        bank.band_hz_[5] += 200
    record_cutoffs(run, model, 3)
    plot("filters", run)
    figure = drawn["filters.png"]
    figure.draw_without_rendering()
    assert figure.get_suptitle() == f"{run}: what the filters learned"
    table = pd.read_csv(run / "cutoffs.csv")
    first, last = (part for _, part in table[table.scale == 1].groupby("epoch"))
    before, after, shifts, counts = figure.axes[4:8]
    assert after.get_title() == "filters of 501 taps after epoch 3"
    for axes, cutoffs in [(before, first), (after, last)]:
        (image,) = axes.get_images()
        left, right, bottom, top = image.get_extent()
        values = np.asarray(image.get_array())
        step_hz = (right - left) / len(values.T)
        bins_hz = left + step_hz * (np.arange(len(values.T)) + 0.5)
        assert (bottom, top) == (-0.5, 7.5)
        bands = cutoffs[["low_hz", "high_hz"]].to_numpy()
        for decibels, (low, high) in list(zip(values, bands, strict=True))[:7]:
            for hz in (low, high):
                assert -8 < np.interp(hz, bins_hz, decibels) < -4.5  # half, by a window
            middle = (bins_hz > low + 40) & (bins_hz < high - 40)
            assert (decibels[middle] > -2).all()
            assert (decibels[(bins_hz < low - 60) | (bins_hz > high + 60)] < -40).all()
    low_shift_hz = 300 * (np.arange(8) == 3)
    high_shift_hz = low_shift_hz + 200 * (np.arange(8) == 5)
    assert shifts.get_title().endswith("median 0.0 Hz, largest 300.0 Hz")
    lower, upper = shifts.lines[:2]
    np.testing.assert_allclose(lower.get_ydata(), low_shift_hz, atol=1e-3)
    np.testing.assert_allclose(upper.get_ydata(), high_shift_hz, atol=1e-3)
    np.testing.assert_allclose(upper.get_xdata(), first.high_hz, rtol=1e-6)
    hz, start = counts.lines[0].get_data()
    gained = counts.lines[1].get_ydata() - start
    wider_hz = first.high_hz.iloc[5] + 100
    assert gained[np.abs(hz - wider_hz).argmin()] > 0
    np.testing.assert_array_equal(gained[hz > last.high_hz.iloc[5] * 1.1], 0)
