"""To the Hub and back, against a server on this machine that speaks its routes.

huggingface_hub reads ``HF_ENDPOINT`` when it is imported, so one process does all.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import ms_sincresnet
from ms_sincresnet import GenreClassifier, SincNet
from ms_sincresnet.errors import ModelFolderError, WeightsError
from ms_sincresnet.pretrained.hub import push_folder
from ms_sincresnet.pretrained.model_folder import FILES, save_model_folder

from .hub_server import HubServer

SONGS = "torch.randn(2, 80000, generator=torch.Generator().manual_seed(0))"
CLIPS = {"clip_samples": 32000, "hop_samples": 16000}
REFUSALS = {
    "user/nothing": "no such repository, or a private one",
    "user/gated": "a gated repository (ask for access on its page",
    "user/songs": "the repository has no such revision",
    "user/other": "not in the cache",
    "user/code": "the repository lacks a file that every model has",
    "not a/name": "not a name that the Hub allows",
}
ROUND_TRIP = f"""
import sys
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from ms_sincresnet import GenreClassifier, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.pretrained.hub import describe, push_folder
from ms_sincresnet.pretrained.model_folder import save_model_folder

folder, work = sys.argv[1:]
songs, genres = {SONGS}, describe(folder)["settings"]["genres"]
seen = {{"urls": [push_folder(folder, "user/songs", private=True)]}}
seen["urls"].append(push_folder(folder, "user/space", space=True, revision="v2"))
network = SincNet(4, n_filters=8, frame_samples=800)
save_model_folder(f"{{work}}/second", network, genres, **{CLIPS})
push_folder(f"{{work}}/second", "user/second")
with torch.no_grad():
    seen["clip"] = MSSincResNet.from_pretrained("user/songs")(songs[:, :32000])
loaded = [
    GenreClassifier.from_pretrained(folder),
    GenreClassifier.from_hparams(folder),
    EncoderClassifier.from_hparams(folder),
    GenreClassifier.from_pretrained("user/songs"),
    GenreClassifier.from_pretrained("user/songs", local_files_only=True),
    GenreClassifier.from_hparams("user/songs", savedir=f"{{work}}/ours"),
    EncoderClassifier.from_hparams("user/songs"),
]
lengths = torch.tensor([1.0, 0.6])
seen["songs"] = [each.classify_batch(songs, lengths) for each in loaded]
address = "user/audio/song.wav"
seen["files"] = [each.classify_file(address)[0] for each in loaded[:3]]
seen["fused"] = [
    GenreClassifier.from_hparams(both, savedir=f"{{work}}/both").classify_file(address)
    for both in (["user/songs", "user/second"], [folder, f"{{work}}/second"])
]
seen["described"] = describe("user/songs"), describe(folder)
options = {{
    "user/gated": {{"token": False}},
    "user/songs": {{"revision": "v9"}},
    "user/other": {{"local_files_only": True}},
}}
seen["refusals"] = []
loaders = GenreClassifier.from_pretrained, SincNet.from_pretrained
cases = [(load, name) for load in loaders for name in {[*REFUSALS]}]
for load, name in [*cases, (GenreClassifier.from_hparams, "user/nothing")]:
    try:
        load(name, **options.get(name, {{}}))
    except ModelFolderError as error:
        seen["refusals"].append((name, str(error)))
