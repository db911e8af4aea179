"""FlatBuffers' binary form, read without a schema compiler: tables, vectors and scalars, every offset checked.

Layout (flatbuffers.dev, "FlatBuffer Internals"): a table begins with the signed distance back to its vtable, which
holds its own size, the table's size, and for each field its offset in the table, or 0 where the field is absent.
Vectors and strings begin with their length. Offsets are unsigned and point forward.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.mapped import MappedFile

_FORMS = {
    name: struct.Struct("<" + form)
    for name, form in {
        "bool": "?", "int8": "b", "uint8": "B", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
        "float32": "f",
    }.items()
}  # fmt: skip


class Table:
    """One table of a file.

    Args:
        file: The mapped file.
        position: Where the table begins.
        budget: One number, counted down at each step: no file makes the reader go round in circles.

    Raises:
        ModelFileError: The table does not lie in the file.
    """

    __slots__ = ("_budget", "_fields", "_file", "_position")

    def __init__(self, file: MappedFile, position: int, budget: list[int]) -> None:
        self._file = file
        self._position = position
        self._budget = budget
        vtable = position - self._scalar("int32", position)
        size = self._scalar("uint16", vtable)
        if size < 4 or size % 2 or vtable + size > file.size:
            raise self._damaged(f"a table at byte {position} has no description")
        self._fields = (vtable + 4, (size - 4) // 2)

    @classmethod
    def root(cls, file: MappedFile) -> Table:
        """The outermost table."""
        start = int.from_bytes(file.data[:4], "little")
        return cls(file, start, [limits.MAX_GRAPH_FIELDS])

    def number(self, field: int, form: str, default: int | float = 0) -> int | float:
        """A scalar field, or its default where the file leaves it out."""
        at = self._field(field)
        return default if at is None else self._scalar(form, at)

    def integer(self, field: int, form: str = "int32", default: int = 0) -> int:
        """An integer field, or its default where the file leaves it out."""
        return int(self.number(field, form, default))

    def table(self, field: int) -> Table | None:
        """A table that a field points to, or None."""
        at = self._field(field)
        return None if at is None else Table(self._file, self._target(at), self._budget)

    def tables(self, field: int) -> Iterator[Table]:
        """The tables of a vector of tables."""
        start, count = self._vector(field, 4)
        for index in range(count):
            yield Table(self._file, self._target(start + 4 * index), self._budget)

    def numbers(self, field: int, form: str = "int32") -> tuple[int | float, ...]:
        """The scalars of a vector of scalars."""
        scalar = _FORMS[form]
        start, count = self._vector(field, scalar.size)
        self._spend(count)
        return tuple(value for (value,) in scalar.iter_unpack(self._file.data[start : start + count * scalar.size]))

    def integers(self, field: int) -> tuple[int, ...]:
        """The integers of a vector of 32-bit integers."""
        return tuple(int(value) for value in self.numbers(field))

    def span(self, field: int) -> tuple[int, int]:
        """First byte and length of a vector of bytes; (0, 0) where it is absent."""
        return self._vector(field, 1)

    def text(self, field: int) -> str:
        """A string; bytes that are not UTF-8 become visible escapes."""
        start, size = self._vector(field, 1)
        if size > limits.MAX_STRING_BYTES:
            raise UnsafeFileError(f"{self._file.path} is refused: a name of {size} bytes", fix="do not use this file")
        return str(self._file.data[start : start + size], "utf-8", "backslashreplace")

    def _field(self, number: int) -> int | None:
        start, count = self._fields
        if number >= count:
            return None
        offset = int(self._scalar("uint16", start + 2 * number))
        return self._position + offset if offset else None

    def _target(self, at: int) -> int:
        return at + int(self._scalar("uint32", at))

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        at = self._field(field)
        if at is None:
            return 0, 0
        start = self._target(at)
        count = int(self._scalar("uint32", start))
        if start + 4 + count * width > self._file.size:
            raise self._damaged(f"a list of {count} at byte {start} ends after the file")
        return start + 4, count

    def _scalar(self, form: str, at: int) -> int:
        self._spend(1)
        scalar = _FORMS[form]
        if not 0 <= at <= self._file.size - scalar.size:
            raise self._damaged(f"something should lie at byte {at}")
        value: int = scalar.unpack(self._file.data[at : at + scalar.size])[0]
        return value

    def _spend(self, steps: int) -> None:
        self._budget[0] -= steps
        if self._budget[0] < 0:
            raise UnsafeFileError(f"{self._file.path} is refused: it has no end", fix="do not use this file")

    def _damaged(self, problem: str) -> ModelFileError:
        return ModelFileError(f"{self._file.path} is no whole TFLite model: {problem}", fix="download it again")
