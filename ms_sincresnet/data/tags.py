"""Genres in the tags of songs."""

from mutagen.id3 import TCON

from ms_sincresnet.data.prepare import letters

_USUAL = {letters(name): name for name in TCON.GENRES}


def genre_names(genre: str, genre_map: dict[str, list[str]]) -> list[str]:
    """Names to write for a genre: those of the map, or else ID3's spelling."""
    return genre_map.get(genre) or [_USUAL.get(letters(genre), genre)]
