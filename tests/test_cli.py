"""The command line: immediate help, few messages, and an exit status that tells all."""

import json
import logging
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace
from unittest.mock import Mock, call

import pytest

import ms_sincresnet
from ms_sincresnet import cli
from ms_sincresnet.cli import commands, main
from ms_sincresnet.cli.parser import parse

NAMES = ["classify", "train", "evaluate", "export", "push", "convert", "onnx"]
NAMES += ["info", "demo", "plot", "embed", "similar", "tag"]
HEAVY = {"torch", "numpy", "pandas", "speechbrain", "matplotlib", "soundfile", "tqdm"}

# Runs the command without arguments, with --version, and for the help of each command;
# then prints the packages that it has loaded.
PROBE = """
import runpy, sys
help = [[name, "--help"] for name in sys.argv[1:]]
for argv in [], ["--version"], ["--help"], *help:
    sys.argv[1:] = argv
    try:
        runpy.run_module("ms_sincresnet", run_name="__main__")
    except SystemExit as stopped:
        assert stopped.code == (0 if argv else 2)
print(*sys.modules, file=sys.stderr)
"""


def test_help_loads_no_heavy_package():
    command = [sys.executable, "-c", PROBE, *NAMES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("usage: ms-sincresnet")
    assert HEAVY.isdisjoint(done.stderr.split())
    assert done.stdout.startswith(f"{ms_sincresnet.__version__}\n")
    for name in NAMES:
        assert f"\n    {name} " in done.stdout
        assert f"example:\n  ms-sincresnet {name} " in done.stdout
    assert "timeline" in done.stdout.partition("usage: ms-sincresnet plot")[2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("classify a b --model m", {"songs": ["a", "b"], "model": "m", "top": 3}),
        ("classify --model m --fuse b --fuse c d", {"fuse": ["b", "c"]}),
        ("classify --top 1 a --model m b --jobs 2 c", {"songs": ["a", "b", "c"]}),
        ("classify a --model m -- -a.wav -- b", {"songs": ["a", "-a.wav", "--", "b"]}),
    ],
)
def test_parsed_arguments(line, expected):
    arguments = vars(parse(line.split()))
    assert {name: arguments[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("classify --model m", "name songs or folders, or list them in a file"),
        ("classify user/repo a.wav", "name it with --model user/repo"),
        ("classify user/repo --model m", "no such song or folder"),
        ("classify a --model m --top 0", "expected a whole number ≥ 1; got '0'"),
        ("classify a --min-posterior nan", "a number from 0 to 1; got 'nan'"),
        ("classify a --model m --output b/a.json", "use --output b/a.jsonl"),
        ("classify a --model m --output a.xlsx", "no format has the suffix '.xlsx'"),
        ("classify a --model m --format parquet", "needs a file: --output FILE"),
        ("classify a --model m --engine=ray", "--engine ray needs --output"),
        ("classify a --model m --engine=ray --output=x --format=csv", "writes parquet"),
        ("classify a --model m --workers=2", "--workers is for --engine ray"),
        ("classify - a.wav", "- reads one song from the standard input"),
        ("classify - --playlists lists", "works neither with --engine ray nor with -"),
        ("embed a.wav --output a.csv", "expected a name that ends in .parquet"),
        ("evaluate", "name a FOLDER of songs, or list songs and genres in --labels"),
        ("train --labels l.csv --from-tags --output m", "name a FOLDER of songs"),
        ("convert a.tar m --genres-file nowhere.txt", "nowhere.txt: cannot be read"),
    ],
)
def test_wrong_command_lines(command, line, message):
    status, out, err = command(*line.split())
    assert (status, out) == (2, "")
    assert err.startswith("usage: ms-sincresnet") and message in err


def test_only_messages_for_the_user_are_shown(command, monkeypatch):
    def chatter(arguments):
        logging.getLogger("speechbrain.utils").info("Applied quirks")
        logging.getLogger("speechbrain.utils").warning("Could not parse")
        warnings.warn("something is deprecated", stacklevel=1)
        logging.getLogger("ms_sincresnet.data.audio").warning("a.wav: \x1b ends early")
        logging.getLogger("ms_sincresnet.pretrained.hub").info("3 files")
        return 3

    monkeypatch.setattr(cli, "parse", lambda argv: SimpleNamespace(run=chatter))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert command() == (3, "", "warning: a.wav: \\x1b ends early\n3 files\n")
    assert warned == []


def test_an_interruption_names_the_way_to_resume(command, monkeypatch):
    interrupt = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(commands, "_classify_here", interrupt)
    classify = "classify", "a.wav", "--model=m"
    resumed = (130, "", "interrupted; run the same command again to resume\n")
    assert command(*classify, "--output=a.csv") == resumed
    assert command(*classify, "--output=a.txt") == (130, "", "interrupted\n")


def test_a_closed_pipe_ends_it_quietly(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = SimpleNamespace(run=lambda arguments: print("text"))
    monkeypatch.setattr(cli, "parse", lambda argv: arguments)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main([]) == 141


def test_each_command_calls_its_function(command, monkeypatch, tmp_path):
    functions = Mock()
    functions.push_folder.return_value = url = "https://hub/b/c"
    for home, name in [
        ("inference.demo", "launch"),
        ("inference.onnx", "export_onnx"),
        ("pretrained.hub", "push_folder"),
        ("pretrained.released", "convert_checkpoint"),
        ("training.export", "export_run"),
    ]:
        function = getattr(functions, name)
        monkeypatch.setattr(f"ms_sincresnet.{home}.{name}", function)
    genres = tmp_path / "genres.txt"
    genres.write_text("rock\n\n jazz \n")
    push = call.push_folder
    convert = call.convert_checkpoint("a", "b", ["rock", "jazz"])
    options = {"private": True, "revision": "v", "space": True}
    for line, expected, printed in [
        ("export a b --half", call.export_run("a", "b", half=True), "written: b"),
        ("push a b/c --private --revision v --space", push("a", "b/c", **options), url),
        ("convert a b --genres rock,jazz", convert, "written: b"),
        (f"convert a b --genres-file {genres}", convert, "written: b"),
        ("onnx a b", call.export_onnx("a", "b"), "written: b"),
        ("demo a --port 1", call.launch("a", host="127.0.0.1", port=1), ""),
    ]:
        status, out, err = command(*line.split())
        assert (status, out.strip(), err) == (0, printed, "")
        assert functions.mock_calls.pop() == expected


def test_info_for_people_and_programs(model_folder, command):
    status, text, _ = command("info", model_folder)
    assert status == 0 and "MSSincResNet\n" in text and "  voting: majority\n" in text
    assert text.endswith("\nposteriors are not calibrated\n")
    status, text, _ = command("info", model_folder, "--json")
    assert status == 0
    assert json.loads(text)["settings"]["genres"] == ["rock", "blues", "metal", "jazz"]
