"""Results: rows that are printed, or kept in a file and resumed after a stop.

JSON Lines is appended row by row. A csv or parquet file is written whole at the end,
from a hidden JSON Lines file in its folder, the journal, which a killed run resumes.
"""

import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ms_sincresnet.errors import UserError, needs_extra
from ms_sincresnet.files import as_utf8, atomic_path, file_state, printable

Row = dict[str, Any]

_TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
_BEST = ("genre", "share", "posterior")
_NUMBERS = ("share", "posterior", "duration", "unlike")
_READ: dict[str, Callable] = {"clips": int, "size": int, "timeline": json.loads}
_READ |= {"unsure": json.loads}
_READ |= dict.fromkeys(_NUMBERS, float)
GROUP = 1000  # rows of parquet that are in memory at once
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def open_results(
    output_format: str,
    path: str | os.PathLike | None,
    kind: Any,
    files: Iterable[str] = (),
    genres: Iterable[str] = (),
) -> "Results":
    """Opens a file of results, new or to be resumed, as a context manager.

    Its rows are kept, except those of ``files`` with an error or changed since, and
    ``done`` are the ``files`` among them; other content is a ``UserError``. The formats
    are "table", "jsonl", "csv" and "parquet"; the ``path`` None is the standard output.
    """
    files = list(files)
    # To write to a link's target, and keep the link.
    path = None if path is None else os.path.realpath(path)
    if path is not None and os.path.exists(path):
        if not os.path.isfile(path):
            raise UserError(f"{path}: expected a file to write, found something else")
        if not os.access(path, os.W_OK):
            raise UserError(f"{path}: cannot be written (Permission denied)")
    if output_format == "table":
        names = [*genres, *["unsure"] * (kind.min_posterior > 0)]
        table = Table(kind.top, files, names)
        return Results(path, table.text, table.head)
    if path is None and output_format == "csv":
        return Results(None, kind.csv_text, _csv_text(kind.columns()))
    as_json = partial(_json_text, kind=kind)
    if path is None:
        return Results(None, as_json)
    lines, end = path, None
    if output_format == "parquet":
        load_arrow()  # its absence is reported before any song is classified
    if output_format != "jsonl":
        end = partial(write_table, path=path, output_format=output_format, kind=kind)
        lines = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.jsonl")
    found = lines if os.path.exists(lines) else path
    with _errors_of(found):
        if not os.path.exists(found) or not os.path.getsize(found):
            rows: Iterable[Row] = []
        else:
            rows = read_rows(found, "jsonl" if found == lines else output_format, kind)
        done = _keep(rows, lines, kind, files)
    return Results(lines, as_json, done=done, end=end)


@contextmanager
def _errors_of(path: str | None) -> Iterator[None]:
    """Turns errors of writing and of resuming into errors for the user."""
    try:
        yield
    except BrokenPipeError:  # the reader of the standard output has closed it
        raise
    except OSError as error:
        where, reason = path or "the standard output", error.strerror or error
        raise UserError(f"{where}: cannot be written ({reason})") from error
    except ValueError as error:
        reason = "cannot resume from this file, and will not overwrite it"
        raise UserError(f"{path}: {reason}: {error}; name another file") from error


class Kind(NamedTuple):
    """The ``model_identity`` and the options of ``song_row`` that all rows share."""

    model: str
    top: int
    timeline: bool
    min_posterior: float = 0.0

    def row(self, file: Any, outcome: Any, facts: dict) -> Row:
        """The row of a song."""
        from ms_sincresnet.inference.batch import song_row  # torch loads for seconds

        options = self.top, self.timeline, facts, self.min_posterior
        return song_row(file, outcome, *options)

    def columns(self) -> list[str]:
        """Columns of csv and parquet."""
        tops = [name + rank for rank in _ranks(self.top) for name in _BEST]
        last = ["timeline", "model"] if self.timeline else ["model"]
        facts = ["error", "size", "modified", "warning", "unsure", "unlike"]
        return ["file", *tops, "duration", "clips", *facts, *last]

    def flat(self, row: Row) -> Row:
        """A row by columns."""
        flat = {name: row.get(name) for name in row if name != "top"}
        for best, rank in zip(row["top"], _ranks(len(row["top"])), strict=True):
            flat |= {name + rank: value for name, value in best.items()}
        return flat | {"genre": row.get("genre"), "model": self.model}

    def nested(self, flat: Row) -> Row:
        """The row of a flat one."""
        ranks = _ranks(self.top)
        bests = [{name: flat.pop(name + rank) for name in _BEST} for rank in ranks]
        bests = [best for best in bests if best["posterior"] is not None]
        return flat | {"genre": bests[0]["genre"] if bests else None, "top": bests}

    def types(self) -> dict[str, Any]:
        """Types of the columns of parquet that are no text."""
        arrow = load_arrow()
        number, text = arrow.float64(), arrow.string()
        clip = {"start_s": number, "end_s": number, "genre": text, "posterior": number}
        types = {"timeline": arrow.list_(arrow.struct(list(clip.items())))}
        types |= {"clips": arrow.int64(), "size": arrow.int64()}
        return types | dict.fromkeys(_NUMBERS, number) | {"unsure": arrow.bool_()}

    def csv_text(self, row: Row) -> str:
        """The line of a row in csv."""
        flat = self.flat(row)
        return _csv_text(_csv_cell(name, flat.get(name)) for name in self.columns())

    def check(self, row: Any) -> None:
        """Refuses a row of another model or of other options."""
        match row:
            case {"file": str(), "error": str(), "top": list(top)}:
                unsure = None
            case {"file": str(), "error": None, "top": [{"posterior": float(p)}, *_]}:
                top, unsure = row["top"], p < self.min_posterior
            case _:
                raise ValueError("it was not written by this command")
        found = row.get("model"), len(top), "timeline" in row
        for name, one, other in zip(self._fields, found, self, strict=False):
            if one != other and not (name == "top" and unsure is None):
                raise ValueError(f"its {name} is {one}; expected {other}")
        if row.get("unsure") != unsure:
            raise ValueError("it was made with another --min-posterior")


