"""To the Hub and back, against a server on this machine that speaks its routes.

huggingface_hub reads ``HF_ENDPOINT`` when it is imported, so one process does all.
"""

import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import ms_sincresnet
from ms_sincresnet import GenreClassifier, SincNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.pretrained.hub import push_folder
from ms_sincresnet.pretrained.model_folder import CARD, FILES

from .hub_server import HubServer

SMALL = {"n_filters": 4, "frame_samples": 800, "kernel_size": 51}
SONG = "torch.randn(1, 64000, generator=torch.Generator().manual_seed(0))"
REFUSALS = {
    "user/nothing": "no such repository, or a private one",
    "user/gated": "a gated repository (ask for access on its page",
    "user/songs": "the repository has no such revision",
    "user/other": "not in the cache",
    "user/empty": "the repository lacks a file that every model has",
    "user/code": "the repository lacks a file that every model has",
    "not a/name": "not a name that the Hub allows",
    "https://huggingface.co/user/songs": "not a name that the Hub allows",
}
ROUND_TRIP = f"""
import sys
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from ms_sincresnet import GenreClassifier, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.pretrained.hub import describe, push_folder

folder, work = sys.argv[1:]
song = {SONG}
seen = {{"urls": [push_folder(folder, "user/songs", private=True)]}}
seen["urls"].append(push_folder(folder, "user/space", space=True, revision="v2"))
network = SincNet(3, n_filters=8, frame_samples=800)
network.save_pretrained(f"{{work}}/network", push_to_hub=True, repo_id="user/network")
seen["network"] = SincNet.from_pretrained("user/network").state_dict()
with torch.no_grad():
    seen["clip"] = MSSincResNet.from_pretrained("user/songs")(song[:, :48000])
    seen["songs"] = [
        classifier.classify_batch(song)[0]
        for classifier in (
            GenreClassifier.from_pretrained(folder),
            GenreClassifier.from_pretrained("user/songs"),
            GenreClassifier.from_pretrained("user/songs", local_files_only=True),
            GenreClassifier.from_hparams("user/songs", savedir=f"{{work}}/ours"),
            EncoderClassifier.from_hparams("user/songs"),
        )
    ]
seen["described"] = describe("user/songs"), describe(folder)
options = {{
    "user/gated": {{"token": False}},
    "user/songs": {{"revision": "v9"}},
    "user/other": {{"local_files_only": True}},
}}
seen["refusals"] = []
for name in {[*REFUSALS]}:
    for load in (GenreClassifier.from_pretrained, SincNet.from_pretrained):
        try:
            load(name, **options.get(name, {{}}))
        except ModelFolderError as error:
            seen["refusals"].append((name, str(error)))
torch.save(seen, f"{{work}}/seen.pt")
"""


@pytest.fixture(scope="module")
def round_trip(model_folder, tmp_path_factory):
    """Results of a process that pushed and pulled, and the Hub afterwards."""
    tmp_path = tmp_path_factory.mktemp("hub")
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "private notes.txt").write_text("not to be pushed")
    with HubServer() as hub:
        hub.gated.add("user/gated")
        for name, files in [("empty", []), ("code", FILES[2:])]:
            content = {file: (folder / file).read_bytes() for file in files}
            hub.repos["model", f"user/{name}"] = {"0" * 40: content, "main": content}
        environment = os.environ | hub.environment(tmp_path / "cache")
        command = [sys.executable, "-c", ROUND_TRIP, folder, tmp_path]
        finished = subprocess.run(command, env=environment, stderr=subprocess.PIPE)
    assert finished.returncode == 0, finished.stderr.decode()
    return torch.load(tmp_path / "seen.pt"), hub, tmp_path


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_loaders_give_the_same_posteriors_to_the_bit(
    round_trip, tone_model, classifier
):
    seen, _, _ = round_trip
    song = eval(SONG)
    expected = classifier.classify_batch(song)[0]
    assert len(seen["songs"]) == 5
    assert all(posteriors.equal(seen["songs"][0]) for posteriors in seen["songs"])
    torch.testing.assert_close(seen["songs"][0], expected, rtol=0, atol=1e-5)
    clip = tone_model(song[:, :48000])
    torch.testing.assert_close(seen["clip"], clip, rtol=0, atol=1e-5)


