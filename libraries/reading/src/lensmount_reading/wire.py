"""Protocol Buffers' wire format, walked without a schema compiler and without copying (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.mapped import MappedFile

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

_MAX_TEXT = limits.MAX_STRING_BYTES

Span = tuple[int, int]
"""Offsets of the first byte of a message or string, and of the byte after it."""


class WireReader:
    """Walks the fields of messages in a mapped file.

    Args:
        file: The file; only the bytes of tags, lengths and small values are touched.
    """

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.data = file.data
        self._left = limits.MAX_GRAPH_FIELDS

    def fields(self, span: Span) -> Iterator[tuple[int, int, int, int]]:
        """Walk one message.

        Yields:
            Field number, wire type, and a value: the number itself and 0 for `VARINT`; else the span's two offsets.

        Raises:
            ModelFileError: Truncated or malformed.
            UnsafeFileError: More fields in the file than the limit.
        """
        position, end = span
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise UnsafeFileError(
                    f"{self.file.path} is refused: more than {limits.MAX_GRAPH_FIELDS} fields",
                    fix="do not use this file",
                )
            tag, position = self._varint(position, end)
            number, kind = tag >> 3, tag & 7
            if number == 0:
                self.malformed(f"a field has the number 0, before byte {position}")
            if kind == VARINT:
                value, position = self._varint(position, end)
                yield number, kind, value, 0
                continue
            if kind == BYTES:
                size, position = self._varint(position, end)
            elif kind == FIXED64:
                size = 8
            elif kind == FIXED32:
                size = 4
            else:
                self.malformed(f"a field has the wire type {kind}, before byte {position}")
            stop = position + size
            if stop > end:
                self.malformed(f"a field of {size} bytes at byte {position} ends after what holds it")
            yield number, kind, position, stop
            position = stop

    def text(self, start: int, stop: int) -> str:
        """Return a string; bytes that are not UTF-8 become visible escapes."""
        if stop - start > _MAX_TEXT:
            raise UnsafeFileError(f"{self.file.path} is refused: a name of {stop - start} bytes")
        return str(self.data[start:stop], "utf-8", "backslashreplace")

    def packed(self, start: int, stop: int) -> Iterator[int]:
        """Walk the varints of a packed repeated field."""
        while start < stop:
            self._left -= 1
            if self._left < 0:
                self.malformed("a list of numbers is absurdly long")
            value, start = self._varint(start, stop)
            yield value

    def malformed(self, problem: str) -> NoReturn:
        """Raise `ModelFileError`."""
        raise self._malformed_error(problem)

    def _malformed_error(self, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.file.path} is no whole ONNX model: {problem}", fix="download it again")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        data = self.data
        while position < end:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value, position
            shift += 7
            if shift > 63:
                break
        raise self._malformed_error(f"a number is cut or too long, before byte {position}")


def signed(value: int) -> int:
    """Read an unsigned 64-bit value as int64."""
    return value - (1 << 64) if value >= 1 << 63 else value
