"""Files of results: written song by song, gone on with, and never lost."""

import csv
import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import as_utf8
from ms_sincresnet.inference import results as results_file
from ms_sincresnet.inference.results import ParquetRows, open_results
from ms_sincresnet.inference.row_formats import columns

KIND = {"model": "0123456789ab-majority", "top": 2, "timeline": False}
BAD_BYTES = os.fsdecode(b"caf\xe9.wav")
FILES = ["a.wav", "-b\n.wav", BAD_BYTES, "d.wav", "e.wav"]


def row(file, error=None, timeline=None):
    """A row as ``song_row`` makes it."""
    best = {"genre": "jazz", "share": 0.75, "posterior": 0.5}
    next_best = {"genre": "rock", "share": 0.25, "posterior": 0.25}
    made = {"file": as_utf8(file), "genre": "jazz", "duration": 3.5, "clips": 2}
    made |= {"top": [best, next_best], "error": None}
    if error is not None:
        made |= {"genre": None, "duration": None, "clips": 0, "top": [], "error": error}
    return made if timeline is None else made | {"timeline": timeline}


def write(path, rows, files=FILES, **kind):
    """Writes rows, and returns what was there already."""
    form = Path(path).suffix[1:]
    with open_results(form, path, files=files, **KIND | kind) as results:
        for each in rows:
            results.write(each)
        return results.done


def read(path):
    """Files and errors of the rows, by whom a user would read them."""
    if path.suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    return [(each["file"], each["error"] or None) for each in rows]


def named(path, *files):
    """Files as the rows of a file name them."""
    of = {"-b\n.wav": "./-b\n.wav"} if path.suffix == ".csv" else {}
    return [of.get(file, as_utf8(file)) for file in files]


