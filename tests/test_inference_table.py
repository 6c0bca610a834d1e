"""The table that people read."""

from ms_sincresnet.files import printable
from ms_sincresnet.inference.table import TableLayout


def row(file, top, error=None, **more):
    """A row as ``song_row`` makes it: genres with their shares in percent."""
    top = [{"genre": genre, "share": share / 100} for genre, share in top]
    return {"file": file, "top": top, "error": error, **more}


def test_columns_are_aligned():
    files = ["a.wav", "longer name.wav", "x" * 90]
    layout = TableLayout(3, files, ["jazz", "electronic"])
    rows = [
        row("a.wav", [("jazz", 100), ("electronic", 0), ("pop", 0.4)]),
        row("longer name.wav", [("electronic", 52.4), ("jazz", 45.6), ("pop", 2)]),
        row("b.wav", [], "no such file. Check the path."),
        row("x" * 90, [("jazz", 7)]),
    ]
    text = layout.head + "".join(map(layout.text, rows))
    assert text.splitlines() == [
        f"{'file':60}  genre       share  next",
        f"{'a.wav':60}  jazz        100 %",
        f"{'longer name.wav':60}  electronic   52 %  jazz 46 %, pop 2 %",
        f"{'b.wav':60}  error: no such file. Check the path.",
        f"{'x' * 90}  jazz          7 %",
    ]


def test_one_genre_a_song_needs_no_next():
    assert TableLayout(1, ["a.wav"], ["a"]).head == "file   genre  share\n"
    assert TableLayout(1, [], []).head == "file  genre  share\n"


def spans(*clips, hop_s=0.5, clip_s=3.0):
    """The timeline as it is shown, of the clips' genres."""
    timeline = [
        {"start_s": hop_s * number, "end_s": hop_s * number + clip_s, "genre": genre}
        for number, genre in enumerate(clips)
    ]
    layout = TableLayout(1, ["a"], ["jazz"])
    text = layout.text(row("a", [("jazz", 50)], timeline=timeline))
    _, line = text.splitlines()
    return line.strip().split(", ")


def test_a_timeline_is_told_in_spans():
    """A clip stands for the time about its middle: it is rock's if most of it is."""
    # 12 s of rock, 8 s of jazz, 10 s of silence: middles are at 1.5, 2.0 … 28.5 s.
    genres = 21 * ["rock"] + 16 * ["jazz"] + 18 * [None]
    assert spans(*genres) == ["0:00-0:12 rock", "0:12-0:20 jazz", "0:20-0:30 silence"]
    assert spans("pop") == ["0:00-0:03 pop"]
    assert spans(*7199 * ["pop"])[0] == "0:00-1:00:02 pop"


def test_what_a_terminal_might_obey_is_not_shown():
    clear = "\x1b[2J\x07\r\n\u202e\udce9"
    assert printable(f"a{clear}é🎵") == "a\\x1b[2J\\x07\\r\\n\\u202e\\udce9é🎵"
    layout = TableLayout(2, [clear], [clear])
    timeline = [{"start_s": 0.0, "end_s": 3.0, "genre": clear}]
    top = [(clear, 60), (clear, 40)]
    text = layout.text(row(clear, top, timeline=timeline))
    text += layout.text(row(clear, [], error=clear))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("\n") == 3
