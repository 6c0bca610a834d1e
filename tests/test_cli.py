"""The command line: immediate help, few messages, and an exit status that tells all."""

import importlib
import json
import logging
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

import ms_sincresnet
from ms_sincresnet import cli
from ms_sincresnet.cli import commands, main
from ms_sincresnet.cli.parser import parse

NAMES = ["classify", "train", "evaluate", "export", "push", "convert", "onnx"]
NAMES += ["info", "demo", "plot", "embed", "similar", "tag"]
HEAVY = {"torch", "numpy", "pandas", "speechbrain", "matplotlib", "soundfile", "tqdm"}

# Prints the help of every command, then the packages that it has loaded.
PROBE = """
import sys
from ms_sincresnet.cli import main
for argv in ["--version"], ["--help"], *([name, "--help"] for name in sys.argv[1:]):
    try:
        main(argv)
    except SystemExit as stopped:
        assert stopped.code == 0
print(*sys.modules, file=sys.stderr)
"""


def test_help_loads_no_heavy_package():
    command = [sys.executable, "-c", PROBE, *NAMES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert HEAVY.isdisjoint(done.stderr.split())
    assert done.stdout.startswith(f"{ms_sincresnet.__version__}\n")
    for name in NAMES:
        assert f"\n    {name} " in done.stdout
        assert f"example:\n  ms-sincresnet {name} " in done.stdout
    assert "timeline" in done.stdout.partition("usage: ms-sincresnet plot")[2]


def test_the_package_runs_as_the_command():
    command = [sys.executable, "-m", "ms_sincresnet", "classify"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ms-sincresnet classify")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("push --private model --space user/name", {"repo": "user/name"}),
        ("demo model --port 80 --host ::", {"host": "::", "port": 80}),
        ("classify a b --model m", {"songs": ["a", "b"], "model": "m", "top": 3}),
        ("classify --model m --fuse b --fuse c d", {"fuse": ["b", "c"]}),
        ("classify --top 1 a --model m b --jobs 2 c", {"songs": ["a", "b", "c"]}),
        ("classify --model m --files-from list", {"songs": [], "files_from": "list"}),
        ("classify --files-from - --model m a", {"songs": ["a"], "files_from": "-"}),
        ("classify a --model m -- -a.wav -- b", {"songs": ["a", "-a.wav", "--", "b"]}),
        ("classify --model m -- -a.wav", {"songs": ["-a.wav"]}),
        ("classify a --hop 1.5", {"hop": 1.5, "precision": "auto"}),
    ],
)
def test_parsed_arguments(line, expected):
    arguments = vars(parse(line.split()))
    assert {name: arguments[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("classyfy model", "invalid choice: 'classyfy'"),
        ("classify --model m", "name songs or folders, or list them in a file"),
        ("classify user/repo a.wav", "name it with --model user/repo"),
        ("classify user/repo --model m", "no such song or folder"),
        ("classify a --model m --top 0", "expected a whole number ≥ 1; got '0'"),
        ("classify a --model m --top three", "got 'three'"),
        ("classify a --min-posterior 1.5", "expected a number from 0 to 1; got '1.5'"),
        ("classify a --min-posterior nan", "got 'nan'"),
        ("classify a --hop 0", "expected a number > 0; got '0'"),
        ("classify a --model m --jobs 1000", "≥ 1 and ≤ 64; got '1000'"),
        ("classify a --model m --voting loud", "invalid choice: 'loud'"),
        ("classify a --model m --format json", "choose from 'table', 'jsonl', "),
        ("classify a --model m --output b/a.json", "use --output b/a.jsonl"),
        ("classify a --model m --output a.xlsx", "no format has the suffix '.xlsx'"),
        ("classify a --model m --format parquet", "needs a file: --output FILE"),
        ("classify a --model m --engine=ray", "--engine ray needs --output"),
        ("classify a --model m --engine=ray --output=x --format=csv", "writes parquet"),
        ("classify a --model m --workers=2", "--workers is for --engine ray"),
        ("classify a --model m --treble b", "unrecognized arguments: --treble b"),
        ("classify - --playlists lists", "works neither with --engine ray nor with -"),
        ("classify a --playlists b --engine ray", "works neither with --engine ray"),
        ("embed a.wav", "the following arguments are required: --output"),
        ("embed a.wav --output a.csv", "expected a name that ends in .parquet"),
        ("embed a.wav --output a.parquet --voting mean", "unrecognized arguments"),
        ("similar a.wav", "the following arguments are required: --index"),
        ("evaluate", "name a FOLDER of songs, or list songs and genres in --labels"),
        ("info model other", "unrecognized arguments: other"),
        ("convert a.tar m --genres-file nowhere.txt", "nowhere.txt: cannot be read"),
    ],
)
def test_wrong_command_lines(capsys, line, message):
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: ms-sincresnet")
    assert message in captured.err


