"""Rows as json and csv, read back by Python's own readers, whole and cut."""

import csv
import io
import json
import os

import pytest

from ms_sincresnet.files import as_utf8
from ms_sincresnet.inference.row_formats import (
    CsvLayout,
    JsonLayout,
    columns,
    flat_row,
)

MODEL = "0123456789ab-majority"
BAD_BYTES = os.fsdecode(b"caf\xe9.wav")
NAMES = [
    "a.wav",
    "comma, \"quotes\" and 'apostrophes'.wav",
    "two\nlines\r\nand\ta tab.wav",
    "ünïcödé 🎵.wav",
    BAD_BYTES,
    "back\\slash \\udce9.wav",
    "=1+2.wav",
    "-dash.wav",
    "@at.wav",
]


def row(file, error=None, timeline=None):
    """A row as ``song_row`` makes it."""
    top = [
        {"genre": "jazz", "share": 0.75, "posterior": 0.5},
        {"genre": "=rock", "share": 0.25, "posterior": 0.25},
    ]
    good = {"file": file, "genre": "jazz", "duration": 3.5, "clips": 2, "top": top}
    bad = {"file": file, "genre": None, "duration": None, "clips": 0, "top": []}
    made = {**(bad if error else good), "file": as_utf8(file), "error": error}
    return made | ({"timeline": timeline} if timeline is not None else {})


def written(layout, rows):
    """The text of a file of rows."""
    texts = [layout.text(each) for each in rows]
    return layout.head + layout.separator.join(texts) + layout.tail


TIMELINE = [{"start_s": 0.0, "end_s": 3.0, "genre": None, "posterior": 0.0}]


def test_json_is_what_a_parser_of_json_reads():
    layout = JsonLayout(MODEL, top=2, timeline=True)
    rows = [row(name, timeline=TIMELINE) for name in NAMES]
    rows.append(row("b.wav", 'no, "such"\nfile', []))
    text = written(layout, rows)
    text.encode("utf-8")  # there are no odd bytes
    assert "ünïcödé 🎵" in text
    assert json.loads(text) == [{**each, "model": MODEL} for each in rows]
    assert json.loads(text)[4]["file"] == "caf\\udce9.wav"
    assert len(text.splitlines()) == len(rows) + 2


def test_csv_is_what_a_parser_of_csv_reads():
    layout = CsvLayout(MODEL, top=2, timeline=True)
    rows = [row(name, timeline=TIMELINE) for name in NAMES]
    rows.append(row("b.wav", '=no, "such"\nfile', []))
    found = list(csv.DictReader(io.StringIO(written(layout, rows), newline="")))
    assert (
        list(found[0])
        == columns(2, True)
        == [
            *(
                "file",
                "genre",
                "share",
                "posterior",
                "genre_2",
                "share_2",
                "posterior_2",
            ),
            *("duration", "clips", "error", "timeline", "model"),
        ]
    )
    expected = [*NAMES, "b.wav"]
    expected[4] = "caf\\udce9.wav"
    expected[6:9] = ["./=1+2.wav", "./-dash.wav", "./@at.wav"]
    assert [each["file"] for each in found] == expected
    assert found[0] | {"timeline": json.loads(found[0]["timeline"])} == {
        "file": "a.wav",
        **{"genre": "jazz", "share": "0.75", "posterior": "0.5"},
        **{"genre_2": "'=rock", "share_2": "0.25", "posterior_2": "0.25"},
        **{"duration": "3.5", "clips": "2", "error": "", "model": MODEL},
        "timeline": TIMELINE,
    }
    bad = {name: value for name, value in found[-1].items() if value}
    assert bad == {
        **{"file": "b.wav", "clips": "0", "error": '\'=no, "such"\nfile'},
        **{"timeline": "[]", "model": MODEL},
    }


@pytest.mark.parametrize("layout", [JsonLayout, CsvLayout])
@pytest.mark.parametrize("timeline", [False, True])
def test_a_file_that_is_cut_anywhere_gives_the_rows_before(layout, timeline):
    layout = layout(MODEL, top=2, timeline=timeline)
    clips = TIMELINE if timeline else None
    rows = [row(name, timeline=clips) for name in NAMES[:5]]
    rows[1] = row(NAMES[1], "no\nsuch file", clips)
    text = written(layout, rows)
    whole = list(layout.read(io.StringIO(text, newline="")))
    names = [layout.name(each["file"]) for each in rows]
    assert [name for name, _, _ in whole] == names
    assert [failed for _, failed, _ in whole] == [False, True, False, False, False]
    assert [kept for _, _, kept in whole] == [layout.text(each) for each in rows]
    for end in range(len(text)):
        parts = list(layout.read(io.StringIO(text[:end], newline="")))
        assert None not in parts[:-1]
        found = [part for part in parts if part is not None]
        assert found == whole[: len(found)]
        complete = sum(text.index(kept) + len(kept) <= end for _, _, kept in whole)
        assert len(found) >= complete


def test_an_hour_of_timeline_is_read_back():
    layout = CsvLayout(MODEL, top=2, timeline=True)
    text = written(layout, [row("a.wav", timeline=7195 * TIMELINE)])
    assert len(text) > 500_000
    assert len(list(layout.read(io.StringIO(text, newline="")))) == 1


@pytest.mark.parametrize("layout", [JsonLayout, CsvLayout])
@pytest.mark.parametrize(
    ("now", "told"),
    [
        (
            ("other-majority", 2, False),
            "model is 0123456789ab-majority; expected other",
        ),
        (
            (MODEL, 3, False),
            "top is 2; expected 3|first line is file,.*; expected file,",
        ),
        ((MODEL, 2, True), "timeline is False; expected True|first line is file,"),
    ],
)
def test_results_of_another_kind_are_not_gone_on_with(layout, now, told):
    text = written(layout(MODEL, 2, False), [row("a.wav")])
    with pytest.raises(ValueError, match=told):
        list(layout(*now).read(io.StringIO(text)))


@pytest.mark.parametrize("layout", [JsonLayout, CsvLayout])
@pytest.mark.parametrize(
    "text",
    [
        "Dear diary,\n",
        "genre\njazz\n",
        '{"file": "a.wav"}\n',
        '[{"file": "a.wav"}]',
        '[\n{"file": "a.wav"}\n]',
        "[\n[1]\n]",
        "\0\1\2\xff",
    ],
)
def test_what_is_no_such_file_is_not_gone_on_with(layout, text):
    with pytest.raises(ValueError, match="its|not the json"):
        list(layout(MODEL, 2, False).read(io.StringIO(text)))


def test_flat_rows_have_the_columns_they_need():
    flat = flat_row(row(BAD_BYTES, timeline=TIMELINE), MODEL)
    assert set(flat) == set(columns(2, True))
    assert flat["file"] == as_utf8(BAD_BYTES) == "caf\\udce9.wav"
    assert flat["timeline"] is TIMELINE
    assert columns(1, False) == [
        *("file", "genre", "share", "posterior", "duration", "clips", "error", "model")
    ]
