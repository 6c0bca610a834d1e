"""``ms-sincresnet plot`` draws what it is asked for and reports mistakes."""

import argparse

import numpy as np
import pytest
import soundfile
import torch

from ms_sincresnet import MelResNet, MSSincResNet
from ms_sincresnet.cli.plot import add_arguments, run
from ms_sincresnet.errors import UserError
from ms_sincresnet.pretrained.model_folder import save_model_folder
from ms_sincresnet.training.cutoffs import record_cutoffs

MATRIX = "genre,jazz,rock,pop\njazz,3,1,0\nrock,0,120,0\npop,2,0,4\n"
LOSSES = "epoch: 1, lr: 1.0000e-05 - train loss: 2.0 - valid loss: 9.0\n"


def plot(*words):
    """Runs ``ms-sincresnet plot`` with these words."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def drawn(monkeypatch):
    """Figures that the commands would write, by name."""
    figures = {}
    monkeypatch.setattr(
        "ms_sincresnet.plots.drawing.save_figure",
        lambda figure, path: figures.update({str(path): figure}),
    )
    return figures


@pytest.fixture(scope="module")
def mel_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mel") / "model"
    save_model_folder(folder, MelResNet(2), ["jazz", "rock"])
    return folder


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["results/run"], ["run"]),
        (["a/fold_0", "b/fold_0"], ["a/fold_0", "b/fold_0"]),
        (["all/sincnet", "all/mel_resnet.v2"], ["sincnet", "mel_resnet.v2"]),
    ],
)
def test_runs_are_named_by_the_part_of_their_path_that_differs(
    tmp_path, drawn, folders, names
):
    logs = [tmp_path / folder for folder in folders]
    for log in logs:
        log.mkdir(parents=True)
        (log / "train_log.txt").write_text(LOSSES)
    logs[0] /= "train_log.txt"
    labels = list("012")[: len(logs)]
    plot("loss", *logs)
    plot("loss", *logs, "--labels", *labels, "--output", "labelled.svg")
    for path, expected in {"loss.png": names, "labelled.svg": labels}.items():
        lines = drawn[path].axes[0].lines
        assert [line.get_label() for line in lines] == expected


@pytest.mark.parametrize("voting", ["majority", "mean"])
def test_a_timeline_shows_the_songs_posteriors(
    tmp_path, write_song, tone_model, genres, drawn, voting
):
    save_model_folder(tmp_path / "model", tone_model, genres, voting=voting)
    song = write_song(tmp_path / "my song.wav", ("rock", 8), ("jazz", 5))
    samples = torch.from_numpy(soundfile.read(song, dtype="float32")[0])
    posteriors = tone_model(samples.unfold(0, 48000, 8000)).exp().numpy()
    plot("timeline", song, "--model", tmp_path / "model")
    top, axes, _ = drawn["my song_timeline.png"].axes
    rock = genres.index("rock")
    share, of = {
        "majority": ((posteriors.argmax(1) == rock).mean(), "votes"),
        "mean": (posteriors.mean(0)[rock], "posterior"),
    }[voting]
    title = f"my song.wav: rock, {share:.0%} of the {of} of {len(posteriors)} clips"
    assert top.get_title() == title
    assert axes.get_xlim() == (0, 13)
    assert np.ptp(top.collections[0].get_segments(), axis=(0, 1))[1] > 0.9  # of ±0.5
    labels = [label.get_text() for label in axes.get_yticklabels()]
    order = [genres.index(name) for name in labels]
    found = axes.collections[0].get_array().reshape(len(genres), -1)
    np.testing.assert_allclose(found, posteriors[:, order].T, atol=1e-4)


def test_a_song_shorter_than_a_clip(tmp_path, write_song, model_folder, drawn):
    song = write_song(tmp_path / "song.wav", ("blues", 0.5))
    plot("timeline", song, "--model", model_folder)
    top, axes, _ = drawn["song_timeline.png"].axes
    assert top.get_title() == "song.wav: blues, 100% of the votes of 1 clips"
    assert axes.collections[0].get_coordinates()[0, :, 0].tolist() == [0, 0.5]
    assert axes.lines[0].get_xdata().tolist() == [0.25]

    pytest.importorskip("librosa")
    plot("representations", song, "--model", model_folder)
    figure = drawn["song_representations.png"]
    assert figure.get_suptitle() == "song.wav, 0 to 3 s"
    (image,) = figure.axes[0].get_images()
    levels = np.asarray(image.get_array())[:, 10:-10].max(0)
    assert levels.min() > -10  # the song is repeated, so there is no silence


def test_the_clip_and_its_maps_begin_at_start(
    tmp_path, write_song, model_folder, tone_model, drawn
):
    pytest.importorskip("librosa")
    song = write_song(tmp_path / "song.wav", ("jazz", 4), ("metal", 4), subtype="FLOAT")
    command = ["representations", song, "--model", model_folder, "--start"]
    plot(*command, 5)
    axes = drawn["song_representations.png"].axes
    images = [panel.get_images()[0] for panel in axes if panel.get_images()]
    assert axes[0].get_xlim() == (5, 8)
    loudest = np.asarray(images[0].get_array()).mean(1).argmax()
    assert loudest * 16000 / 512 == pytest.approx(3000)
    clip = torch.from_numpy(soundfile.read(song, dtype="float32")[0][80000:])
    maps = tone_model.frontend(clip[None])[0].numpy()
    for image, expected in zip(images[4:], maps, strict=True):
        np.testing.assert_allclose(image.get_array(), expected, atol=1e-5)
    for start in ("5.5", "-1", "nan", "inf"):
        with pytest.raises(UserError, match=f"between 0 and 5 s; got {start} s"):
            plot(*command[:-1], f"--start={start}")


def test_the_suffix_is_the_format(tmp_path, capsys):
    (tmp_path / "matrix.csv").write_text(MATRIX)
    formats = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for suffix, begins in formats.items():
        path = tmp_path / "new folder" / f"figure{suffix}"
        plot("confusion", tmp_path / "matrix.csv", "--output", path)
        assert path.read_bytes().startswith(begins)
        assert capsys.readouterr().out == f"written: {path}\n"
    assert len(list(path.parent.iterdir())) == 3


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("representations matrix.csv --model MODEL", "csv: not readable as audio"),
        ("representations song.wav --model MEL", "no learned maps.* got MelResNet"),
        ("timeline nowhere.wav --model MODEL", "nowhere.wav: no such file"),
        ("timeline song.wav --model run", r"run: .*config\.json"),
        ("filters run", "run/cutoffs.csv: no such file; expected .* a run"),
        ("filters odd", "odd/cutoffs.csv: not a table of cut-offs: .*columns epoch"),
        ("loss empty", "empty/train_log.txt: no such file; expected a run's folder or"),
        ("loss matrix.csv", "matrix.csv: no epochs found"),
        ("loss odd.txt", "odd.txt: not a training log .*'much'"),
        ("loss run run", "expected 2 different --labels, .*; got run, run"),
        ("loss run --labels a b", "expected 1 different --labels, .*; got a, b"),
        ("confusion nowhere.csv", "nowhere.csv: no such file"),
        ("confusion song.wav", "song.wav: not a confusion matrix"),
        ("confusion shares.csv", "shares.csv: not a confusion matrix; expected"),
        ("confusion order.csv", "order.csv: not a confusion matrix; expected"),
        ("confusion negative.csv", "negative.csv: not a confusion matrix; expected"),
        ("confusion matrix.csv --output folder.png", "folder.png: cannot be written"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(
    tmp_path, monkeypatch, write_song, model_folder, mel_folder, command, message
):
    monkeypatch.chdir(tmp_path)
    write_song(tmp_path / "song.wav", ("jazz", 3))
    for folder in ("empty", "folder.png", "run", "odd"):
        (tmp_path / folder).mkdir()
    for name, text in {
        "run/train_log.txt": LOSSES,
        "matrix.csv": MATRIX,
        "odd/cutoffs.csv": MATRIX,
        "odd.txt": "epoch: 1 - train loss: much",
        "shares.csv": "genre,jazz,rock\njazz,0.5,0.5\nrock,0,1\n",
        "order.csv": "genre,jazz,rock\nrock,0,1\njazz,1,0\n",
        "negative.csv": "genre,jazz,rock\njazz,1,-1\nrock,0,1\n",
    }.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    folders = {"MODEL": model_folder, "MEL": mel_folder}
    with pytest.raises(UserError, match=message):
        plot(*(folders.get(word, word) for word in command.split()))
    assert sorted(tmp_path.rglob("*")) == before


def test_filters_of_a_run_are_drawn_from_its_cutoffs(tmp_path, drawn):
    model = MSSincResNet(n_filters=8, parametrization="relative")
    record_cutoffs(tmp_path, model, 0)
    torch.nn.init.constant_(model.frontend.banks[1].low_shift_, 0.1)
    record_cutoffs(tmp_path, model, 3)
    plot("filters", tmp_path)
    before, after = drawn["filters.png"].axes[4:6]
    assert before.get_title() == "filters of 501 taps at the start"
    assert after.get_title() == "filters of 501 taps after epoch 3"
    taps = model.frontend.banks[1].filters().detach().numpy()
    levels = np.asarray(after.get_images()[0].get_array())
    assert (levels.argmax(1) == np.abs(np.fft.rfft(taps, 4096)).argmax(1)).all()
    assert (np.asarray(before.get_images()[0].get_array()) != levels).any()
