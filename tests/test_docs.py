"""The documentation is complete and built without a warning; its tutorial runs."""

import itertools
import os
import pydoc
import re
import subprocess
import sys

import pandas as pd
import pytest
import soundfile

import ms_sincresnet
from ms_sincresnet.data.synthetic import render_track

from .hub_server import HubServer
from .test_repository import ROOT, documented

GENRES = {"dance": "disco", "heavy": "metal", "swing": "jazz"}
RUN = """\
import shlex, sys
from ms_sincresnet.cli import main
for line in sys.stdin:
    if main(shlex.split(line)):
        sys.exit(line)
"""


def test_every_name_that_users_write_is_on_the_page_of_its_folder():
    listed = {}
    for page in (ROOT / "docs/api").glob("*.md"):
        for name in re.findall(r"^\.\. auto\w+:: (\S+)$", page.read_text(), re.M):
            named = pydoc.locate(name)
            listed[f"{named.__module__}.{named.__qualname__}"] = name
            assert named.__module__.split(".")[1] == page.stem, name
    assert listed.keys() == documented().keys()
    assert {f"ms_sincresnet.{x}" for x in ms_sincresnet._HOMES} <= {*listed.values()}


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx_argparse_cli")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", ".", tmp_path]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0 and "arning" not in built.stderr, built.stderr
    linked = "GTZAN/README.html#precision-and-hop"
    assert linked in (tmp_path / "README.html").read_text()


def test_the_tutorial_runs(tmp_path):
    for (own, genre), n in itertools.product(GENRES.items(), range(4)):
        path = tmp_path / ("music" if n else "held_out") / own / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        song = render_track(genre, n, duration_s=3.5, sample_rate=16000, seed=0)
        soundfile.write(path, song, 16000)
    tutorial = (ROOT / "docs/tutorial.md").read_text()
    commands = "\n".join(re.findall(r"^\$ ms-sincresnet (.*)", tutorial, re.M))
    with HubServer() as hub:
        environment = os.environ | hub.environment(tmp_path / "cache")
        run, options = [sys.executable, "-c", RUN], {"cwd": tmp_path, "text": True}
        subprocess.run(run, input=commands, check=True, env=environment, **options)
        assert "model.safetensors" in hub.files("ada/my-genres")
    rows = pd.read_csv(tmp_path / "genres.csv")
    assert len(rows) == 3 and {"genre", "posterior_3"} <= {*rows}
    assert set(rows.filter(regex=r"^genre_\d").to_numpy().flat) <= set(GENRES)
    assert (tmp_path / "figures/confusion_matrix.png").exists()
