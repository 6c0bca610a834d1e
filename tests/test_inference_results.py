"""Files of results: read by other programs, resumed after a stop, and never lost."""

import csv
import io
import json
import os
import sys
from functools import partial
from unittest.mock import Mock

import pandas as pd
import pytest

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import as_utf8
from ms_sincresnet.inference.results import Kind, Table, open_results

MODEL = "0123456789ab-majority"
KIND = Kind(MODEL, top=2, timeline=False)
BAD_BYTES = os.fsdecode(b"caf\xe9.wav")
FILES = ["a.wav", "-b\n.wav", BAD_BYTES, "d.wav", "e.wav"]
NAMES = ["a.wav", "comma, \"quotes\" and 'apostrophes'.wav", BAD_BYTES]
NAMES += ["two\nlines\r\nand\ta tab.wav", "ünïcödé 🎵.wav", "back\\slash \\udce9.wav"]
NAMES += ["=1+2.wav", "-dash.wav", "@at.wav", "a\rlone return.wav"]
FACTS = {"size": 123456789012, "modified": "2026-11-27T13:09:00+00:00"}
FACTS |= {"warning": "ends, early"}
TIMELINE = [{"start_s": 0.0, "end_s": 3.0, "genre": None, "posterior": 0.0}]


def row(file, error=None, timeline=None):
    top = [
        {"genre": "jazz", "share": 0.75, "posterior": 0.5},
        {"genre": "=rock", "share": 0.25, "posterior": 0.25},
    ]
    made = {"genre": "jazz", "duration": 3.5, "clips": 2, "top": top}
    made |= {"unsure": False, "unlike": 0.912}
    if error:
        made = dict.fromkeys(made) | {"clips": 0, "top": []}
    made = {"file": as_utf8(file), **made, "error": error, **FACTS}
    return made if timeline is None else made | {"timeline": timeline}


def write(path, rows, files=FILES, **kind):
    """Writes rows, and returns the files that were done already."""
    output_format = path.suffix[1:] if path else "csv"
    with open_results(output_format, path, KIND._replace(**kind), files) as results:
        for each in rows:
            results.write(each)
        return results.done


READERS = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
READERS[".jsonl"] = partial(pd.read_json, lines=True)


def read(path):
    """Files and errors of the rows, by a user's reader."""
    table = READERS[path.suffix](path)
    errors = table.error.astype(object).where(table.error.notna(), None)
    return list(zip(table.file, errors, strict=True))


@pytest.fixture(params=["jsonl", "csv", "parquet"])
def path(request, tmp_path):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"results.{request.param}"


COLUMNS = "file genre share posterior genre_2 share_2 posterior_2 duration clips"
COLUMNS = f"{COLUMNS} error size modified warning unsure unlike timeline model".split()
ROWS = [row(name, timeline=TIMELINE) for name in NAMES]
ROWS.append(row("b.wav", '=no, "such"\nfile', []))


def test_json_lines_are_read_by_other_programs(tmp_path):
    path = tmp_path / "results.jsonl"
    write(path, ROWS, timeline=True, files=NAMES)
    text = path.read_text(encoding="utf-8")
    assert "ünïcödé 🎵" in text
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    assert found == [{**each, "model": MODEL} for each in ROWS]
    assert found[2]["file"] == "caf\\udce9.wav"


def test_csv_is_read_by_other_programs(tmp_path, capsys):
    path, options = tmp_path / "results.csv", {"timeline": True, "files": NAMES}
    write(path, ROWS, **options)
    write(None, ROWS, **options)
    text = path.read_bytes().decode()
    assert capsys.readouterr().out == text  # streamed
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(found[0]) == COLUMNS
    expected = [*NAMES, "b.wav"]
    expected[2] = "caf\\udce9.wav"
    expected[6:9] = ["./=1+2.wav", "./-dash.wav", "./@at.wav"]
    assert [each["file"] for each in found] == expected
    facts = {name: str(fact) for name, fact in FACTS.items()} | {"model": MODEL}
    assert found[0] | {"timeline": json.loads(found[0]["timeline"])} == {
        **{"file": "a.wav", "duration": "3.5", "clips": "2", "error": ""},
        **{"genre": "jazz", "share": "0.75", "posterior": "0.5"},
        **{"genre_2": "'=rock", "share_2": "0.25", "posterior_2": "0.25"},
        **{"unsure": "false", "unlike": "0.912", "timeline": TIMELINE, **facts},
    }
    filled = {name: value for name, value in found[-1].items() if value}
    error = {"error": '\'=no, "such"\nfile', "timeline": "[]"}
    assert filled == {"file": "b.wav", "clips": "0", **error, **facts}
    assert write(path, [], **options) == set(NAMES)
    assert path.read_bytes().decode() == text  # resumed


