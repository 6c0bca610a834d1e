"""The web page shows a model's prediction for a song, in a real browser too."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import Mock
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest

from ms_sincresnet import GenreClassifier, MelResNet, MSSincResNet
from ms_sincresnet.inference.demo import analyze_song, build_demo
from ms_sincresnet.pretrained import hub
from ms_sincresnet.pretrained.model_folder import save_model_folder

PATIENCE_S = 300  # a loaded machine takes its time to import torch and gradio
HOSTILE = "<img src=//example.org> & *blues*"  # a genre
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIETLY = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIETLY += ["--disable-component-update", "--disable-sync", "--no-first-run"]
# Python runs it at its start; it logs requests to other machines.
WITNESS = """
import sys
import threading

def witness(event, arguments):
    host = None
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        with open({path!r}, "a") as file:
            print(event, host, file=file)

sys.addaudithook(witness)
"""


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "it's broken.wav"
    path.write_bytes(b"no audio " * 100)
    return path


@pytest.fixture
def show(classifier):
    """Gives the page a file; returns all that it then shows, in order."""
    pytest.importorskip("gradio")
    (event,) = build_demo(classifier).fns.values()
    assert event.concurrency_limit == 1  # not twice the memory for two users
    return lambda path: list(event.fn(path and str(path)))


def test_a_view_of_a_song(tmp_path, write_song, classifier, tone_model):
    song = write_song(tmp_path / "song.flac", ("jazz", 3.2), ("metal", 4.3))
    seconds = []
    view = analyze_song(classifier, song, lambda given: seconds.extend(given) or given)
    assert [*map(len, seconds)] == 7 * [16000] + [8000]
    assert view.prediction == classifier.predict_song(song)
    assert view.prediction.genre == view.surest.genre == "metal"
    clips = [clip for clip in view.prediction.clips if clip.genre == "metal"]
    assert view.surest.posterior == max(clip.posterior for clip in clips)
    top, below, _ = view.timeline.axes
    assert top.get_xlim() == below.get_xlim() == (0, 7.5)

    start = round(view.surest.start_s * 16000)
    clip = classifier.load_audio(song)[start : start + 48000]
    maps = tone_model.frontend(clip[None])[0]
    for axes, values in zip(view.maps.axes, maps, strict=False):  # a colour bar is last
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), values)


def test_a_model_without_maps(tmp_path, write_song):
    save_model_folder(tmp_path / "model", MelResNet(2, n_mels=8), ["jazz", "rock"])
    classifier = GenreClassifier.from_pretrained(tmp_path / "model")
    view = analyze_song(classifier, write_song(tmp_path / "song.wav", ("jazz", 0.5)))
    assert view.maps is None and view.timeline.axes


def test_the_page_shows_genre_votes_and_figures(tmp_path, write_song, show, genres):
    first, last = show(write_song(tmp_path / "song.wav", ("rock", 2), ("jazz", 4)))
    assert [first[0], *first[2:]] == [None, None, "", None]  # the last song is gone
    assert first[1]["visible"] is False and last[1]["visible"] is True
    shares, _, timeline, learned, maps = last
    assert next(iter(shares)) == "jazz" and sorted(shares) == sorted(genres)
    assert sum(shares.values()) == pytest.approx(1)
    assert timeline.axes and maps.axes
    about = " ".join(learned.split())
    assert re.search(r"[\d.]+ to [\d.]+ s of the song, .* posterior of jazz", about)
    assert show(None) == [first]


def test_the_page_shows_what_is_wrong(tmp_path, write_song, broken, show, monkeypatch):
    with pytest.raises(pytest.importorskip("gradio").Error) as error:
        show(broken)
    message = error.value.message
    assert message.startswith("it&#x27;s broken.wav: not readable as audio (")
    assert str(broken.parent) not in message
    assert not error.value.print_exception

    whole = write_song(tmp_path / "whole.wav", ("jazz", 4))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[: 44 + 2 * 16000 * 3])
    monkeypatch.setattr("gradio.Warning", warn := Mock())
    assert next(iter(show(cut)[-1][0])) == "jazz"
    ((warning,), _) = warn.call_args
    assert warn.call_count == 1  # though the file is read more than once
    assert re.match(r"cut\.wav: .*3\.00 s", warning)


@pytest.fixture(scope="module")
def space(tone_model, genres, tmp_path_factory):
    """Address of a Space's page; its process sends no request elsewhere."""
    pytest.importorskip("gradio")
    tmp_path = tmp_path_factory.mktemp("space")
    names = [HOSTILE if name == "blues" else name for name in genres]
    save_model_folder(tmp_path / "model", tone_model, names)
    hub._add_demo(tmp_path / "model", MSSincResNet.from_pretrained(tmp_path / "model"))
    asked, log = tmp_path / "asked.txt", tmp_path / "log.txt"
    (tmp_path / "sitecustomize.py").write_text(WITNESS.format(path=str(asked)))
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    environment["GRADIO_TEMP_DIR"] = str(tmp_path / "uploads")
    environment["GRADIO_SERVER_NAME"] = "0.0.0.0"  # as the Hub sets it
    command = [sys.executable, tmp_path / "model/app.py"]
    with log.open("w") as out:
        options = {"env": os.environ | environment, "stdout": out, "stderr": out}
        server = subprocess.Popen(command, **options)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while "public link" not in (said := log.read_text()):  # ends its greeting
            assert server.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        yield "http://127.0.0.1" + re.search(r"http://[\d.]+(:\d+)", said)[1]
        server.send_signal(signal.SIGINT)
        server.wait(PATIENCE_S)
    finally:
        server.kill()
        server.wait()
    assert not asked.exists(), asked.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()
    assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()] == []


def test_a_space_serves_the_page_with_its_own_copy_of_the_package(space):
    with urlopen(f"{space}/config") as answer:
        config = json.load(answer)
    assert config["theme"] == "default" and ".figure" in config["css"]
    assert config["footer_links"] == []
    text = " ".join(json.dumps(config["components"]).replace("\\n", " ").split())
    assert "distinguishes 4 genres: rock, " in text and "ICMR 2021" in text
    assert "clips of 3 s, every 0.5 s" in text


@pytest.fixture
def page():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIETLY)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        yield page
        browser.close()


def test_the_page_in_a_browser(tmp_path, genres, write_song, broken, page, space):
    asked = []
    for event in ("request", "websocket"):
        page.on(event, lambda request: asked.append(request.url))
    page.goto(space)
    names = ", ".join(genres).replace("blues", HOSTILE)
    page.get_by_text(f"distinguishes 4 genres: {names}.").wait_for()

    song = write_song(tmp_path / "song.wav", ("metal", 5))
    page.set_input_files("input[type=file]", song)
    genre = page.get_by_test_id("label-output-value")
    genre.wait_for()
    assert genre.inner_text().strip() == "metal"
    assert "100%" in page.get_by_test_id("metal-confidence-set").inner_text()
    page.locator(".figure img").nth(1).wait_for()
    assert page.locator(".figure img").count() == 2

    page.get_by_label("Clear").click()
    genre.wait_for(state="hidden")
    page.set_input_files("input[type=file]", broken)
    message = page.get_by_test_id("toast-body")
    message.wait_for()
    assert "broken.wav: not readable as audio" in message.inner_text()
    assert str(tmp_path) not in message.inner_text()
    assert not genre.is_visible()
    page.close()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith("blob:")}
    assert hosts == {"127.0.0.1"} and len(asked) > 10