@pytest.fixture(params=["json", "csv", "parquet"])
def path(request, tmp_path):
    """A file of each format that can be gone on with."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"results.{request.param}"


def test_rows_that_are_there_are_kept_and_done(path):
    assert write(path, [row(file) for file in FILES[:3]]) == set()
    assert write(path, [row(FILES[3])]) == set(FILES[:3])
    assert write(path, [], files=["d.wav", "z.wav"]) == {"d.wav"}
    assert [name for name, _ in read(path)] == named(path, *FILES[:4])


def test_files_with_an_error_are_tried_again(path):
    write(path, [row("a.wav"), row("d.wav", "no such file"), row("x.wav", "is empty")])
    # Nobody asks for x.wav now, so what is known of it stays.
    assert write(path, [row("d.wav")]) == {"a.wav"}
    assert read(path) == [("a.wav", None), ("x.wav", "is empty"), ("d.wav", None)]


def test_a_file_is_known_again_however_it_is_named(path):
    write(path, [row("a.wav"), row("./m/b.wav", "is empty"), row("./-c.wav")])
    asked = ["./a.wav", "m//b.wav", "-c.wav", "b.wav"]
    assert write(path, [], files=asked) == {"./a.wav", "-c.wav"}
    assert read(path) == [("a.wav", None), ("./-c.wav", None)]


def test_each_row_is_there_as_soon_as_it_is_written(tmp_path):
    for form in ("json", "csv", "table"):
        path = tmp_path / f"results.{form}"
        with open_results(form, path, files=FILES, **KIND) as results:
            for number, file in enumerate(FILES[:2]):
                results.write(row(file))
                text = path.read_text(encoding="utf-8")
                assert text.count(".wav") == number + 1


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_file_that_breaks_off_anywhere_is_gone_on_with(tmp_path, form):
    path = tmp_path / f"results.{form}"
    rows = [row("a.wav"), row("-b\n.wav", "no\nsuch file"), row(BAD_BYTES)]
    write(path, rows[:1] + rows[2:] + rows[1:2])
    expected = path.read_bytes()
    for end in range(0, len(expected), 3):
        path.write_bytes(expected[:end])
        done = write(path, [])
        done = {as_utf8(file) for file in done}
        write(path, [each for each in rows[:1] + rows[2:] if each["file"] not in done])
        write(path, rows[1:2])
        assert path.read_bytes() == expected, end


def test_an_interrupted_run_leaves_a_whole_file(path):
    results = open_results(path.suffix[1:], path, files=FILES, **KIND)
    with pytest.raises(KeyboardInterrupt), results:
        results.write(row("a.wav"))
        raise KeyboardInterrupt
    assert read(path) == [("a.wav", None)]
    assert write(path, []) == {"a.wav"}


@pytest.mark.parametrize(
    "other", [{"model": "other-majority"}, {"top": 1}, {"timeline": True}]
)
def test_results_of_another_kind_are_not_lost(path, other):
    write(path, [row("a.wav"), row("d.wav", "is empty")])
    before = path.read_bytes()
    with pytest.raises(UserError, match="cannot be gone on with, and it would be lost"):
        write(path, [], **other)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_what_is_no_result_is_not_lost(path):
    for content in (b"Dear diary,\n", b"\0\xff\n\n", b"a,b\n1,2\n", b"[]"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: there is something"):
            write(path, [])
        assert path.read_bytes() == content


def test_an_empty_file_is_as_good_as_none(path):
    path.touch()
    assert write(path, [row("a.wav")]) == set()
    assert read(path) == [("a.wav", None)]


def test_damage_in_the_midst_is_not_passed_over(tmp_path):
    for form in ("json", "csv"):
        path = tmp_path / f"results.{form}"
        write(path, [row(file) for file in ("a.wav", "d.wav", "e.wav")])
        damaged = path.read_text().replace('"d.wav"', '"d.wav').replace("d.wav,", "")
        path.write_text(damaged)
        with pytest.raises(UserError, match="in the midst of it cannot be read"):
            write(path, [])
        assert path.read_text() == damaged


def test_a_table_is_not_gone_on_with(tmp_path):
    path = tmp_path / "results.table"
    assert write(path, [row("a.wav")]) == set()
    before = path.read_text()
    with pytest.raises(UserError, match="json, csv or parquet can"):
        write(path, [])
    assert path.read_text() == before


def test_folders_are_made_and_links_are_kept(path):
    target = path.with_name("elsewhere") / path.name
    path.symlink_to(target)
    write(path, [row("a.wav")])
    write(path, [row("d.wav")])
    assert path.is_symlink() and target.is_file()
    assert [name for name, _ in read(target)] == ["a.wav", "d.wav"]


def test_what_cannot_be_written_to(path, tmp_path, monkeypatch):
    form = path.suffix[1:]
    (tmp_path / "file").touch()
    for bad, told in [
        (tmp_path, "expected a file to write, found something else"),
        (Path("/dev/null"), "expected a file"),
        (tmp_path / "file" / path.name, "cannot be written"),
    ]:
        with pytest.raises(UserError, match=f"{bad}: {told}"):
            open_results(form, bad, **KIND)
    path.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may anything
    with pytest.raises(UserError, match="Permission denied"):
        open_results(form, path, **KIND)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_full_disk_is_told(form, tmp_path):
    path = tmp_path / "results"
    results = open_results(form, path, files=FILES, **KIND)
    with open("/dev/full", "w") as full:
        results._stream.close()
        results._stream = full
        with pytest.raises(UserError, match=r"results: cannot be written \(No space"):
            results.write(row("a.wav"))
        with pytest.raises(OSError):
            full.flush()
        full.buffer.raw.close()


def test_the_standard_output(capsys):
    for form in ("json", "csv", "table"):
        with open_results(form, None, files=FILES, **KIND) as results:
            assert results.done == set()
            results.write(row("a.wav"))
        text = capsys.readouterr().out
        assert text.endswith("\n") and "a.wav" in text
        if form == "json":
            assert json.loads(text)[0]["file"] == "a.wav"


def test_parquet_is_written_now_and_then(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    clock = [0.0]
    monkeypatch.setattr(results_file.time, "monotonic", lambda: clock[0])
    path = tmp_path / "results.parquet"
    timeline = [{"start_s": 0.0, "end_s": 3.0, "genre": None, "posterior": 0.0}]
    with ParquetRows(path, "m", 2, True, FILES) as results:
        seen = []
        for time_s, file in [(1, "a.wav"), (10.5, "d.wav"), (20, "e.wav")]:
            clock[0] = time_s
            results.write(row(file, timeline=timeline))
            seen.append(len(pd.read_parquet(path)))
        assert seen == [0, 2, 2]
    table = pd.read_parquet(path)
    assert list(table) == columns(2, True)
    assert table.file.tolist() == ["a.wav", "d.wav", "e.wav"]
    assert table.genre_2.tolist() == ["rock"] * 3 and table.share.tolist() == [0.75] * 3
    assert list(table.timeline[0]) == timeline
    assert set(table.model) == {"m"}
    assert os.listdir(tmp_path) == ["results.parquet"]


def test_parquet_without_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'ms_sincresnet\[parquet\]'"):
        open_results("parquet", tmp_path / "results.parquet", **KIND)
    assert os.listdir(tmp_path) == []
