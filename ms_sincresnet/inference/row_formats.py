"""Rows of results as text for programs: json and csv.

A layout turns a row of ``song_row`` into text, and text into what is needed to go on
with it.
"""

import csv
import io
import json
import sys

from ms_sincresnet.files import as_utf8


def columns(top, timeline):
    """Names of the columns of a flat row.

    Arguments
    ---------
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline.

    Returns
    -------
    list of str
        The names.

    Example
    -------
    >>> columns(top=2, timeline=False)[:7]
    ['file', 'genre', 'share', 'posterior', 'genre_2', 'share_2', 'posterior_2']
    """
    ranks = ["", *(f"_{rank}" for rank in range(2, top + 1))]
    tops = [name + rank for rank in ranks for name in ("genre", "share", "posterior")]
    last = ["timeline", "model"] if timeline else ["model"]
    return ["file", *tops, "duration", "clips", "error", *last]


def flat_row(row, model):
    """A row without lists in it, but for the timeline, as columns need it.

    Arguments
    ---------
    row : dict
        What ``song_row`` returns.
    model : str
        The model, as ``model_identity`` names it.

    Returns
    -------
    dict
        Values by the names of ``columns``; what there is no value for is left out.

    Example
    -------
    >>> best = {"genre": "jazz", "share": 1.0, "posterior": 0.9}
    >>> row = {"file": "a.wav", "genre": "jazz", "top": [best, best], "error": None}
    >>> flat_row(row, "12ab-majority")["posterior_2"]
    0.9
    """
    flat = {name: value for name, value in row.items() if name != "top"}
    for rank, best in enumerate(row["top"], start=1):
        suffix = "" if rank == 1 else f"_{rank}"
        flat |= {name + suffix: value for name, value in best.items()}
    return flat | {"model": model}


def check_alike(what, found, expected):
    """Refuses to go on with results of another kind.

    Arguments
    ---------
    what : str
        What must be alike.
    found : object
        What it is.
    expected : object
        What it should be.

    Raises
    ------
    ValueError
        If they differ.

    Example
    -------
    >>> check_alike("top", 5, 3)
    Traceback (most recent call last):
    ...
    ValueError: its top is 5; expected 3
    """
    if found != expected:
        raise ValueError(f"its {what} is {found}; expected {expected}")


class JsonLayout:
    """One array, an object a line, so that it is read back line by line.

    Arguments
    ---------
    model : str
        The model, as ``model_identity`` names it.
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline.

    Example
    -------
    >>> layout = JsonLayout("12ab-majority", top=1, timeline=False)
    >>> text = layout.text({"file": "a.wav", "top": [], "error": "no such file"})
    >>> text
    '{"file": "a.wav", "top": [], "error": "no such file", "model": "12ab-majority"}'
    >>> list(layout.read(io.StringIO(layout.head + text))) == [("a.wav", True, text)]
    True
    """

    head, separator, tail = "[\n", ",\n", "\n]\n"

    def __init__(self, model, top, timeline):
        self.model, self.top, self.timeline = model, top, timeline

    def name(self, file):
        """A file as a row names it.

        Arguments
        ---------
        file : str
            The file.

        Returns
        -------
        str
            Its path, in UTF-8.
        """
        return as_utf8(file)

    def text(self, row):
        """The text of a row.

        Arguments
        ---------
        row : dict
            What ``song_row`` returns.

        Returns
        -------
        str
            A line.
        """
        return json.dumps(row | {"model": self.model}, ensure_ascii=False)

    def read(self, stream):
        """Reads rows.

        Arguments
        ---------
        stream : file object
            Text in this layout, which may break off.

        Yields
        ------
        tuple or None
            Name of the file, whether there is an error, and text; None for what cannot
            be read.

        Raises
        ------
        ValueError
            If it is something else, or of another model, top or timeline.
        """
        if stream.readline().strip() not in ("[", ""):
            raise ValueError("it is not the json that this command writes")
        for line in stream:
            text = line.rstrip("\n").removesuffix(",")
            if text in ("", "]"):
                continue
            try:
                row = json.loads(text)
            except (RecursionError, ValueError):
                yield None
                continue
            if (
                not isinstance(row, dict)
                or not isinstance(row.get("file"), str)
                or not isinstance(row.get("error", 0), str | None)
                or not isinstance(row.get("top"), list)
            ):
                raise ValueError("it is not the json that this command writes")
            check_alike("model", row.get("model"), self.model)
            check_alike("timeline", "timeline" in row, self.timeline)
            if row["error"] is None:
                check_alike("top", len(row["top"]), self.top)
            yield row["file"], row["error"] is not None, text


class CsvLayout:
    """Comma-separated columns, a line of their names first.

    Cells that a spreadsheet would take for a formula are made harmless: a path gets
    "./" in front, which changes nothing, any other text an apostrophe.

    Arguments
    ---------
    model : str
        The model, as ``model_identity`` names it.
    top : int
        Genres a row.
    timeline : bool
        Whether rows have a timeline, which is then json in its cell.

    Example
    -------
    >>> layout = CsvLayout("12ab-majority", top=1, timeline=False)
    >>> layout.text({"file": "=1.wav", "top": [], "clips": 0, "error": "no such file"})
    './=1.wav,,,,,0,no such file,12ab-majority\\n'
    """

    separator, tail = "", ""
    _formula = ("=", "+", "-", "@", "\t", "\r")

    def __init__(self, model, top, timeline):
        self.model = model
        self.columns = columns(top, timeline)
        self.head = self._line(self.columns)

    def name(self, file):
        """A file as a row names it.

        Arguments
        ---------
        file : str
            The file.

        Returns
        -------
        str
            A path to it, in UTF-8.
        """
        return as_utf8(f"./{file}" if file.startswith(self._formula) else file)

    def text(self, row):
        """The text of a row.

        Arguments
        ---------
        row : dict
            What ``song_row`` returns.

        Returns
        -------
        str
            A line; several, if the file's name has line breaks.
        """
        cells = flat_row(row, self.model) | {"file": self.name(row["file"])}
        return self._line(self._cell(cells.get(name)) for name in self.columns)

    def _cell(self, value):
        """What is written of a value."""
        if isinstance(value, list):
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and value.startswith(self._formula):
            return f"'{value}"
        return value

    def _line(self, cells):
        """Cells as text."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerow(cells)
        return stream.getvalue()

    def read(self, stream):
        """Reads rows.

        Arguments
        ---------
        stream : file object
            Text in this layout, which may break off.

        Yields
        ------
        tuple or None
            Name of the file, whether there is an error, and text; None for what cannot
            be read.

        Raises
        ------
        ValueError
            If it is something else, or of another model, top or timeline.
        """
        csv.field_size_limit(sys.maxsize)  # the timeline of an hour is half a megabyte
        ended = True

        def lines():
            nonlocal ended
            for line in stream:
                ended = line.endswith("\n")
                yield line.replace("\0", "\ufffd")  # which csv of Python 3.10 refuses

        rows = csv.reader(lines())
        found = next(rows, self.columns)
        is_part = not ended and found and self.head.startswith(found[0])
        if found != self.columns and not is_part:
            check_alike("first line", ",".join(found), ",".join(self.columns))
        for row in rows:
            if len(row) != len(self.columns) or not ended:
                yield None
                continue
            cells = dict(zip(self.columns, row, strict=True))
            check_alike("model", cells["model"], self.model)
            yield cells["file"], cells["error"] != "", self._line(row)
