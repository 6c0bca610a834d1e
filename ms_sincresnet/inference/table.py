"""Rows of results as a table to be read by people."""

import itertools

from ms_sincresnet.files import printable


class TableLayout:
    """Columns for the eye, as wide as the files and genres that are to come.

    Arguments
    ---------
    top : int
        Genres a row.
    files : iterable of str
        The files that rows will be of.
    genres : iterable of str
        Names of the genres.

    Example
    -------
    >>> layout = TableLayout(top=1, files=["song.wav"], genres=["jazz"])
    >>> best = [{"genre": "jazz", "share": 1.0, "posterior": 0.9}]
    >>> layout.text({"file": "a.wav", "top": best, "error": None})
    'a.wav     jazz   100 %\\n'
    """

    separator, tail = "", ""
    _widest = 60  # characters of a path that are aligned

    def __init__(self, top, files, genres):
        longest = max(map(len, ["file", *map(printable, files)]))
        self._file = min(longest, self._widest)
        self._genre = max(map(len, ["genre", *map(printable, genres)]))
        self.head = self._line("file", "genre", "share", "next" if top > 1 else "")

    def name(self, file):
        """A file as a row names it.

        Arguments
        ---------
        file : str
            The file.

        Returns
        -------
        str
            Its name on one line.
        """
        return printable(file)

    def text(self, row):
        """The text of a row.

        Arguments
        ---------
        row : dict
            What ``song_row`` returns.

        Returns
        -------
        str
            A line, and another for the timeline.
        """
        file = self.name(row["file"])
        if row["error"] is not None:
            return f"{file:{self._file}}  error: {printable(row['error'])}\n"
        told = [
            (printable(best["genre"]), f"{100 * best['share']:.0f} %")
            for best in row["top"]
        ]
        following = [" ".join(each) for each in told[1:] if each[1] != "0 %"]
        text = self._line(file, *told[0], ", ".join(following))
        if row.get("timeline"):
            text += f"  {self._spans(row['timeline'])}\n"
        return text

    def _line(self, file, genre, share, following):
        """Cells as text."""
        cells = f"{file:{self._file}}  {genre:{self._genre}}  {share:>5}  {following}"
        return f"{cells.rstrip()}\n"

    def _spans(self, timeline):
        """When which genre is heard, clips in a row of one genre being one span."""
        genres = [clip["genre"] for clip in timeline]
        middles_s = [(clip["start_s"] + clip["end_s"]) / 2 for clip in timeline]
        starts_s = [0.0]
        starts_s += [(one + two) / 2 for one, two in itertools.pairwise(middles_s)]
        spans = []
        for genre, clips in itertools.groupby(range(len(genres)), genres.__getitem__):
            first, *_ = clips = list(clips)
            ends = clips[-1] + 1
            end_s = starts_s[ends] if ends < len(genres) else timeline[-1]["end_s"]
            heard = "silence" if genre is None else printable(genre)
            spans.append(f"{_clock(starts_s[first])}-{_clock(end_s)} {heard}")
        return ", ".join(spans)

    def read(self, stream):
        """Refuses to go on with a table.

        Arguments
        ---------
        stream : file object
            A table.

        Returns
        -------
        tuple
            Nothing, if the table is empty.

        Raises
        ------
        ValueError
            If it is not.
        """
        if stream.read(1):
            raise ValueError("a table cannot be gone on with; json, csv or parquet can")
        return ()


def _clock(time_s):
    """A time as it is shown of songs."""
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
