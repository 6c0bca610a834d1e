"""Files of hyperparams, read for what they say."""

import pytest

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.training.plain_yaml import read_plainly

TEXT = """\
folder: /runs/1
dashes: &id1 [3, 5]
seed: !apply:os.mkdir [MADE]
same: !ref <folder>/save
model: !new:ms_sincresnet.MSSincResNet
    kernel_sizes: *id1
    weights: null
layers: !new:torch.nn.Sequential
    - !new:torch.nn.Linear
name: !name:os.mkdir
    path: MADE
module: !module:this
nested:
    deep: !new:torch.nn.ReLU
"""


def test_values_are_read_and_nothing_is_run(tmp_path):
    path, made = tmp_path / "hyperparams.yaml", tmp_path / "made"
    path.write_text(TEXT.replace("MADE", str(made)))
    assert read_plainly(path) == {
        "folder": "/runs/1",
        "dashes": [3, 5],
        "seed": None,
        "same": None,
        "model": (
            "ms_sincresnet.MSSincResNet",
            {"kernel_sizes": [3, 5], "weights": None},
        ),
        "layers": ("torch.nn.Sequential", {}),
        "name": None,
        "module": None,
        "nested": {"deep": ("torch.nn.ReLU", {})},
    }
    assert not made.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"a: [",
        b"\xff\xfe\0",
        b"a: " + b"[" * 5000,
        b"a: !!python/object/apply:os.mkdir ['made']",
        b"a: *nothing",
        b"{[1]: 2}",
    ],
)
def test_what_cannot_be_read_names_the_file(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hyperparams.yaml"
    path.write_bytes(content)
    with pytest.raises(ModelFolderError) as error:
        read_plainly(path)
    assert str(error.value).startswith(f"{path}: not yaml")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["", "word", "- 1\n- 2\n"])
def test_what_is_no_mapping_has_no_values(tmp_path, content):
    path = tmp_path / "hyperparams.yaml"
    path.write_text(content)
    assert read_plainly(path) == {}
