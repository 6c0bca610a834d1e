"""Addresses on this machine and on the Hub, and the Hub's errors as sentences."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from ms_sincresnet import GenreClassifier, SincNet
from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.models.hub import fetch, hub_errors, local_path
from ms_sincresnet.pretrained.hub import describe


def test_a_mistyped_path_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", pytest.fail)
    names = ["nowhere", "./user/songs", "../user/songs", "/user/songs", "a/b/c", "~/x"]
    for source in (*names, tmp_path / "nowhere"):
        for load in (
            SincNet.from_pretrained,
            describe,
            GenreClassifier.from_pretrained,
        ):
            with pytest.raises(ModelFolderError, match="no such model folder"):
                load(source)


def test_an_address_is_a_path_or_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_path("user/songs", hub_parts=2) is None
    assert local_path("user/songs/1.wav", hub_parts=3) is None
    assert local_path("https://a/b", hub_parts=2) is None
    (tmp_path / "user").mkdir()
    assert local_path("user/songs", hub_parts=2) is None
    assert local_path("user/songs/1.wav", hub_parts=3) == Path("user/songs/1.wav")
    (tmp_path / "user/songs").mkdir()
    assert local_path("user/songs", hub_parts=2) == Path("user/songs")
    assert local_path(tmp_path / "a", hub_parts=2) == tmp_path / "a"


def test_faults_of_the_hub_alone_are_reported_and_by_their_first_line():
    for error in (UserError("of the model"), KeyError("of the program")):
        with pytest.raises(type(error)) as found, hub_errors("user/songs"):
            raise error
        assert found.value is error
    for error, line in [
        (errors.LocalTokenNotFoundError("no token\nlog in"), "no token"),
        (errors.OfflineModeIsEnabled("offline\nadvice"), "offline"),
        (OSError(28, "No space left"), "[Errno 28] No space left"),
        (TimeoutError(), "TimeoutError"),
    ]:
        with pytest.raises(ModelFolderError) as found, hub_errors("user/songs"):
            raise error
        expected = f"user/songs: the Hub is unreachable or refuses: {line}"
        assert str(found.value) == expected


def test_a_folder_comes_before_a_repository_and_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "ms_sincresnet")
    asked = []

    def download(repo, name, **options):
        asked.append((repo, name, options.get("revision")))
        return tmp_path / "snapshots/0123/file"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (tmp_path / "user").mkdir()
    assert fetch("user/songs@v2") == tmp_path / "snapshots/0123"
    assert asked == [
        ("user/songs", "config.json", "v2"),
        ("user/songs", "model.safetensors", "0123"),
    ]
    assert caplog.messages == []
    (tmp_path / "user/songs").mkdir()
    for source in ("user/songs", "./user/songs", tmp_path / "user/songs"):
        assert fetch(source) == Path(source)
    (line,) = caplog.messages
    assert line == "user/songs: the folder here is taken, not the Hub's repository"
    assert len(asked) == 2
