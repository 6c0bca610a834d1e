"""Results of a catalogue: written song by song, and gone on with after a stop."""

import itertools
import os
import sys
import time
from contextlib import contextmanager

from ms_sincresnet.errors import UserError
from ms_sincresnet.files import as_utf8, atomic_path
from ms_sincresnet.inference.row_formats import (
    CsvLayout,
    JsonLayout,
    check_alike,
    columns,
    flat_row,
)
from ms_sincresnet.inference.table import TableLayout

FORMATS = ("table", "json", "csv", "parquet")

_TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def open_results(form, path, *, model, top, timeline, files=(), genres=()):
    """Opens what rows are written to.

    Arguments
    ---------
    form : str
        "table", "json", "csv" or "parquet".
    path : str or pathlib.Path, optional
        The file; its folder is made. Rows that it holds are kept, but for one that is
        half-written, and for those of ``files`` that have an error. None: the standard
        output, which is not for parquet.
    model : str
        The model, as ``model_identity`` names it.
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline.
    files : iterable of str
        The files whose rows are to come.
    genres : iterable of str
        Names of the genres, for the width of a table.

    Returns
    -------
    TextRows or ParquetRows
        For a ``with`` statement: ``write(row)`` writes a row, and ``done`` holds those
        of ``files`` that are done already.

    Raises
    ------
    UserError
        If the file cannot be written, or is anything but such results of the same
        model, top and timeline, and would be lost.

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
    if path is not None:
        path = os.path.realpath(path)  # as a link is not to be replaced
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{path}: expected a file to write, found something else")
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise UserError(f"{path}: cannot be written (Permission denied)")
    if form == "parquet":
        return ParquetRows(path, model, top, timeline, files)
    if form == "table":
        return TextRows(TableLayout(top, files, genres), path, files)
    layout = {"json": JsonLayout, "csv": CsvLayout}[form]
    return TextRows(layout(model, top, timeline), path, files)


@contextmanager
def _faults_of(path):
    """Names the file that cannot be written, or gone on with."""
    try:
        yield
    except BrokenPipeError:  # who reads the standard output has enough
        raise
    except OSError as error:
        where = path or "the standard output"
        raise UserError(f"{where}: cannot be written ({error.strerror})") from error
    except ValueError as error:
        raise UserError(
            f"{path}: there is something that cannot be gone on with, and it would be "
            f"lost: {error}. Name another file, or remove this one."
        ) from error


def _same_path(name):
    """A path by which a file is known again, be it named a.wav or ./a.wav."""
    return os.path.normpath(name)


class TextRows:
    """Rows as text, each written as it comes.

    Arguments
    ---------
    layout : JsonLayout, CsvLayout or TableLayout
        How rows are written and read.
    path : str, optional
        The file; None: the standard output.
    files : iterable of str
        The files whose rows are to come.

    Example
    -------
    >>> layout = TableLayout(1, ["song.wav"], ["jazz"])
    >>> best = [{"genre": "jazz", "share": 1.0, "posterior": 0.9}]
    >>> with TextRows(layout, None, ["song.wav"]) as rows:
    ...     rows.write({"file": "song.wav", "top": best, "error": None})
    file      genre  share
    song.wav  jazz   100 %
    """

    def __init__(self, layout, path, files):
        self.layout, self.path = layout, path
        self.done, self._empty = set(), True
        with _faults_of(path):
            if path is None:
                self._stream = sys.stdout
                self._stream.write(layout.head)
            else:
                self._keep(files)
                self._stream = open(path, "a", **_TEXT)  # noqa: SIM115, see __exit__

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with _faults_of(self.path):
            self._stream.write(self.layout.tail)
            self._stream.flush()
            if self.path is not None:
                self._stream.close()

    def write(self, row):
        """Writes a row, so that it is there whatever happens next.

        Arguments
        ---------
        row : dict
            What ``song_row`` returns.
        """
        with _faults_of(self.path):
            self._put(self._stream, self.layout.text(row))
            self._stream.flush()

    def _put(self, stream, text):
        """Writes the text of a row."""
        stream.write(text if self._empty else self.layout.separator + text)
        self._empty = False

    def _keep(self, files):
        """Leaves in the file the rows that stay, and notes what is done."""
        asked = {_same_path(self.layout.name(file)): file for file in files}
        with atomic_path(self.path) as new_path, open(new_path, "w", **_TEXT) as new:
            new.write(self.layout.head)
            for name, failed, text in self._rows():
                file = asked.get(_same_path(name))
                if file is None or not failed:
                    self._put(new, text)
                if file is not None and not failed:
                    self.done.add(file)

    def _rows(self):
        """Yields the rows of the file, but for a half-written one at its end."""
        if not os.path.exists(self.path):
            return
        with open(self.path, **_TEXT) as old:
            broken = False
            for row in self.layout.read(old):
                if broken:
                    raise ValueError("a row in the midst of it cannot be read")
                broken = row is None
                if not broken:
                    yield row


class ParquetRows:
    """Rows in a parquet file, which is written anew every now and then, and at the end.

    Arguments
    ---------
    path : str
        The file.
    model : str
        The model, as ``model_identity`` names it.
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline.
    files : iterable of str
        The files whose rows are to come.

    Raises
    ------
    UserError
        If pyarrow is not installed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "genres.parquet"
    >>> with ParquetRows(path, "12ab-majority", 3, False, ["song.wav"]) as rows:
    ...     rows.done
    set()
    """

    interval_s = 10.0  # from one writing to the next

    def __init__(self, path, model, top, timeline, files):
        self.path, self.model = path, model
        self._schema = parquet_schema(top, timeline)
        self._table, self._new = self._schema.empty_table(), []
        self.done = set()
        with _faults_of(path):
            if os.path.exists(path) and os.path.getsize(path):
                self._keep(files)
            self._save()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with _faults_of(self.path):
            self._save()

    def write(self, row):
        """Takes a row, which is in the file some seconds later.

        Arguments
        ---------
        row : dict
            What ``song_row`` returns.
        """
        self._new.append(flat_row(row, self.model))
        if time.monotonic() - self._saved_s > self.interval_s:
            with _faults_of(self.path):
                self._save()

    def _keep(self, files):
        """Takes from the file the rows that stay, and notes what is done."""
        arrow = _arrow()
        asked = {_same_path(as_utf8(file)): file for file in files}
        table = arrow.parquet.read_table(self.path)
        if table.schema != self._schema:
            names = (",".join(one.names) for one in (table.schema, self._schema))
            raise ValueError("its columns are {}; expected {}".format(*names))
        for model in table["model"].unique().to_pylist():
            check_alike("model", model, self.model)
        names, errors = table["file"].to_pylist(), table["error"].to_pylist()
        known = [asked.get(_same_path(name)) for name in names]
        stays = [
            file is None or error is None
            for file, error in zip(known, errors, strict=True)
        ]
        self._table = table.filter(arrow.array(stays, "bool"))
        self.done = set(itertools.compress(known, stays)) - {None}

    def _save(self):
        """Writes the file, whole or not at all."""
        arrow = _arrow()
        new = arrow.Table.from_pylist(self._new, self._schema)
        self._table, self._new = arrow.concat_tables([self._table, new]), []
        with atomic_path(self.path) as new_path:
            arrow.parquet.write_table(self._table, new_path)
        self._saved_s = time.monotonic()


def parquet_schema(top, timeline):
    """The columns of a parquet file, and their types.

    Arguments
    ---------
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline.

    Returns
    -------
    pyarrow.Schema
        The columns of ``columns``.

    Raises
    ------
    UserError
        If pyarrow is not installed.

    Example
    -------
    >>> print(parquet_schema(top=1, timeline=False))
    file: string
    genre: string
    share: double
    posterior: double
    duration: double
    clips: int64
    error: string
    model: string
    """
    arrow = _arrow()
    clip = {"start_s": "double", "end_s": "double"}
    clip |= {"genre": "string", "posterior": "double"}
    clip = arrow.struct(
        [(name, arrow.type_for_alias(kind)) for name, kind in clip.items()]
    )
    kinds = {
        "clips": arrow.int64(),
        "timeline": arrow.list_(clip),
        **dict.fromkeys(("share", "posterior", "duration"), arrow.float64()),
    }
    return arrow.schema(
        (name, kinds.get(name.split("_")[0], arrow.string()))
        for name in columns(top, timeline)
    )


def _arrow():
    """The package pyarrow, which comes with an extra."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "parquet needs pyarrow, which is not installed; "
            "pip install 'ms_sincresnet[parquet]'"
        ) from error
    return pyarrow
