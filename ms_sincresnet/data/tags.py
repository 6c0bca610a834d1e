"""Genres in the tags of songs."""

from mutagen.id3 import TCON

from ms_sincresnet.data.prepare import letters

_SPELLINGS = {letters(name): name for name in reversed(TCON.GENRES)}


def genre_names(genre: str, genre_map: dict[str, list[str]]) -> list[str]:
    """Names to write for a genre: the map's, else in the spelling of ID3, if any."""
    for ours, names in genre_map.items():
        if letters(ours) == letters(genre):
            return names
    return [_SPELLINGS.get(letters(genre), genre)]
