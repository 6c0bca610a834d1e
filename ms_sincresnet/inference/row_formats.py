"""Rows of results as JSON Lines, CSV or a table.

A format has a ``head`` above the rows, and makes the ``text`` of a row. ``read`` yields
the rows below the head of an earlier file: the song's ``name``, True after an error,
and the row's text; None instead if a row cannot be read.
"""

import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from ms_sincresnet.files import as_utf8, printable

Row = dict[str, Any]
Found = Iterator[tuple[str, bool, str] | None]


BEST = ("genre", "share", "posterior")


def _ranks(top: int) -> list[str]:
    """Suffixes of the columns of the first genre, the second, …"""
    return ["", *(f"_{rank}" for rank in range(2, top + 1))][:top]


def columns(top: int, timeline: bool) -> list[str]:
    """Names of the columns of a flat row."""
    tops = [name + rank for rank in _ranks(top) for name in BEST]
    last = ["timeline", "model"] if timeline else ["model"]
    return ["file", *tops, "duration", "clips", "error", *last]


def flat_row(row: Row, model: str) -> Row:
    """A row by column names, its top genres spread over columns."""
    flat = {name: value for name, value in row.items() if name != "top"}
    for best, rank in zip(row["top"], _ranks(len(row["top"])), strict=True):
        flat |= {name + rank: value for name, value in best.items()}
    return flat | {"model": model}


def nested_row(flat: Row, top: int) -> Row:
    """The row that ``flat_row`` has flattened."""
    bests = [{name: flat.pop(name + rank) for name in BEST} for rank in _ranks(top)]
    bests = [best for best in bests if best["genre"] is not None]
    return flat | {"genre": bests[0]["genre"] if bests else None, "top": bests}


def check_same(what: str, found: object, expected: object) -> None:
    """Refuses to resume results of another model or other options."""
    if found != expected:
        raise ValueError(f"its {what} is {found}; expected {expected}")


class JsonLines:
    """One JSON object per row and line."""

    head, name = "", staticmethod(as_utf8)

    def __init__(self, model: str, top: int, timeline: bool) -> None:
        self.model, self.top, self.timeline = model, top, timeline

    def text(self, row: Row) -> str:
        """The line of a row."""
        return json.dumps(row | {"model": self.model}, ensure_ascii=False) + "\n"

    def read(self, stream: TextIO) -> Found:
        """Rows of an earlier run, which must have the same model and options."""
        begin = '{"file": "'
        for line in stream:
            try:
                row = json.loads(line)
            except (RecursionError, ValueError) as error:
                if not begin.startswith(line[: len(begin)]):
                    raise ValueError("it has a line that is not JSON") from error
                yield None
                continue
            match row:
                case {
                    "file": str(file),
                    "error": str() | None as reason,
                    "top": list(),
                }:
                    failed = reason is not None
                case _:
                    raise ValueError("it was not written by this command")
            check_same("model", row.get("model"), self.model)
            check_same("timeline", "timeline" in row, self.timeline)
            if not failed:
                check_same("top", len(row["top"]), self.top)
            yield file, failed, line.rstrip("\n") + "\n"


class Csv:
    """Comma-separated values below a line of column names.

    Cells that a spreadsheet would run as a formula are disarmed: a path gets "./" in
    front, which names the same file, any other text an apostrophe.
    """

    _formula = ("=", "+", "-", "@", "\t", "\r")

    def __init__(self, model: str, top: int, timeline: bool) -> None:
        self.model = model
        self.columns = columns(top, timeline)
        self.head = self._line(self.columns)

    def name(self, file: str) -> str:
        """The file as its row names it."""
        return as_utf8(f"./{file}" if file.startswith(self._formula) else file)

    def text(self, row: Row) -> str:
        """The line of a row; several lines if the file's name has line breaks."""
        cells = flat_row(row, self.model) | {"file": self.name(row["file"])}
        return self._line(self._cell(cells.get(name)) for name in self.columns)

    def _cell(self, value: Any) -> Any:
        """A value as its cell holds it."""
        if isinstance(value, list):
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and value.startswith(self._formula):
            return f"'{value}"
        return value

    def _line(self, cells: Iterable) -> str:
        """Cells as text."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerow(cells)
        return stream.getvalue()

    def read(self, stream: TextIO) -> Found:
        """Rows of an earlier run, which must have the same model and options."""
        csv.field_size_limit(sys.maxsize)  # the timeline of an hour has half a megabyte
        ended = True

        def lines() -> Iterator[str]:
            nonlocal ended
            for line in stream:
                ended = line.endswith("\n")
                yield line.replace("\0", "\ufffd")  # csv of Python 3.10 refuses NUL

        for row in csv.reader(lines()):
            if len(row) != len(self.columns) or not ended:
                yield None
                continue
            cells = dict(zip(self.columns, row, strict=True))
            check_same("model", cells["model"], self.model)
            yield cells["file"], cells["error"] != "", self._line(row)


class Table:
    """Aligned columns for the eye."""

    name = staticmethod(printable)
    _widest = 60  # longer paths are not aligned

    def __init__(self, top: int, files: Iterable[str], genres: Iterable[str]) -> None:
        longest = max(map(len, ["file", *map(printable, files)]))
        self._file = min(longest, self._widest)
        self._genre = max(map(len, ["genre", *map(printable, genres)]))
        self.head = self._line("file", "genre", "share", "next" if top > 1 else "")

    def text(self, row: Row) -> str:
        """The line of a row, and another for its timeline."""
        file = self.name(row["file"])
        if row["error"] is not None:
            return f"{file:{self._file}}  error: {printable(row['error'])}\n"
        (genre, share), *others = [
            (printable(best["genre"]), f"{100 * best['share']:.0f} %")
            for best in row["top"]
        ]
        following = [" ".join(other) for other in others if other[1] != "0 %"]
        text = self._line(file, genre, share, ", ".join(following))
        if row.get("timeline"):
            text += f"  {_spans(row['timeline'])}\n"
        return text

    def _line(self, file: str, genre: str, share: str, following: str) -> str:
        """Cells as text."""
        cells = f"{file:{self._file}}  {genre:{self._genre}}  {share:>5}  {following}"
        return f"{cells.rstrip()}\n"

    def read(self, stream: TextIO) -> Found:
        """Refuses to resume a table."""
        raise ValueError("a table cannot be resumed; jsonl, csv and parquet can")


def _spans(timeline: list[dict[str, Any]]) -> str:
    """Spans of one genre each; borders lie halfway between the centres of clips."""
    genres = [clip["genre"] for clip in timeline]
    centres_s = [(clip["start_s"] + clip["end_s"]) / 2 for clip in timeline]
    borders_s = [(one + two) / 2 for one, two in itertools.pairwise(centres_s)]
    borders_s = [0.0, *borders_s, timeline[-1]["end_s"]]
    spans, first = [], 0
    for genre, clips in itertools.groupby(genres):
        last = first + len(list(clips))
        heard = "silence" if genre is None else printable(genre)
        spans.append(f"{_clock(borders_s[first])}-{_clock(borders_s[last])} {heard}")
        first = last
    return ", ".join(spans)


def _clock(time_s: float) -> str:
    """A time as players show it."""
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
