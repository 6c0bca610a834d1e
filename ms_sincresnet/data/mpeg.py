"""Frames of mp3 files: all of them, whatever tags, junk and other files lie between.

FFmpeg's own reader of mp3 files guesses noise to be music, and reads what follows the
last frame into memory, which may be a gigabyte of zeros.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO, NamedTuple

_KBPS = {  # by version and layer
    (1, 1): range(0, 449, 32),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_CONSECUTIVE = 4  # frames that are no chance: one in 2**60 places of noise has them
_SEARCHED = 2**20  # bytes of a file in which its first frames are sought
_CHUNK = 2**20
_ZEROS = bytes(_CHUNK)
_DECODER_DELAY = 529  # samples of the filter bank, in addition to the encoder's
_FRAMES_TOLERATED = 5  # of those that a header counts
_ZEROS_TOLERATED = 4096  # bytes between frames, where no music is missing


class Header(NamedTuple):
    """The facts in the four bytes that begin a frame."""

    size: int
    samples: int
    rate: int
    traits: tuple  # that all frames of a stream share
    side: int  # bytes before the Xing tag of a first frame


@lru_cache(4096)
def parse(head: bytes) -> Header | None:
    """The header of a frame; None if these bytes do not begin one."""
    bits = int.from_bytes(head[:4], "big")
    version, layer = bits >> 19 & 3, 4 - (bits >> 17 & 3)  # 0 is version 2.5, 3 is 1
    rate_index, rate_bits = bits >> 12 & 15, bits >> 10 & 3
    if len(head) < 4 or bits >> 21 != 0x7FF or version == 1 or layer == 4:
        return None
    if rate_index in (0, 15) or rate_bits == 3:
        return None
    is_first, mono = version == 3, bits >> 6 & 3 == 3
    kbps = _KBPS[1 if is_first else 2, layer if is_first else min(layer, 2)][rate_index]
    rate = (44100, 48000, 32000)[rate_bits] >> (3 - version + 1) // 2
    samples = 384 if layer == 1 else 1152 if layer == 2 or is_first else 576
    slot = 4 if layer == 1 else 1
    size = (samples // 8 * kbps * 1000 // rate // slot + (bits >> 9 & 1)) * slot
    side = (17 if mono else 32) if is_first else (9 if mono else 17)
    return Header(size, samples, rate, (version, layer, rate), side)


def read_at(file: BinaryIO, position: int, size: int) -> bytes:
    """Bytes at a position of a file, fewer at its end."""
    file.seek(position)
    return file.read(size)


def skip_tags(file: BinaryIO, position: int) -> int:
    """The position behind the tags at a position."""
    while True:
        head = read_at(file, position, 32)
        if head[:3] == b"ID3" and len(head) > 9 and max(head[6:10]) < 128:
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte
            size += 20 if head[5] & 16 else 10
        elif head[:8] == b"APETAGEX":
            size = 32 + int.from_bytes(head[12:16], "little")
        elif head[:3] == b"TAG":
            size = 128
        else:
            return position
        position += size


def skip_zeros(file: BinaryIO, position: int) -> int:
    """The position of the first byte that is not zero; at the end, that of the end."""
    while chunk := read_at(file, position, _CHUNK):
        rest = b"" if chunk == _ZEROS else chunk.lstrip(b"\0")
        position += len(chunk) - len(rest)
        if rest:
            break
    return position


def are_frames(file: BinaryIO, position: int) -> bool:
    """True if frames that fit each other begin here."""
    first = None
    for _ in range(_CONSECUTIVE):
        head = read_at(file, position, 4)
        frame = parse(head)
        if frame is None:
            return first is not None and not head  # a very short file
        first = first or frame
        if frame.traits != first.traits:
            return False
        position += frame.size
    return True


def find_frames(file: BinaryIO, position: int, end: float) -> int | None:
    """The first position before ``end`` where frames begin."""
    while position < end and (chunk := read_at(file, position, _CHUNK + 3)):
        place = chunk.find(b"\xff")
        while 0 <= place < _CHUNK:
            if parse(chunk[place : place + 4]) and are_frames(file, position + place):
                return position + place
            place = chunk.find(b"\xff", place + 1)
        position += _CHUNK
    return None


def first_frame(file: BinaryIO, *, search: bool = False) -> int | None:
    """Position of the music of an mp3 file, after tags or, if ``search``, any junk."""
    start = skip_zeros(file, skip_tags(file, 0))
    if are_frames(file, start):
        return start
    if not search:
        return None
    place = find_frames(file, start, start + _SEARCHED)
    return find_frames(file, 0, _SEARCHED) if place is None else place


class Stream(NamedTuple):
    """The output of one encoder; a file joined from several has several."""

    number: int
    frames: int = 0  # 0 if its header does not count them
    delay: int = 0
    padding: int = 0


def read_frames(
    file: BinaryIO, position: int, faults: list[str]
) -> Iterator[tuple[Stream, bytes]]:
    """Frames of music from a position on, each with its stream; notes faults."""
    stream, traits, n_frames = Stream(0), None, 0
    while True:
        frame = parse(read_at(file, position, 4))
        if frame and (frame.traits == traits or are_frames(file, position)):
            data = read_at(file, position, frame.size)
            if len(data) < frame.size:
                if not n_frames >= stream.frames > 0:
                    faults.append("its last frame is cut short")
                break
            position += frame.size
            tag = _read_tag(data, 4 + frame.side)
            if tag or frame.traits != traits:
                _check_count(stream, n_frames, faults)
                stream = Stream(stream.number + 1, *(tag or ()))
                traits, n_frames = frame.traits, 0
            if not tag:
                n_frames += 1
                yield stream, data
            continue
        tags_end = skip_tags(file, position)
        after = skip_zeros(file, tags_end)
        if after - tags_end > _ZEROS_TOLERATED:
            faults.append(f"{after - tags_end} bytes of it are zero")
        if after == position:
            place = find_frames(file, position + 1, math.inf)
            if place is None:  # most players write something behind the music
                break
            if not read_at(file, position, 11).startswith(b"LYRICSBEGIN"):
                faults.append("damaged frames")
            after = place
        if not read_at(file, after, 1):
            break
        position = after
    _check_count(stream, n_frames, faults)


def _check_count(stream: Stream, n_frames: int, faults: list[str]) -> None:
    """Notes frames that are missing by a stream's own account."""
    if stream.frames - n_frames > _FRAMES_TOLERATED:
        faults.append("its header promises more audio")


def _read_tag(data: bytes, place: int) -> tuple[int, int, int] | None:
    """Frames, delay and padding that a tag in place of music states."""
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big"), 0, 0
    if data[place : place + 4] not in (b"Xing", b"Info"):
        return None
    flags, place = data[place + 7], place + 8
    frames = int.from_bytes(data[place : place + 4], "big") if flags & 1 else 0
    place += sum(size for bit, size in enumerate((4, 4, 100, 4)) if flags >> bit & 1)
    if data[place : place + 4] not in (b"LAME", b"Lavf", b"Lavc"):
        return frames, 0, 0
    trimmed = int.from_bytes(data[place + 21 : place + 24], "big")
    delay, padding = trimmed >> 12, trimmed & 4095
    return frames, delay + _DECODER_DELAY, max(0, padding - _DECODER_DELAY)
