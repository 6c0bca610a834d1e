"""Addresses of models on this machine and on the Hub."""

from pathlib import Path

import huggingface_hub

from ms_sincresnet.models.hub import fetch


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