def test_parquet_is_read_by_other_programs(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "results.parquet"
    rows = [row("a.wav", timeline=TIMELINE), row("e.wav", "is empty", [])]
    write(path, rows, timeline=True)
    write(path, [], files=[], timeline=True)  # through a journal and back
    table = pd.read_parquet(path)
    assert list(table) == COLUMNS
    song, failed = table.to_dict("records")
    assert (song["genre_2"], song["share"], song["clips"]) == ("=rock", 0.75, 2)
    assert (failed["error"], failed["clips"]) == ("is empty", 0)
    assert pd.isna(failed["genre_2"]) and pd.isna(failed["share"])
    assert [*map(list, table.timeline)] == [TIMELINE, []]
    assert set(table.model) == {MODEL}


def test_rows_of_a_killed_or_interrupted_run_are_kept_and_done(path):
    path.touch()  # an empty file is filled
    killed = open_results(path.suffix[1:], path, KIND, FILES)
    rows = path if path.suffix == ".jsonl" else path.with_name(f".{path.name}.jsonl")
    for number, file in enumerate(FILES[:2]):
        assert len(rows.read_text().splitlines()) == number
        killed.write(row(file))
    assert rows == path or path.read_bytes() == b""
    with rows.open("a") as file:
        file.write('{"file": "b.w')
    interrupted = open_results(path.suffix[1:], path, KIND, FILES)
    with pytest.raises(KeyboardInterrupt), interrupted:
        interrupted.write(row(FILES[2]))
        raise KeyboardInterrupt
    assert (killed.done, interrupted.done) == (set(), set(FILES[:2]))
    assert os.listdir(path.parent) == [path.name]
    assert write(path, [row(FILES[3])]) == set(FILES[:3])
    assert write(path, [], files=["d.wav", "z.wav"]) == {"d.wav"}
    names = {"-b\n.wav": "./-b\n.wav"} if path.suffix == ".csv" else {}
    expected = [names.get(file, as_utf8(file)) for file in FILES[:4]]
    assert [name for name, _ in read(path)] == expected


def test_files_with_an_error_are_tried_again_by_whatever_name(path):
    rows = [row("a.wav"), row("./m/b.wav", "no such file"), row("./-c.wav")]
    write(path, [*rows, row("x.wav", "is empty")])
    # x.wav is not asked for, so its row stays.
    asked = ["./a.wav", "m//b.wav", "-c.wav", "b.wav"]
    assert write(path, [row("m//b.wav")], files=asked) == {"./a.wav", "-c.wav"}
    kept = [("a.wav", None), ("./-c.wav", None), ("x.wav", "is empty")]
    assert read(path) == [*kept, ("m//b.wav", None)]


def test_a_file_that_breaks_off_anywhere_is_resumed(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [row(name) for name in NAMES[:3]] + [row("-b\n.wav", "no\nsuch file")]
    files = [*FILES, NAMES[1]]
    write(path, rows, files)
    expected = path.read_bytes()
    for end in range(0, len(expected), 7):
        path.write_bytes(expected[:end])
        done = {as_utf8(file) for file in write(path, [], files)}
        assert len(done) >= expected[:end].count(MODEL.encode() + b"\n")
        missing = [each for each in rows[:3] if each["file"] not in done]
        write(path, missing + rows[3:], files)
        assert path.read_bytes() == expected, end


OTHER_KINDS = {"model": "other-majority", "timeline": True, "min_posterior": 0.5}


@pytest.mark.parametrize(("name", "other"), OTHER_KINDS.items())
def test_rows_are_resumed_under_the_same_options_only(path, name, other):
    unsure = row("a.wav") | {"genre": None, "unsure": True}
    write(path, [unsure, row("d.wav", "is empty")], min_posterior=0.6)
    before = path.read_bytes()
    expected = {"min_posterior": "made with another --min-posterior"}.get(name, name)
    message = f"cannot resume .* and will not overwrite it.*{expected}"
    with pytest.raises(UserError, match=message):
        write(path, [], **{"min_posterior": 0.6, name: other})
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before
    assert write(path, [], files=["a.wav"], min_posterior=0.6) == {"a.wav"}
    assert path.read_bytes() == before
    found = READERS[path.suffix](path)
    assert found.genre.isna().all() and found.unsure.isna().tolist() == [False, True]


@pytest.mark.parametrize("output_format", ["jsonl", "csv", "parquet", "table"])
def test_neither_damage_nor_other_content_is_overwritten(tmp_path, output_format):
    path = tmp_path / f"results.{output_format}"
    write(path, [row(file) for file in ("a.wav", "d.wav", "e.wav")])
    damaged = path.read_bytes().replace(b'"d.wav"', b'"d.wav').replace(b"d.wav,", b"")
    damaged = damaged.removesuffix(b"PAR1")
    for content in (damaged, b"\0\xff\n\n", b"a,b\n1,2\n", b'{"file": "a.wav"}\n'):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: cannot resume from this file"):
            write(path, [])
        assert path.read_bytes() == content


def test_folders_are_made_and_links_are_kept(path):
    target = path.with_name("elsewhere") / path.name
    path.symlink_to(target)
    write(path, [row("a.wav")])
    write(path, [row("d.wav")])
    assert path.is_symlink() and target.is_file()
    assert [name for name, _ in read(target)] == ["a.wav", "d.wav"]


def test_paths_that_cannot_be_written(path):
    path.touch()
    with pytest.raises(UserError, match=f"{path.parent}: expected a file to write"):
        open_results(path.suffix[1:], path.parent, KIND)
    with pytest.raises(UserError, match=f"{path}/b: cannot be written"):
        open_results(path.suffix[1:], path / "b", KIND)


def test_a_full_disk_is_reported_but_not_a_closed_pipe(monkeypatch):
    for error, expected in [
        (OSError(28, "No space"), UserError),
        (BrokenPipeError("No reader"), BrokenPipeError),
    ]:
        monkeypatch.setattr(sys, "stdout", Mock(flush=Mock(side_effect=error)))
        with pytest.raises(expected, match="No "):
            open_results("csv", None, KIND).write(row("a.wav"))


def shares(file, error=None, timeline=None, **top):
    top = [{"genre": genre, "share": share / 100} for genre, share in top.items()]
    return {"file": file, "top": top, "error": error, "timeline": timeline}


def test_tables_are_aligned():
    table = Table(3, ["a.wav", "longer name.wav", "x" * 90], ["jazz", "electronic"])
    rows = [shares("a.wav", jazz=100, electronic=0, pop=0.4)]
    rows += [shares("longer name.wav", electronic=52.4, jazz=45.6, pop=2)]
    rows += [shares("b.wav", "no such file."), shares("x" * 90, jazz=7)]
    rows += [shares("a.wav", jazz=64, pop=36) | {"unsure": True}]
    text = table.head + "".join(map(table.text, rows))
    assert text.splitlines() == [
        f"{'file':60}  genre       share  next",
        f"{'a.wav':60}  jazz        100 %",
        f"{'longer name.wav':60}  electronic   52 %  jazz 46 %, pop 2 %",
        f"{'b.wav':60}  error: no such file.",
        f"{'x' * 90}  jazz          7 %",
        f"{'a.wav':60}  unsure       64 %  (jazz), pop 36 %",
    ]


def test_a_table_shows_a_timeline_in_spans():
    # By the genre at the centres of clips: 12 s of rock, 8 s of jazz, silence, pop.
    genres = 21 * ["rock"] + 16 * ["jazz"] + 18 * [None] + 7199 * ["pop"]
    timeline = [
        {"start_s": number / 2, "end_s": number / 2 + 3.0, "genre": genre}
        for number, genre in enumerate(genres)
    ]
    text = Table(1, ["a"], ["jazz"]).text(shares("a", None, timeline, jazz=50))
    spans = "0:00-0:12 rock, 0:12-0:20 jazz, 0:20-0:29 silence, 0:29-1:00:30 pop"
    assert text.splitlines()[1].strip() == spans


def test_a_table_escapes_control_characters():
    clear = "\x1b[2J\x07\r\n\u202e\udce9"
    table = Table(2, [clear], [clear])
    timeline = [{"start_s": 0.0, "end_s": 3.0, "genre": clear}]
    text = table.text(shares(clear, None, timeline, **{clear: 60, f"{clear} 2": 40}))
    text += table.text(shares(clear, error=clear))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("\n") == 3
