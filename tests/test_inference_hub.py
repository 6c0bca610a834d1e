"""To the Hub and back, against a server on this machine that speaks its routes.

What needs ``HF_ENDPOINT`` runs in a process of its own, since huggingface_hub reads it
when it is imported; that process saves what it saw.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file

from ms_sincresnet import GenreClassifier, MSSincResNet, SincNet
from ms_sincresnet.errors import ModelFolderError, UserError, WeightsError
from ms_sincresnet.pretrained.hub import (
    describe,
    fetch,
    hub_errors,
    local_path,
    push_folder,
)
from ms_sincresnet.pretrained.model_folder import FILES

from .hub_server import HubServer

SONG = "torch.randn(1, 64000, generator=torch.Generator().manual_seed(0))"
ROUND_TRIP = f"""
import sys
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from ms_sincresnet import GenreClassifier, MSSincResNet, SincNet
from ms_sincresnet.pretrained.hub import describe, push_folder

folder, work = sys.argv[1:]
song = {SONG}
seen = {{"urls": [push_folder(folder, "user/songs", private=True)]}}
seen["urls"].append(push_folder(folder, "user/space", space=True, revision="v2"))
network = SincNet(3, n_filters=8, frame_samples=800)
network.save_pretrained(f"{{work}}/network")
network.push_to_hub("user/network")
seen["network"] = SincNet.from_pretrained("user/network").state_dict()
with torch.no_grad():
    seen["clip"] = MSSincResNet.from_pretrained("user/songs")(song[:, :48000])
    seen["songs"] = [
        classifier.classify_batch(song)[0]
        for classifier in (
            GenreClassifier.from_pretrained(folder),
            GenreClassifier.from_pretrained("user/songs"),
            GenreClassifier.from_pretrained("user/songs", revision="main"),
            GenreClassifier.from_pretrained("user/songs", local_files_only=True),
            GenreClassifier.from_hparams("user/songs", savedir=f"{{work}}/ours"),
            EncoderClassifier.from_hparams("user/songs", savedir=f"{{work}}/stock"),
        )
    ]
seen["described"] = describe("user/songs"), describe(folder)
torch.save(seen, f"{{work}}/seen.pt")
"""
REFUSALS = """
import json, sys
from ms_sincresnet import GenreClassifier, SincNet
from ms_sincresnet.errors import ModelFolderError

told = {}
for name, options in [
    ("user/nothing", {}),
    ("user/gated", {"token": False}),
    ("user/songs", {"revision": "v9"}),
    ("user/songs", {"local_files_only": True}),
    ("user/empty", {}),
    ("user/code", {}),
    ("not a/name", {}),
    ("https://huggingface.co/user/songs", {}),
]:
    for load in (GenreClassifier.from_pretrained, SincNet.from_pretrained):
        try:
            load(name, **options)
        except ModelFolderError as error:
            told[f"{name} {load.__self__.__name__} {json.dumps(options)}"] = str(error)
try:
    SincNet(3, n_filters=8).push_to_hub("user/songs")
except ModelFolderError as error:
    told["push"] = str(error)