def test_only_messages_for_the_user_are_shown(capsys, monkeypatch):
    def chatter(arguments):
        logging.getLogger("speechbrain.utils").info("Applied quirks")
        logging.getLogger("speechbrain.utils").warning("Could not parse")
        warnings.warn("something is deprecated", stacklevel=1)
        logging.getLogger("ms_sincresnet.data.audio").warning("a.wav: \x1b ends early")
        logging.getLogger("ms_sincresnet.pretrained.hub").info("3 files")
        return 3

    monkeypatch.setattr(cli, "parse", lambda argv: SimpleNamespace(run=chatter))
    before = logging.getLogger("ms_sincresnet").handlers[:]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert main([]) == 3
    assert warned == []
    assert capsys.readouterr() == ("", "warning: a.wav: \\x1b ends early\n3 files\n")
    assert logging.getLogger("ms_sincresnet").handlers == before


@pytest.mark.parametrize(
    ("line", "resumes"),
    [
        ("classify a.wav --model m --output a --engine ray", True),
        ("classify a.wav --model m --output a.txt", False),
    ],
)
def test_an_interruption_names_the_way_to_resume(capsys, monkeypatch, line, resumes):
    def interrupt(arguments, output_format):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_classify_here", interrupt)
    monkeypatch.setattr(commands, "_classify_on_ray", interrupt)
    assert main(line.split()) == 130
    how = "; run the same command again to resume" if resumes else ""
    assert capsys.readouterr().err == f"interrupted{how}\n"


def test_a_closed_pipe_ends_it_quietly(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = SimpleNamespace(run=lambda arguments: print("text"))
    monkeypatch.setattr(cli, "parse", lambda argv: arguments)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main([]) == 141


def test_each_command_calls_its_function(monkeypatch, tmp_path, capsys):
    calls = []
    for module, name in [
        ("inference.demo", "launch"),
        ("inference.onnx", "export_onnx"),
        ("pretrained.hub", "push_folder"),
        ("pretrained.released", "convert_checkpoint"),
        ("training.export", "export_run"),
    ]:

        def call(*values, name=name, **options):
            calls.append((name, *values, options))
            return "https://hub/a/b"

        home = importlib.import_module(f"ms_sincresnet.{module}")
        monkeypatch.setattr(home, name, call)
    genres = tmp_path / "genres.txt"
    genres.write_text("rock\n\n jazz \n")
    push = {"private": None, "revision": None, "space": False}
    all_push = {"private": True, "revision": "v1", "space": True}
    address, flags = "https://hub/a/b", "--private --revision v1 --space"
    convert = ("convert_checkpoint", "a.tar", "model", ["rock", "jazz"], {})
    demo = {"host": "127.0.0.1", "port": 7861}
    for line, call, out in [
        ("export a b --half", ("export_run", "a", "b", {"half": True}), "written: b"),
        ("push model a/b", ("push_folder", "model", "a/b", push), address),
        (f"push model a/b {flags}", ("push_folder", "model", "a/b", all_push), address),
        ("convert a.tar model --genres rock,jazz", convert, "written: model"),
        (f"convert a.tar model --genres-file {genres}", convert, "written: model"),
        ("onnx model a", ("export_onnx", "model", "a", {}), "written: a"),
        ("demo model --port 7861", ("launch", "model", demo), ""),
    ]:
        assert main(line.split()) == 0
        assert calls.pop() == call
        assert capsys.readouterr().out.strip() == out


def test_the_demo_listens_where_gradio_is_told_to(monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert parse(["demo", "model"]).host == "0.0.0.0"
    assert parse(["demo", "model", "--host", "::1"]).host == "::1"


def test_info_for_people_and_programs(model_folder, capsys):
    assert main(["info", str(model_folder)]) == 0
    text = capsys.readouterr().out
    assert "MSSincResNet\n" in text and "  voting: majority\n" in text
    assert text.endswith("\nposteriors are not calibrated\n")
    assert main(["info", str(model_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"]["genres"] == ["rock", "blues", "metal", "jazz"]
