"""The state of one pickle being read, and what the opcodes do to it.

The steps of the opcodes are in `opcodes` and `opcodes_values`; `Machine.run` is handed their table.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import NoReturn

from lensmount.errors import ModelFileError
from lensmount_reading import limits
from lensmount_reading.allowed import dtype_of_global, kind_of, present_module
from lensmount_reading.rebuild import Rebuilder
from lensmount_reading.records import GlobalName, describe
from lensmount_reading.text import printable

STOP = ord(".")
_DECIMAL = re.compile(rb"[-+]?[0-9]+", re.ASCII)


class Machine:
    """The state of one pickle being read: position, stack, memo.

    Args:
        data: Bytes with the pickle in them.
        where: The file and entry, for messages.
        policy: One of `allowed.POLICIES`.
        persistent: Answers persistent ids; without it they are refused.
        start: Offset of the pickle's first byte.
    """

    def __init__(
        self, data: bytes, *, where: str, policy: str, persistent: Callable[[object], object] | None, start: int = 0
    ) -> None:
        self.data = data
        self.where = where
        self.policy = policy
        self.persistent = persistent
        self.position = start
        self.end = min(len(data), start + limits.MAX_PICKLE_BYTES)
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.seen: dict[str, None] = {}
        self.refused: dict[str, None] = {}
        self.only_modules = True  # whether all that is refused would be records of a module tree
        self.rebuilder = Rebuilder(where)
        self._globals: dict[tuple[str, str], object] = {}

    def run(self, steps: Sequence[Callable[[Machine], None]]) -> object:
        """Read to `STOP` and return what is on the stack.

        Args:
            steps: What each opcode does, by its byte.

        Raises:
            ModelFileError: Truncated, malformed, or more than the limits allow (then `UnsafeFileError`).
        """
        data = self.data
        left = limits.MAX_OPCODES
        try:
            while True:
                if self.position >= self.end:
                    self.truncated()
                opcode = data[self.position]
                self.position += 1
                if opcode == STOP:
                    break
                left -= 1
                if left < 0:
                    self.rebuilder.unsafe(f"it has more than {limits.MAX_OPCODES} opcodes")
                steps[opcode](self)
            tree = self.stack.pop()
        except IndexError:
            self.rebuilder.malformed(f"it takes from an empty stack, before byte {self.position}")
        except KeyError:
            self.rebuilder.malformed(f"it recalls what it never stored, before byte {self.position}")
        except (ValueError, OverflowError, struct.error) as error:
            if isinstance(error, ModelFileError):
                raise
            self.rebuilder.malformed(f"{printable(error)}, before byte {self.position}")
        if self.stack or self.marks:
            self.rebuilder.malformed("objects are left over at its end")
        return tree

    # --- reading operands ------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        start = self.position
        stop = start + count
        if stop > self.end:
            self.truncated()
        self.position = stop
        return self.data[start:stop]

    def take_sized(self, width: int) -> bytes:
        """Return bytes that follow a little-endian length of `width` bytes."""
        size = int.from_bytes(self.take(width), "little")
        if size > limits.MAX_STRING_BYTES:
            # Told apart from truncation: the length itself is absurd.
            self.rebuilder.unsafe(f"a string of {size} bytes")
        return self.take(size)

    def take_line(self) -> bytes:
        """Return the bytes up to the next newline, which is skipped."""
        stop = self.data.find(b"\n", self.position, min(self.end, self.position + limits.MAX_LINE_BYTES + 1))
        if stop < 0:
            if self.end - self.position <= limits.MAX_LINE_BYTES:
                self.truncated()
            self.rebuilder.unsafe(f"a line of more than {limits.MAX_LINE_BYTES} bytes")
        line = self.data[self.position : stop]
        self.position = stop + 1
        return line

    def decimal(self, line: bytes) -> int:
        """Return the integer that a line holds in decimal digits."""
        if not _DECIMAL.fullmatch(line) or len(line) > 2 * limits.MAX_INTEGER_BYTES:
            self.rebuilder.malformed(f"{printable(line)} is not an integer of an allowed size")
        return int(line)

    def truncated(self) -> NoReturn:
        """Raise: the data ends, or goes on beyond what a pickle may have."""
        if self.end < len(self.data) or self.end - self.position >= limits.MAX_PICKLE_BYTES:
            self.rebuilder.unsafe(f"a pickle of more than {limits.MAX_PICKLE_BYTES} bytes")
        self.rebuilder.malformed(f"it ends early, at byte {self.position}")

    # --- stack and memo --------------------------------------------------------------------------------------------

    def pop_mark(self) -> list[object]:
        """Return everything above the last mark, and drop the mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def remember(self, index: int) -> None:
        """Put the top of the stack into the memo."""
        if len(self.memo) >= limits.MAX_MEMO:
            self.rebuilder.unsafe(f"it stores more than {limits.MAX_MEMO} objects")
        self.memo[index] = self.stack[-1]

    # --- globals, storages -----------------------------------------------------------------------------------------

    def find_global(self, module: object, name: object) -> object:
        """Return what stands for a class or function: its name, or an element type as `"torch.float16"`."""
        if type(module) is not str or type(name) is not str:
            self.note_refused(f"a global named by {describe(module)} and {describe(name)}")
            return GlobalName("?", "?", "refused")
        known = self._globals.get((module, name))
        if known is None:
            present = present_module(module)
            dtype = dtype_of_global(present, name)
            kind = kind_of(present, name, self.policy)
            found = GlobalName(present, name, kind)
            known = found if dtype is None else f"torch.{dtype}"
            self._globals[module, name] = known
            self.seen[found.full_name] = None
            if dtype is None and kind == "refused":
                only_modules = self.only_modules and kind_of(present, name, "modules") == "record"
                self.note_refused(found.full_name)
                self.only_modules = only_modules
        return known

    def note_refused(self, name: str) -> None:
        """Remember a refused name and go on."""
        self.seen[name] = None
        self.refused[name] = None
        self.rebuilder.refused = True
        self.only_modules = False

    def find_persistent(self, identifier: object) -> object:
        """Return what a persistent id stands for."""
        try:
            if self.persistent is None:
                self.rebuilder.unsafe("it refers to objects outside it (a persistent id)")
            return self.persistent(identifier)
        except ModelFileError:
            if not self.refused:
                raise
            return None
