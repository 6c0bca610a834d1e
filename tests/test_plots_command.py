"""The commands draw what they are told, and say what is wrong."""

import argparse
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from ms_sincresnet import MelResNet
from ms_sincresnet.cli.plot import add_arguments, main, run
from ms_sincresnet.pretrained.model_folder import save_model_folder

MATRIX = "genre,jazz,rock,pop\njazz,3,1,0\nrock,0,120,0\npop,2,0,4\n"
LOSSES = "epoch: 1, lr: 1.0000e-05 - train loss: 2.0 - valid loss: 9.0\n"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that commands drew, which are not written."""
    figures = []
    monkeypatch.setattr(
        "ms_sincresnet.cli.plot.save_figure",
        lambda figure, path: figures.append(figure),
    )
    return figures


@pytest.fixture(scope="module")
def mel_folder(tmp_path_factory):
    """The folder of a model that learns no filters."""
    folder = tmp_path_factory.mktemp("mel") / "model"
    save_model_folder(folder, MelResNet(2), ["jazz", "rock"])
    return folder


def clips_of(path, model):
    """Posteriors of a song's clips at every half second, by the model alone."""
    samples, _ = soundfile.read(path, dtype="float32")
    starts = range(0, len(samples) - 48000 + 1, 8000)
    clips = np.stack([samples[start : start + 48000] for start in starts])
    return model(torch.from_numpy(clips)).exp().numpy()


def test_librosa_is_asked_for_by_name(monkeypatch, tmp_path, model_folder, write_song):
    monkeypatch.setitem(sys.modules, "librosa", None)
    song = write_song(tmp_path / "song.wav", ("jazz", 3))
    with pytest.raises(SystemExit, match=r"pip install 'ms_sincresnet\[plots\]'"):
        main(["representations", str(model_folder), str(song)])


def test_no_code_of_a_model_is_run(tmp_path, model_folder, drawn):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    code = f"code: !apply:os.mkdir [{tmp_path / 'made'}]\n"
    (folder / "hyperparams.yaml").write_text(code)
    main(["filters", str(folder)])
    assert drawn and not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["results/run"], ["run"]),
        (["a/fold_0", "b/fold_0"], ["a/fold_0", "b/fold_0"]),
        (["all/sincnet", "all/mel_resnet.v2"], ["sincnet", "mel_resnet.v2"]),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(tmp_path, drawn, folders, names):
    logs = [tmp_path / folder for folder in folders]
    for log in logs:
        log.mkdir(parents=True)
        (log / "train_log.txt").write_text(LOSSES)
    logs[0] /= "train_log.txt"
    main(["loss", *map(str, logs)])
    main(["loss", *map(str, logs), "--labels", *map(str, range(len(logs)))])
    for figure, expected in zip(drawn, (names, list("012")[: len(logs)]), strict=True):
        assert [line.get_label() for line in figure.axes[0].lines] == expected


def test_a_timeline_shows_the_songs_posteriors(
    tmp_path, write_song, model_folder, tone_model, genres, drawn
):
    song = write_song(tmp_path / "my song.wav", ("rock", 8), ("jazz", 5))
    expected = clips_of(song, tone_model)
    main(["timeline", str(model_folder), str(song)])
    top, axes, _ = drawn[0].axes
    votes = np.bincount(expected.argmax(1), minlength=len(genres))
    share = votes[genres.index("rock")] / len(expected)
    assert top.get_title() == (
        f"my song.wav: rock, {share:.0%} of the votes of {len(expected)} clips"
    )
    assert axes.get_xlim() == (0, 13)
    assert np.ptp(top.collections[0].get_segments(), axis=(0, 1))[1] > 0.9  # of ±0.5
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named[-1] == "rock"
    order = [genres.index(name) for name in named]
    found = axes.collections[0].get_array().reshape(len(genres), -1)
    np.testing.assert_allclose(found, expected[:, order].T, atol=1e-4)

    (dots,) = axes.lines
    at = dict(zip(*dots.get_data(), strict=True))
    assert named[at[1.5]] == "rock" and named[at[11.5]] == "jazz"


def test_a_song_shorter_than_a_clip(tmp_path, write_song, model_folder, drawn):
    song = str(write_song(tmp_path / "song.wav", ("blues", 0.5)))
    main(["timeline", str(model_folder), song])
    top, axes, _ = drawn[0].axes
    assert top.get_title() == "song.wav: blues, 100% of the votes of 1 clips"
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
    (tmp_path / "log.txt").write_text(LOSSES)
    before = set(tmp_path.iterdir())
    main(["loss", "log.txt"])
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
    (image,) = axes.get_images()
    loudest = np.asarray(image.get_array()).mean(1).argmax()
    assert loudest * 16000 / 512 == pytest.approx(3000)
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
        ("timeline run song.wav", "run: no config.json there"),
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
    for folder in ("empty", "folder.png", "run"):
        (tmp_path / folder).mkdir()
    for name, text in {
        "run/train_log.txt": LOSSES,
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
from ms_sincresnet.cli.plot import add_arguments
parser = argparse.ArgumentParser()
add_arguments(parser)
parser.parse_args(["filters", "model", "--output", "a.png"])
print({"torch", "matplotlib", "sklearn", "librosa"} & set(sys.modules))
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
