"""Files of results, written row by row and resumed after a stop."""

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import atomic_path
from ms_sincresnet.inference.row_formats import (
    Csv,
    JsonLines,
    Row,
    Table,
    check_same,
    columns,
    flat_row,
    nested_row,
)

_TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
_GROUP = 10_000  # rows of a parquet file that are in memory at once


def open_results(
    output_format: str,
    path: str | os.PathLike | None,
    *,
    model: str,
    top: int,
    timeline: bool,
    files: Iterable[str] = (),
    genres: Iterable[str] = (),
) -> "Results":
    """Opens a file of results, new or to be resumed.

    Arguments
    ---------
    output_format
        "table", "jsonl", "csv" or "parquet".
    path
        The file, or None for the standard output (not for parquet). Its rows are kept,
        except a half-written last one and those of ``files`` with an error.
    model, top, timeline
        The ``model_identity``, and the options of ``song_row``.
    files
        The files to be classified.
    genres
        Names of the genres, for the width of a table.

    Returns
    -------
    A context manager. ``write(row)`` writes a row, and ``done`` is the set of those
    ``files`` that an earlier run has classified.

    Raises
    ------
    UserError
        If the file cannot be written, or has other content than results of the same
        model, top and timeline.

    Example
    -------
    >>> row = {"file": "a.wav", "top": [], "clips": 0, "error": "no such file"}
    >>> path = getfixture("tmp_path") / "genres.csv"
    >>> options = {"model": "12ab-majority", "top": 1, "timeline": False}
    >>> with open_results("csv", path, **options) as results:
    ...     results.write(row)
    >>> print(path.read_text().strip())
    file,genre,share,posterior,duration,clips,error,model
    a.wav,,,,,0,no such file,12ab-majority
    """
    files = list(files)
    if path is not None:
        path = os.path.realpath(path)  # writes to a link's target, keeps the link
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{path}: expected a file to write, found something else")
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise UserError(f"{path}: cannot be written (Permission denied)")
    if output_format == "table":
        return Results(Table(top, files, genres), path, files)
    if output_format == "csv":
        return Results(Csv(model, top, timeline), path, files)
    rows = JsonLines(model, top, timeline)
    if output_format == "parquet" and path is not None:
        return ParquetResults(rows, path, files)
    return Results(rows, path, files)


@contextmanager
def _errors_of(path: str | None) -> Iterator[None]:
    """Turns errors of writing and of resuming into errors for the user."""
    try:
        yield
    except BrokenPipeError:  # the reader of the standard output has closed it
        raise
    except OSError as error:
        where = path or "the standard output"
        raise UserError(f"{where}: cannot be written ({error.strerror})") from error
    except ValueError as error:
        raise UserError(
            f"{path}: cannot resume from this file, and will not overwrite it: {error}."
            " Name another file, or remove this one."
        ) from error


class Results:
    """Rows in a text file or on the standard output, each written at once."""

    def __init__(
        self, row_format: JsonLines | Csv | Table, path: str | None, files: list[str]
    ) -> None:
        self.format, self.path = row_format, path
        self.done: set[str] = set()
        with _errors_of(path):
            if path is None:
                self._stream = sys.stdout
                self._stream.write(row_format.head)
            else:
                self._keep(path, files)
                self._stream = open(path, "a", **_TEXT)  # noqa: SIM115, see __exit__

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *exception: object) -> None:
        with _errors_of(self.path):
            self._stream.flush()
            if self.path is not None:
                self._stream.close()

    def write(self, row: Row) -> None:
        """Writes a row and flushes it, so that a kill loses nothing."""
        with _errors_of(self.path):
            self._stream.write(self.format.text(row))
            self._stream.flush()

    def _keep(self, path: str, files: list[str]) -> None:
        """Rewrites the file with the rows to keep, and notes which songs are done."""
        asked = {os.path.normpath(self.format.name(file)): file for file in files}
        with atomic_path(path) as new_path, open(new_path, "w", **_TEXT) as new:
            new.write(self.format.head)
            for name, failed, text in self._rows(path):
                file = asked.get(os.path.normpath(name))
                if file is None or not failed:
                    new.write(text)
                if file is not None and not failed:
                    self.done.add(file)

    def _rows(self, path: str) -> Iterator[tuple[str, bool, str]]:
        """Rows of an earlier run, without a half-written one at the end."""
        if not os.path.exists(path):
            return
        with open(path, **_TEXT) as old:
            head = old.read(len(self.format.head))
            if head != self.format.head:
                if self.format.head.startswith(head):
                    return
                raise ValueError(f"it does not start with {self.format.head.strip()!r}")
            broken = False
            for row in self.format.read(old):
                if broken:
                    raise ValueError("a row in the middle of it cannot be read")
                broken = row is None
                if row is not None:
                    yield row


class ParquetResults(Results):
    """Rows in a parquet file, written once, at the end.

    Until then they are in its journal, a hidden JSON Lines file in the same folder,
    from which a killed run resumes.
    """

    def __init__(self, row_format: JsonLines, path: str, files: list[str]) -> None:
        folder, name = os.path.split(path)
        journal = os.path.join(folder, f".{name}.jsonl")
        self._parquet_path, self._journal = path, journal
        self._about = row_format.model, row_format.top, row_format.timeline
        if not os.path.exists(journal):
            with (
                _errors_of(path),
                atomic_path(journal) as new_path,
                open(new_path, "w", **_TEXT) as new,
            ):
                new.writelines(map(row_format.text, self._old_rows()))
        super().__init__(row_format, journal, files)

    def _old_rows(self) -> Iterator[Row]:
        """Rows of the parquet file of an earlier run."""
        model, top, timeline = self._about
        arrow, names = _arrow(), columns(top, timeline)
        path = self._parquet_path
        if os.path.exists(path) and os.path.getsize(path):
            with arrow.parquet.ParquetFile(path) as old:
                found = old.schema_arrow.names
                check_same("columns", ",".join(found), ",".join(names))
                for batch in old.iter_batches(_GROUP):
                    for flat in batch.to_pylist():
                        check_same("model", flat["model"], model)
                        yield nested_row(flat, top)

    def __exit__(self, *exception: object) -> None:
        super().__exit__()
        with _errors_of(self._parquet_path):
            with (
                open(self._journal, **_TEXT) as journal,
                atomic_path(self._parquet_path) as new_path,
            ):
                write_parquet(map(json.loads, journal), new_path, *self._about)
            os.remove(self._journal)


def write_parquet(
    rows: Iterable[Row], path: str | os.PathLike, model: str, top: int, timeline: bool
) -> None:
    """Writes rows to a parquet file."""
    arrow, schema = _arrow(), parquet_schema(top, timeline)
    flat = (flat_row(row, model) for row in rows)
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(flat, _GROUP)):
            writer.write_table(arrow.Table.from_pylist(group, schema))


def parquet_schema(top: int, timeline: bool) -> Any:
    """Names and types of the columns of a parquet file."""
    arrow = _arrow()
    number, text = arrow.float64(), arrow.string()
    clip = {"start_s": number, "end_s": number, "genre": text, "posterior": number}
    types = {
        "clips": arrow.int64(),
        "timeline": arrow.list_(arrow.struct(list(clip.items()))),
        **dict.fromkeys(("share", "posterior", "duration"), number),
    }
    return arrow.schema(
        (name, types.get(name.split("_")[0], text)) for name in columns(top, timeline)
    )


def _arrow() -> Any:
    """The package pyarrow, which an extra installs."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "parquet needs pyarrow, which is not installed; "
            "run `pip install '.[parquet]'` in a clone of the repository"
        ) from error
    return pyarrow
