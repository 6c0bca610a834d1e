"""Files that are written whole or not at all."""

import pytest

from ms_sincresnet.files import atomic_path


def test_an_atomic_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temporary_path:
        temporary_path.write_text("half of the n")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["report.txt"]
    assert path.read_text() == "old"
