"""Directories of a TIFF structure: TIFF 6.0 and BigTIFF, in both byte orders, as far as sizes need them.

Source: TIFF 6.0 (sections 2 and 7), the BigTIFF design of libtiff, EXIF 2.32 for the orientation.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

Read = Callable[[int, int], bytes]

MAX_DIRECTORIES = 65_536
_MAX_TAGS = 4096
_MAX_VALUES = 16
#: `struct` codes of one value by the field's type; a rational is two numbers.
_CODES = {
    1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q",
    18: "Q",
}  # fmt: skip
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _ORIENTATION, _SUBFILE = 256, 257, 322, 323, 0x0112, 254
_NO_PAGE = 1 | 4  # of `NewSubfileType`: a smaller copy of another picture, a transparency mask


@dataclass(frozen=True, slots=True)
class Directory:
    """One picture's tags.

    Attributes:
        offset: Where it begins, in bytes.
        values: First values of the numeric tags, as many as decide a size; a tag that comes twice has both.
    """

    offset: int
    values: dict[int, list[float]]

    @property
    def size(self) -> tuple[int, int] | None:
        """`(height, width)`; where values contradict each other, the largest; None where there are none."""
        return self._pair(_HEIGHT, _WIDTH)

    @property
    def tile(self) -> tuple[int, int] | None:
        """`(height, width)` of its tiles, which a decoder holds whole; None where it has none."""
        return self._pair(_TILE_HEIGHT, _TILE_WIDTH)

    @property
    def orientation(self) -> int:
        """As EXIF has it, 1 to 8; 1 where it is not said."""
        value = self.values.get(_ORIENTATION, [1])[0]
        return int(value) if value in range(1, 9) else 1

    @property
    def page(self) -> bool:
        """Whether it is a picture of its own, no smaller copy and no mask of another."""
        return not int(self.values.get(_SUBFILE, [0])[0]) & _NO_PAGE

    def _pair(self, rows: int, columns: int) -> tuple[int, int] | None:
        if rows not in self.values or columns not in self.values:
            return None
        return math.ceil(max(self.values[rows])), math.ceil(max(self.values[columns]))


def directories(read: Read) -> Iterator[Directory]:
    """The directories of the main chain, in order; one that was seen before ends it.

    Args:
        read: Gives so many bytes from an offset, fewer at the end.

    Raises:
        ValueError: There is no byte order mark.
        struct.error: The structure leaves the file.
    """
    order = {b"II": "<", b"MM": ">"}.get(read(0, 2))
    if order is None:
        raise ValueError("no TIFF byte order mark")
    big = struct.unpack(order + "H", read(2, 2)) == (43,)
    pointer, counter, tag_size = (order + "Q", order + "Q", 20) if big else (order + "I", order + "H", 12)
    (offset,) = _unpack(pointer, read, 8 if big else 4)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < MAX_DIRECTORIES:
        seen.add(offset)
        (count,) = _unpack(counter, read, offset)
        start = offset + struct.calcsize(counter)
        values: dict[int, list[float]] = {}
        for place in range(start, start + min(count, _MAX_TAGS) * tag_size, tag_size):
            tag, kind, many = _unpack(order + ("HHQ" if big else "HHI"), read, place)
            if kind in _CODES and many:
                found = _values(order, _CODES[kind], many, read, place + tag_size - struct.calcsize(pointer), pointer)
                values.setdefault(tag, []).extend(found)
        yield Directory(offset, values)
        if count > _MAX_TAGS:
            return
        after = read(start + count * tag_size, struct.calcsize(pointer))
        # EXIF blocks are often cut right after their tags.
        offset = struct.unpack(pointer, after)[0] if len(after) == struct.calcsize(pointer) else 0


def _unpack(code: str, read: Read, offset: int) -> tuple[int, ...]:
    return struct.unpack(code, read(offset, struct.calcsize(code)))


def _values(order: str, code: str, many: int, read: Read, place: int, pointer: str) -> Iterator[float]:
    """What a tag holds: in its own last bytes where it has room there, else where these point to."""
    size = struct.calcsize(order + code)
    offset = place if size * many <= struct.calcsize(pointer) else _unpack(pointer, read, place)[0]
    for index in range(min(many, _MAX_VALUES)):
        piece = read(offset + index * size, size)
        if len(piece) < size:
            return
        numbers = struct.unpack(order + code, piece)
        value = numbers[0] if len(numbers) == 1 else numbers[0] / (numbers[1] or math.nan)
        if math.isfinite(value):
            yield value


def of_bytes(data: bytes) -> Read:
    """Reads from memory."""
    return lambda offset, count: data[offset : offset + count]


def of_file(file: BinaryIO) -> Read:
    """Reads from an open file."""

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    return read