print(json.dumps(told))
"""


def run(hub, tmp_path, script, *arguments):
    """Runs a script to which the server is the Hub; what it prints."""
    environment = {**os.environ, **hub.environment(tmp_path / "cache")}
    environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    finished = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def round_trip(model_folder, tmp_path_factory):
    """What a process saw that pushed and pulled, and the Hub as it left it."""
    tmp_path = tmp_path_factory.mktemp("hub")
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "private notes.txt").write_text("not to be pushed")
    with HubServer() as hub:
        run(hub, tmp_path, ROUND_TRIP, folder, tmp_path)
    return torch.load(tmp_path / "seen.pt"), hub, tmp_path


def test_all_loaders_give_the_same_posteriors(round_trip, tone_model, classifier):
    seen, _, _ = round_trip
    song = eval(SONG)
    expected = classifier.classify_batch(song)[0]
    assert len(seen["songs"]) == 6
    for posteriors in seen["songs"]:
        assert posteriors.equal(seen["songs"][0])
    torch.testing.assert_close(seen["songs"][0], expected, rtol=0, atol=1e-5)
    clip = tone_model(song[:, :48000])
    torch.testing.assert_close(seen["clip"], clip, rtol=0, atol=1e-5)


def test_the_repository_has_the_folders_files_and_no_others(round_trip, model_folder):
    seen, hub, _ = round_trip
    for repo, kind, branch in [
        ("user/songs", "model", "main"),
        ("user/space", "space", "v2"),
    ]:
        files = hub.files(repo, kind, branch)
        assert sorted(files) == sorted(FILES)
        for name, content in files.items():
            assert content == (model_folder / name).read_bytes(), name
    assert hub.files("user/space", "space", "main") == {}
    assert hub.private == {"user/songs"}
    urls = [f"{hub.url}/user/songs", f"{hub.url}/spaces/user/space"]
    assert seen["urls"] == urls


def test_a_network_alone_is_pushed_and_pulled(round_trip):
    seen, hub, tmp_path = round_trip
    saved = tmp_path / "network"
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert hub.files("user/network") == files
    weights = load_file(saved / "model.safetensors")
    assert weights.keys() == seen["network"].keys()
    assert all(seen["network"][name].equal(weights[name]) for name in weights)


def test_what_is_pulled_is_of_one_commit(round_trip):
    _, hub, _ = round_trip
    asked = [r for r in hub.requests if r.startswith("GET /user/songs/resolve")]
    config, weights = asked[:2]
    assert config == "GET /user/songs/resolve/main/config.json"
    commits = [key for key in hub.repos["model", "user/songs"] if key != "main"]
    assert weights == f"GET /user/songs/resolve/{commits[0]}/model.safetensors"


def test_a_description_is_the_same_from_both_places(round_trip, tone_model, genres):
    (remote, local), _, tmp_path = round_trip[0]["described"], *round_trip[1:]
    assert remote == local
    assert remote["system"] == "MSSincResNet"
    assert remote["arguments"] == tone_model.config
    assert remote["parameters"] == sum(p.numel() for p in tone_model.parameters())
    assert remote["settings"]["genres"] == genres
    assert remote["figures"] == []
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert remote["sha256"] == hashlib.sha256(weights).hexdigest()
    assert remote["format_version"] == 1


def test_what_the_hub_refuses_is_told_in_a_sentence(tmp_path, model_folder):
    with HubServer() as hub:
        hub.gated.add("user/gated")
        for name, files in [("songs", FILES), ("empty", []), ("code", FILES[:1])]:
            content = {file: (model_folder / file).read_bytes() for file in files}
            hub.repos["model", f"user/{name}"] = {"0" * 40: content, "main": content}
        told = json.loads(run(hub, tmp_path, REFUSALS))
        assert sorted(hub.files("user/songs")) == sorted(FILES)
    assert told.pop("push").startswith("user/songs: its hyperparams.yaml and checkp")
    expected = {
        "user/nothing": "no such repository on the Hub, or a private one",
        "user/gated": "a gated repository (ask for access on its page",
        'user/songs {"revision": "v9"}': "the repository has no such revision",
        'user/songs {"local_files_only": true}': "not in the cache",
        "user/empty": "the repository lacks a file that models of ms_sincresnet have",
        "user/code": "the repository lacks a file that models of ms_sincresnet have",
        "not a/name": "not a name that the Hub allows",
        "https://huggingface.co/user/songs": "not a name that the Hub allows",
    }
    assert len(told) == 2 * len(expected)
    for asked, text in told.items():
        name = asked.replace("GenreClassifier ", "").replace("SincNet ", "")
        start = next(key for key in expected if name.startswith(key))
        repo = start.split(" {")[0]
        assert text.startswith(f"{repo} (no such folder here): {expected[start]}")
        assert "\n" not in text
    assert not any(r.startswith("GET") and ".yaml" in r for r in hub.requests)


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: push_folder(folder, "user/songs"),
        lambda folder: GenreClassifier.from_pretrained("user/songs"),
        lambda folder: SincNet(3, n_filters=8).push_to_hub("user/songs"),
    ],
)
def test_a_hub_that_is_not_reached_is_told_in_a_sentence(
    act, model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelFolderError, match="^user/songs.* the Hub is not reached"):
        act(model_folder)


def test_a_folder_that_is_not_whole_is_not_pushed(tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", pytest.fail)
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "README.md").unlink()
    with pytest.raises(ModelFolderError, match=r"it lacks README\.md"):
        push_folder(folder, "user/songs")
    (folder / "README.md").touch()
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text().replace("voting: majority", "voting: mean"))
    with pytest.raises(ModelFolderError, match=r"another model in hyperparams\.yaml"):
        push_folder(folder, "user/songs")


@pytest.mark.parametrize(
    "path", ["nowhere", "./user/songs", "../user/songs", "/user/songs", "a/b/c", "~/x"]
)
def test_a_mistyped_path_is_not_asked_of_the_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", pytest.fail)
    (tmp_path / "runs").mkdir()
    for source in (path, tmp_path / path, "runs/nothing"):
        for load in (fetch, describe, GenreClassifier.from_pretrained):
            with pytest.raises(ModelFolderError, match="no such model folder"):
                load(source)


def test_what_an_address_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_path("user/songs", hub_parts=2) is None
    assert local_path("user/songs/1.wav", hub_parts=3) is None
    assert local_path("https://a/b", hub_parts=2) is None
    (tmp_path / "user").mkdir()
    assert local_path("user/songs", hub_parts=2) == (
        tmp_path / "user/songs"
    ).relative_to(tmp_path)
    assert local_path(tmp_path / "a", hub_parts=2) == tmp_path / "a"


def test_damaged_weights_are_told_from_a_description(tmp_path, tone_model):
    tone_model.save_pretrained(tmp_path)
    assert describe(tmp_path)["settings"] == {}
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no such file of weights"):
        describe(tmp_path)


def test_a_description_of_the_papers_systems_needs_no_memory_for_them(tmp_path):
    model = MSSincResNet()
    model.save_pretrained(tmp_path)
    assert describe(tmp_path)["parameters"] == 12_494_794


def test_faults_of_the_model_are_not_taken_for_the_hubs():
    model = SincNet(3, n_filters=8, frame_samples=800)
    model.config["n_genres"] = 4
    with (
        pytest.raises(UserError, match="^the model is not what its config says"),
        hub_errors("user/songs"),
    ):
        model.save_pretrained("unwritten")
    with pytest.raises(KeyError), hub_errors("user/songs"):
        raise KeyError("a fault of the program")


@pytest.mark.parametrize(
    "error",
    [
        errors.LocalTokenNotFoundError("no token\nlog in"),
        errors.OfflineModeIsEnabled("offline\nadvice"),
        OSError(28, "No space left on device"),
        TimeoutError(),
    ],
)
def test_other_faults_of_the_hub_keep_their_first_line(error):
    with pytest.raises(ModelFolderError) as found, hub_errors("user/songs"):
        raise error
    told = str(found.value)
    assert told.startswith("user/songs: the Hub is not reached or refuses: ")
    assert "\n" not in told and not told.endswith(": ")