def _ranks(top: int) -> list[str]:
    """Suffixes of the columns of the first genre, the second, …"""
    return ["", *(f"_{rank}" for rank in range(2, top + 1))][:top]


def _csv_cell(name: str, value: Any) -> Any:
    """A value of csv, disarmed if a spreadsheet would run it as a formula."""
    if name == "timeline":
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return ("./" if name == "file" else "'") + value  # "./" names the same file
    return value


def _json_text(row: Row, kind: Any) -> str:
    """The line of a row in JSON."""
    return json.dumps(row | {"model": kind.model}, ensure_ascii=False) + "\n"


def _csv_text(cells: Iterable) -> str:
    """A line of csv."""
    stream = io.StringIO()
    csv.writer(stream).writerow(cells)  # quotes "\r", for its lines end in "\r\n"
    return stream.getvalue().removesuffix("\r\n") + "\n"


def write_table(
    rows: Iterable[Row], path: str | os.PathLike, output_format: str, kind: Any
) -> None:
    """Writes rows to a file, whole or not at all."""
    with atomic_path(path) as new_path:
        if output_format != "parquet":
            is_csv = output_format == "csv"
            with open(new_path, "w", **_TEXT) as file:
                file.write(_csv_text(kind.columns()) if is_csv else "")
                as_json = partial(_json_text, kind=kind)
                file.writelines(map(kind.csv_text if is_csv else as_json, rows))
            return
        arrow, flat, types = load_arrow(), map(kind.flat, rows), kind.types()
        names, text = kind.columns(), arrow.string()
        schema = arrow.schema((n, types.get(n.split("_")[0], text)) for n in names)
        storage: Any = {}
        if "embedding" in names:  # it hardly gets smaller, and is read faster as it is
            storage = {"use_dictionary": False, "compression": "none"}
        with arrow.parquet.ParquetWriter(new_path, schema, **storage) as file:
            while part := list(itertools.islice(flat, GROUP)):
                file.write_table(arrow.Table.from_pylist(part, schema))


def read_rows(path: Any, output_format: str, kind: Any) -> Iterator[Row]:
    """Rows of a jsonl, csv or parquet file."""
    if output_format == "jsonl":
        yield from _read_lines(path)
        return
    if output_format == "csv":
        # Without index_col, one row that is too long would move all columns.
        options: Any = {"keep_default_na": False, "index_col": False}
        table = pd.read_csv(path, dtype=str, **options).fillna("")
        names = list(table)
        for name in names:
            read = _READ.get(name.split("_")[0], str)
            cells = [read(cell) if cell else None for cell in table[name]]
            table[name] = pd.Series(cells, dtype=object)
        flat: Iterable[Row] = table.to_dict("records")
    else:
        file = load_arrow().parquet.ParquetFile(path, memory_map=True)
        names, parts = file.schema_arrow.names, file.iter_batches(GROUP)
        flat = (row for part in parts for row in part.to_pylist())
    if names != kind.columns():
        raise ValueError(f"its columns are {names}; expected {kind.columns()}")
    yield from map(kind.nested, flat)