torch.save(seen, f"{{work}}/seen.pt")
"""


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def round_trip(tone_model, genres, write_song, tmp_path_factory):
    """Results of a process that pushed and pulled, and the Hub afterwards."""
    tmp_path = tmp_path_factory.mktemp("hub")
    folder = tmp_path / "model"
    settings = CLIPS | {"full_scale": 32768.0, "temperature": 0.592}
    save_model_folder(folder, tone_model, genres, **settings)
    (folder / "private notes.txt").write_text("not to be pushed")
    before = files_of(folder)
    song = write_song(tmp_path / "song.wav", ("jazz", 2), ("rock", 3))
    with HubServer() as hub:
        hub.gated.add("user/gated")
        code = [folder / name for name in FILES[2:]]
        for name, paths in {"code": code, "audio": [song]}.items():
            content = {path.name: path.read_bytes() for path in paths}
            hub.repos["model", f"user/{name}"] = {"0" * 40: content, "main": content}
        environment = os.environ | hub.environment(tmp_path / "cache")
        command = [sys.executable, "-c", ROUND_TRIP, folder, tmp_path]
        finished = subprocess.run(command, env=environment, stderr=subprocess.PIPE)
    assert finished.returncode == 0, finished.stderr.decode()
    assert b"expect_len" not in finished.stderr
    assert files_of(folder) == before
    return torch.load(tmp_path / "seen.pt"), hub, tmp_path


def test_all_loaders_give_the_same_posteriors_to_the_bit(round_trip, tone_model):
    seen, _, tmp_path = round_trip
    clip = tone_model(eval(SONGS)[:, :32000])
    torch.testing.assert_close(seen["clip"], clip, rtol=0, atol=1e-5)
    classifier = GenreClassifier.from_pretrained(tmp_path / "model")
    assert classifier.temperature == 0.592
    assert classifier.mods.embedding_model.full_scale == 32768.0
    posteriors, *best, genres = seen["songs"][0]
    expected = classifier.classify_batch(eval(SONGS), torch.tensor([1.0, 0.6]))[0]
    torch.testing.assert_close(posteriors, expected, rtol=0, atol=1e-5)
    for others, *parts, names in seen["songs"]:
        assert others.equal(posteriors) and names == genres
        assert all(map(torch.equal, parts, best))
    for file in seen["files"]:
        assert file.equal(seen["files"][0])
    (one, *_, genre), (other, *_) = seen["fused"]
    assert one.equal(other) and not one.equal(seen["files"][0]) and genre == ["rock"]


def test_a_repository_has_the_folders_files_and_no_others(round_trip):
    seen, hub, tmp_path = round_trip
    (tmp_path / "model" / "private notes.txt").unlink()
    assert hub.files("user/songs") == files_of(tmp_path / "model")
    assert hub.private == {"user/songs"}
    remote, local = seen["described"]
    assert remote == local and remote["system"] == "MSSincResNet"
    weights = hub.files("user/songs")["model.safetensors"]
    assert remote["sha256"] == hashlib.sha256(weights).hexdigest()
    urls = [f"{hub.url}/user/songs", f"{hub.url}/spaces/user/space"]
    assert seen["urls"] == urls


def test_a_space_carries_the_sources_on_which_it_runs(round_trip, tmp_path):
    seen, hub, _ = round_trip
    assert hub.files("user/space", "space", "main") == {}
    files = hub.files("user/space", "space", "v2")
    package = Path(ms_sincresnet.__file__).parent
    sources = {
        f"ms_sincresnet/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix not in (".c", ".so", ".pyc")
        and path.parent.name != "bundled"  # another model
    }
    assert files.keys() == {*FILES, "app.py", "requirements.txt", *sources}
    needed = re.findall(r"^[\w-]+", files["requirements.txt"].decode(), re.M)
    assert {"gradio", "speechbrain", "torch", "safetensors"} <= {*needed}
    for name in FILES:
        (tmp_path / name).write_bytes(files[name])
    classifier = GenreClassifier.from_pretrained(tmp_path)
    assert classifier.hparams.model.frontend.backend == "fft"
    found = classifier.classify_batch(eval(SONGS)[:1])[0]
    torch.testing.assert_close(found, seen["songs"][0][0][:1], rtol=0, atol=1e-4)


def test_refusals_of_the_hub_are_explained_in_a_sentence(round_trip):
    seen, hub, _ = round_trip
    *refusals, (_, of_hparams) = seen["refusals"]
    assert len(refusals) == 2 * len(REFUSALS)
    for name, text in refusals:
        assert text.startswith(f"{name} (no such folder here): {REFUSALS[name]}")
        assert "\n" not in text
    reason = "no such folder here; as a repository of the Hub .*401"
    assert re.match(f"user/nothing: {reason}", of_hparams)
    assert not any("user/code" in r and ".yaml" in r for r in hub.requests)


def test_an_unreachable_hub_is_reported(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    push = partial(push_folder, model_folder)
    for act in (SincNet(3).push_to_hub, GenreClassifier.from_pretrained, push):
        with pytest.raises(ModelFolderError, match="^user/songs.* offline mode"):
            act("user/songs")


def test_damaged_folders_are_not_pushed(tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", pytest.fail)
    weights = load_file(model_folder / "model.safetensors")
    weights.popitem()
    folder = shutil.copytree(model_folder, tmp_path / "model")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="is missing"):
        push_folder(folder, "user/songs")
