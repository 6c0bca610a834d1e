"""The command line: its help at once, its messages few, its exit status telling."""

import importlib
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import ms_sincresnet
from ms_sincresnet.cli import commands, main
from ms_sincresnet.errors import ModelFolderError

NAMES = ["classify", "export", "push", "convert", "onnx", "info", "demo", "plot"]
HEAVY = {"torch", "numpy", "pandas", "speechbrain", "matplotlib", "soundfile", "tqdm"}

# Runs a command line, then tells on the error output which packages were loaded.
PROBE = """
import sys
from ms_sincresnet.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], *([name, "--help"] for name in NAMES)]
)
def test_help_is_there_at_once(argv):
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *argv], capture_output=True, text=True
    )
    took_s = time.perf_counter() - start_s
    assert done.returncode == 0
    loaded = HEAVY.intersection(done.stderr.split())
    if argv == ["plot", "--help"]:  # which is that of the figures themselves
        assert loaded <= {"numpy", "pandas", "tqdm"}
        assert "usage: ms-sincresnet plot" in done.stdout
        assert "timeline" in done.stdout
        return
    assert loaded == set()
    assert took_s < 1 or os.getloadavg()[0] > os.cpu_count()
    if argv == ["--version"]:
        assert done.stdout == f"{ms_sincresnet.__version__}\n"
    elif argv == ["--help"]:
        assert all(f"\n    {name} " in done.stdout for name in NAMES)
    else:
        assert f"example:\n  ms-sincresnet {argv[0]} " in done.stdout


def test_the_package_is_run_as_the_command_is():
    done = subprocess.run(
        [sys.executable, "-m", "ms_sincresnet", "info", "no/such/model"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: no/such/model: no such model folder\n"


@pytest.fixture
def parsed(monkeypatch):
    """Parses a command line, and returns what its command would be given."""

    def parse(*argv):
        given = []
        monkeypatch.setattr(commands, "run", given.append)
        assert main(list(argv)) == 0
        (arguments,) = given
        return arguments

    return parse


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export run model", {"run_folder": "run", "folder": "model"}),
        (
            "push model user/name --private --revision v1 --space",
            {"folder": "model", "repo": "user/name", "private": True, "space": True},
        ),
        ("push model user/name", {"private": False, "revision": None, "space": False}),
        ("convert a.tar model --genres a,b", {"genres": ["a", "b"]}),
        ("convert a.tar model --genres-file f", {"genres": None, "genres_file": "f"}),
        ("onnx model a.onnx", {"model": "model", "file": "a.onnx"}),
        ("info model --json", {"model": "model", "json": True}),
        ("demo model", {"host": "127.0.0.1", "port": None}),
        ("demo model --port 80 --host ::", {"host": "::", "port": 80}),
        ("plot filters --help", {"argv": ["filters", "--help"]}),
        ("classify model a b", {"paths": ["a", "b"], "top": 3, "timeline": False}),
        ("classify model --fuse b --fuse c d", {"fuse": ["b", "c"], "paths": ["d"]}),
        ("classify --top 1 m --timeline a --jobs 2 b", {"model": "m", "top": 1}),
        ("classify --top 1 m --timeline a --jobs 2 b", {"paths": ["a", "b"]}),
        ("classify m --files-from list", {"paths": [], "files_from": "list"}),
        ("classify --files-from - m --top 1 a", {"paths": ["a"], "files_from": "-"}),
        ("push --private model --space user/name", {"repo": "user/name"}),
        ("classify model -- -a.wav", {"paths": ["-a.wav"]}),
    ],
)
def test_what_is_parsed(parsed, line, expected):
    arguments = vars(parsed(*line.split()))
    assert arguments["command"] == line.split()[0]
    assert {name: arguments[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("classyfy model", "invalid choice: 'classyfy'"),
        ("classify", "the following arguments are required: MODEL"),
        ("classify model", "name songs or folders, or give a list by --files-from"),
        ("classify model a --top 0", "expected a whole number ≥ 1; got '0'"),
        ("classify model a --top three", "got 'three'"),
        ("classify model a --jobs -1", "expected a whole number ≥ 1 and ≤ 64"),
        ("classify model a --jobs 1000", "got '1000'"),
        ("classify model a --precision fp8", "invalid choice: 'fp8'"),
        ("classify model a --voting loud", "invalid choice: 'loud'"),
        ("classify model a --format xml", "invalid choice: 'xml'"),
        ("classify model a --output a.xlsx", "cannot be told from '.xlsx'"),
        ("classify model a --format parquet", "parquet is for files"),
        ("classify model a --treble", "unrecognized arguments: --treble"),
        ("convert a.tar model", "one of the arguments --genres --genres-file"),
        ("demo model --port 99999", "and ≤ 65535; got '99999'"),
        ("plot colours", "invalid choice: 'colours'"),
    ],
)
def test_a_wrong_command_line(capsys, line, told):
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: ms-sincresnet")
    assert told in captured.err


def test_only_what_concerns_the_user_is_told(capsys, parsed, monkeypatch):
    def chatter(arguments):
        logging.getLogger("speechbrain.utils").info("Applied quirks")
        logging.getLogger("speechbrain.utils").warning("Could not parse")
        warnings.warn("something is deprecated", stacklevel=1)
        logging.getLogger("ms_sincresnet.data.audio").warning("a.wav: \x1b ends early")
        logging.getLogger("ms_sincresnet.pretrained.hub").info("3 files")
        return 3

    parsed("info", "model")
    monkeypatch.setattr(commands, "run", chatter)
    before = logging.getLogger("ms_sincresnet").handlers[:]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert main(["info", "model"]) == 3
    assert warned == []
    assert capsys.readouterr() == ("", "warning: a.wav: \\x1b ends early\n3 files\n")
    assert logging.getLogger("ms_sincresnet").handlers == before


def test_a_mistake_is_told_without_a_traceback(parsed, monkeypatch):
    def fail(arguments):
        raise ModelFolderError("model: no such model folder")

    monkeypatch.setattr(commands, "run", fail)
    with pytest.raises(SystemExit) as stopped:
        main(["info", "model"])
    assert stopped.value.code == "error: model: no such model folder"


def test_an_interruption_tells_how_to_go_on(capsys, monkeypatch):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupt)
    assert main(["classify", "model", "a", "--output", "a.csv"]) == 130
    told = "interrupted; the same command goes on where it stopped\n"
    assert capsys.readouterr().err == told
    assert main(["classify", "model", "a"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_has_enough_ends_it_quietly(model_folder, tmp_path, write_song):
    songs = [write_song(tmp_path / f"{n}.wav", ("jazz", 0.5)) for n in range(60)]
    command = [sys.executable, "-m", "ms_sincresnet", "classify", model_folder, *songs]
    running = subprocess.Popen(
        [*command, "--format", "json", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout.readline() == b"[\n"
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait() == 141


@pytest.fixture
def library(monkeypatch):
    """Stands for the functions behind the commands: what they are called with."""

    calls = []
    for module, name in [
        ("demo", "launch"),
        ("export", "export_onnx"),
        ("hub", "push_folder"),
        ("released", "convert_checkpoint"),
        ("runs", "export_run"),
    ]:

        def call(*values, name=name, **options):
            calls.append((name, *values, options))
            return "https://hub/user/name"

        home = importlib.import_module(f"ms_sincresnet.inference.{module}")
        monkeypatch.setattr(home, name, call)
    return calls


def test_each_command_calls_its_function(library, tmp_path, capsys):
    genres = tmp_path / "genres.txt"
    genres.write_text("rock\n\n jazz \n")
    push = {"private": None, "revision": None, "space": False}
    for line, call in [
        ("export run model", ("export_run", "run", "model", {})),
        ("push model user/name", ("push_folder", "model", "user/name", push)),
        (
            "push model user/name --private --revision v1 --space",
            (
                *("push_folder", "model", "user/name"),
                {"private": True, "revision": "v1", "space": True},
            ),
        ),
        (
            "convert a.tar model --genres rock,jazz",
            ("convert_checkpoint", "a.tar", "model", ["rock", "jazz"], {}),
        ),
        (
            f"convert a.tar model --genres-file {genres}",
            ("convert_checkpoint", "a.tar", "model", ["rock", "jazz"], {}),
        ),
        ("onnx model a.onnx", ("export_onnx", "model", "a.onnx", {})),
        (
            "demo model --port 7861",
            ("launch", "model", {"host": "127.0.0.1", "port": 7861}),
        ),
    ]:
        assert main(line.split()) == 0
        assert library.pop() == call
    assert capsys.readouterr().out.split("\n") == [
        "written: model",
        *["https://hub/user/name"] * 2,
        *["written: model"] * 2,
        "written: a.onnx",
        "",
    ]
    with pytest.raises(SystemExit, match="nowhere.txt: cannot be read"):
        main(["convert", "a.tar", "model", "--genres-file", "nowhere.txt"])


def test_info_for_people_and_programs(model_folder, capsys):
    assert main(["info", str(model_folder)]) == 0
    text = capsys.readouterr().out
    assert "system: MSSincResNet\n" in text
    assert "  voting: majority\n" in text
    assert main(["info", str(model_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"]["genres"] == ["rock", "blues", "metal", "jazz"]


def test_plot_draws(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "filters", str(model_folder), "--output", "f.png"]) == 0
    assert capsys.readouterr().out == "written: f.png\n"
    assert Path("f.png").stat().st_size > 1000