def read_results(path: str) -> tuple[dict[str, Row], Callable[[], None]]:
    """Rows of an output of ``classify`` by their files, and a function to save them."""
    path, kind = os.path.realpath(path), Kind("", 0, False)
    output_format = os.path.splitext(path)[1][1:].lower()
    try:
        if output_format != "jsonl":
            names = [*pd.read_csv(path, nrows=0)] if output_format == "csv" else []
            names = names or load_arrow().parquet.read_schema(path).names
            top = sum(name.startswith("genre") for name in names)
            kind = Kind("", top, "timeline" in names)
        rows = [*read_rows(path, output_format, kind)]
        kind = kind._replace(model=rows[0]["model"])
        by_file = {row["file"]: row for row in rows if row["error"] or row["top"]}
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not an output of `classify` ({error!r})") from error
    save = partial(write_table, rows, path, output_format, kind)
    return by_file, _errors_of(path)(save)


def load_arrow() -> Any:
    """The package pyarrow."""
    with needs_extra("parquet", "parquet"):
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    return pyarrow


class Results:
    """Rows on the standard output or in a text file, each written at once."""

    def __init__(
        self, path: str | None, text: Callable, head: str = "", done=(), end=None
    ) -> None:
        self.done: set[str] = set(done)
        self._path, self._text, self._end = path, text, end
        self._stream = sys.stdout
        with _errors_of(path):
            if path is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self._stream = open(path, "a", **_TEXT)  # noqa: SIM115, see __exit__
                if head and self._stream.tell():
                    raise ValueError("a table cannot be resumed; other formats can")
            self._stream.write(head)

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *exception: object) -> None:
        with _errors_of(self._path):
            self._stream.flush()
            if self._path is not None:
                self._stream.close()
                if self._end is not None:
                    self._end(_read_lines(self._path))
                    os.remove(self._path)

    def write(self, row: Row) -> None:
        """Writes a row and flushes it, so that a kill loses nothing."""
        with _errors_of(self._path):
            self._stream.write(self._text(row))
            self._stream.flush()


def _read_lines(path: str) -> Iterator[Any]:
    """Rows of a JSON Lines file, without a half-written one at the end."""
    begin = '{"file": "'
    with open(path, **_TEXT) as old:
        for number, line in enumerate(old, 1):
            try:
                yield json.loads(line)
            except (RecursionError, ValueError) as error:
                if line.endswith("\n") or not begin.startswith(line[: len(begin)]):
                    raise ValueError(f"its line {number} is not JSON") from error


def _keep(rows: Iterable[Row], path: str, kind: Any, files: list[str]) -> set[str]:
    """Writes the rows to keep to a JSON Lines file; returns the files that are done."""
    asked = {os.path.normpath(as_utf8(file)): file for file in files}
    done = set()
    with atomic_path(path) as new_path, open(new_path, "w", **_TEXT) as new:
        for row in rows:
            kind.check(row)
            file = asked.get(os.path.normpath(row["file"]))
            if file is None:
                new.write(_json_text(row, kind))
            elif is_current(row, file_state(file)):
                new.write(_json_text(row, kind))
                done.add(file)
    return done


def is_current(row: Row, state: Row) -> bool:
    """True for a song with a genre, unless its file is known to have changed."""
    found = {name: row.get(name) for name in state}
    unknown = None in (found["size"], state["size"])
    return row["error"] is None and (unknown or found == state)


class Table:
    """Aligned columns for the eye."""

    _widest = 60  # longer paths are not aligned

    def __init__(self, top: int, files: Iterable[str], genres: Iterable[str]) -> None:
        longest = max(map(len, ["file", *map(printable, files)]))
        self._file = min(longest, self._widest)
        self._genre = max(map(len, ["genre", *map(printable, genres)]))
        self.head = self._line("file", "genre", "share", "next" if top > 1 else "")

    def text(self, row: Row) -> str:
        """The line of a row, and another for its timeline."""
        file = printable(row["file"])
        if row["error"] is not None:
            return f"{file:{self._file}}  error: {printable(row['error'])}\n"
        (genre, share), *others = [
            (printable(best["genre"]), f"{100 * best['share']:.0f} %")
            for best in row["top"]
        ]
        following = [" ".join(other) for other in others if other[1] != "0 %"]
        if row.get("unsure"):
            genre, following = "unsure", [f"({genre})", *following]
        spans = f"  {_spans(row['timeline'])}\n" if row.get("timeline") else ""
        return self._line(file, genre, share, ", ".join(following)) + spans

    def _line(self, file: str, genre: str, share: str, following: str) -> str:
        """Cells as text."""
        cells = f"{file:{self._file}}  {genre:{self._genre}}  {share:>5}  {following}"
        return f"{cells.rstrip()}\n"


def _spans(timeline: list[dict[str, Any]]) -> str:
    """Spans of one genre each; borders lie halfway between the centres of clips."""
    centres_s = [(clip["start_s"] + clip["end_s"]) / 2 for clip in timeline]
    borders_s = [(one + two) / 2 for one, two in itertools.pairwise(centres_s)]
    borders_s = [0.0, *borders_s, timeline[-1]["end_s"]]
    spans, first = [], 0
    for genre, clips in itertools.groupby(clip["genre"] for clip in timeline):
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