def test_a_repository_has_the_folders_files_and_no_others(round_trip, model_folder):
    seen, hub, tmp_path = round_trip
    assert hub.files("user/songs") == files_of(model_folder)
    assert hub.private == {"user/songs"}
    urls = [f"{hub.url}/user/songs", f"{hub.url}/spaces/user/space"]
    assert seen["urls"] == urls
    assert hub.files("user/network") == files_of(tmp_path / "network")
    weights = load_file(tmp_path / "network" / "model.safetensors")
    assert all(seen["network"][name].equal(weights[name]) for name in weights)


def test_a_space_runs_on_the_sources_that_it_carries(round_trip, tmp_path, monkeypatch):
    seen, hub, _ = round_trip
    assert hub.files("user/space", "space", "main") == {}
    files = hub.files("user/space", "space", "v2")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    package = Path(ms_sincresnet.__file__).parent
    sources = {
        f"ms_sincresnet/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".c", ".so", ".pyc")
    }
    assert files.keys() == {*FILES, "app.py", "requirements.txt", *sources}
    needed = re.findall(r"^[\w-]+", (tmp_path / "requirements.txt").read_text(), re.M)
    assert {"gradio", "speechbrain", "torch", "safetensors"} <= {*needed}
    assert not {"ms_sincresnet", "ray", "pytest", "onnx"} & {*needed}
    demo = SimpleNamespace(build_demo=lambda folder: folder)
    monkeypatch.setitem(sys.modules, "ms_sincresnet.inference.demo", demo)
    assert runpy.run_path(str(tmp_path / "app.py"))["demo"] == tmp_path
    classifier = GenreClassifier.from_pretrained(tmp_path)
    assert classifier.hparams.model.frontend.backend == "fft"
    found = classifier.classify_batch(eval(SONG))[0]
    torch.testing.assert_close(found, seen["songs"][0], rtol=0, atol=1e-4)


def test_a_description_is_the_same_from_both_places(round_trip, tone_model, genres):
    seen, _, tmp_path = round_trip
    remote, local = seen["described"]
    assert remote == local
    assert remote["system"] == "MSSincResNet"
    assert remote["arguments"] == tone_model.config
    assert remote["parameters"] == sum(p.numel() for p in tone_model.parameters())
    assert remote["settings"]["genres"] == genres
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert remote["sha256"] == hashlib.sha256(weights).hexdigest()
    assert remote["format_version"] == 1


def test_refusals_of_the_hub_are_explained_in_a_sentence(round_trip):
    seen, hub, _ = round_trip
    assert len(seen["refusals"]) == 2 * len(REFUSALS)
    for name, text in seen["refusals"]:
        assert text.startswith(f"{name} (no such folder here): {REFUSALS[name]}")
        assert "\n" not in text
    assert not any("user/code" in r and ".yaml" in r for r in hub.requests)


def test_an_unreachable_hub_is_reported_in_a_sentence(
    model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    push_to_hub, load = SincNet(3, **SMALL).push_to_hub, GenreClassifier.from_pretrained
    for act in (push_to_hub, load, partial(push_folder, model_folder)):
        with pytest.raises(ModelFolderError, match="^user/songs.* offline mode"):
            act("user/songs")


def test_an_incomplete_or_damaged_folder_is_not_pushed(
    tmp_path, model_folder, monkeypatch
):
    monkeypatch.setattr(huggingface_hub, "HfApi", pytest.fail)
    weights = load_file(model_folder / "model.safetensors")
    weights.popitem()
    folder = shutil.copytree(model_folder, tmp_path / "model")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="is missing"):
        push_folder(folder, "user/songs")
    (folder / CARD).unlink()
    with pytest.raises(ModelFolderError, match=f"{CARD} missing"):
        push_folder(folder, "user/songs")
