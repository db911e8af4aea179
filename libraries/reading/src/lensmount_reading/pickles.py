"""A machine that reads pickles, protocols 0 to 5, and runs nothing.

Why not `pickle.Unpickler` with `find_class` closed off: it still *calls* what it was given (`REDUCE`), sets attributes
on it (`BUILD`), appends through any object's methods, consults the process-wide extension registry, and lets a
40-byte file allocate gigabytes (memo index, frame and length prefixes). Why not `torch.load(weights_only=True)`: it
needs torch, stops at the first refused name, cannot keep module trees, and imports whatever other code in the process
has allowed. Here every opcode is written out below; a global is a name (`GlobalName`), an object of an allowed class
is a `Record`, and the few constructors that matter are done by `rebuild.Rebuilder` on plain data. Nothing is looked
up, imported, called or set on the file's behalf, so the worst a hostile file can do is to be refused.

Refused names do not stop the machine: it goes on, inertly, to the end, so that an error lists all of them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.allowed import dtype_of_global, kind_of, present_module
from lensmount_reading.opcodes import HANDLERS, STOP
from lensmount_reading.rebuild import Rebuilder
from lensmount_reading.records import GlobalName, Record, describe
from lensmount_reading.text import listing, printable

_DECIMAL = re.compile(rb"[-+]?[0-9]+", re.ASCII)


@dataclass(frozen=True)
class PickleScan:
    """All that was found in one pickle.

    Attributes:
        tree: The object; None where there is a problem.
        end: Offset after `STOP` (or where reading ended).
        globals: Every class and function named, in order.
        refused: Those that are not allowed, in order.
        problem: Why it cannot be used, or None.
        declared_bytes: Bytes of all tensors it describes, packed.
        calls: How often it calls a class or function.
    """

    tree: object
    end: int
    globals: tuple[str, ...]
    refused: tuple[str, ...]
    problem: ModelFileError | None
    declared_bytes: int
    calls: int = 0

    def checked(self) -> object:
        """Return the tree, or raise the problem."""
        if self.problem is not None:
            raise self.problem
        return self.tree


def scan_pickle(
    data: bytes, *, where: str, policy: str, persistent: Callable[[object], object] | None = None, start: int = 0
) -> PickleScan:
    """Read one pickle to its `STOP`; never raises for anything in the data.

    Args:
        data: Bytes with the pickle in them.
        where: The file and entry, for messages.
        policy: One of `allowed.POLICIES`.
        persistent: Answers persistent ids (torch's storages); without it they are refused.
        start: Offset of the pickle's first byte.
    """
    machine = Machine(data, where=where, policy=policy, persistent=persistent, start=start)
    tree: object = None
    problem: ModelFileError | None = None
    try:
        tree = machine.run()
        check_depth(tree, where)
    except ModelFileError as error:
        problem = error
    if machine.refused:
        problem = _refusal(machine)
    return PickleScan(
        tree if problem is None else None,
        machine.position,
        tuple(machine.seen),
        tuple(machine.refused),
        problem,
        machine.rebuilder.declared_bytes,
        machine.rebuilder.calls,
    )


def _refusal(machine: Machine) -> UnsafeFileError:
    names = listing(machine.refused)
    fix = "do not use this file; ask its maker for safetensors or a plain state dict"
    if machine.policy == "plain" and machine.only_modules:
        fix = "it holds a whole pickled model, which a plugin for its architecture reads as modules='records'"
    return UnsafeFileError(
        f"{machine.where} is refused: it asks for {names}",
        found=names,
        expected="tensors, plain containers and classes of known model code",
        fix=fix,
    )


class Machine:
    """The state of one pickle being read: position, stack, memo. The opcodes are in `opcodes`."""

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

    def run(self) -> object:
        """Read to `STOP` and return what is on the stack.

        Raises:
            ModelFileError: Truncated, malformed, or more than the limits allow (then `UnsafeFileError`).
        """
        data, table = self.data, HANDLERS
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
                table[opcode](self)
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
            self.rebuilder.malformed(f"{printable(line)} is not an integer of a bearable size")
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


def check_depth(tree: object, where: str) -> None:
    """Raise `UnsafeFileError` where containers nest deeper than `limits.MAX_DEPTH`; cycles are cut, no recursion."""
    depths: dict[int, int] = {}
    path: list[tuple[object, list[object]]] = []

    def enter(value: object) -> None:
        depths[id(value)] = 0  # while 0, it is on the path
        path.append((value, [part for part in parts_of(value) if type(part) in _CONTAINERS]))

    if type(tree) in _CONTAINERS:
        enter(tree)
    while path:
        value, pending = path[-1]
        if len(path) > limits.MAX_DEPTH:
            raise UnsafeFileError(
                f"{where} is refused: its containers nest deeper than {limits.MAX_DEPTH}",
                fix="do not use this file; ask its maker for safetensors",
            )
        while pending and id(pending[-1]) in depths:
            part = pending.pop()
            depths[id(value)] = max(depths[id(value)], depths[id(part)])
        if pending:
            enter(pending.pop())
            continue
        path.pop()
        depths[id(value)] += 1
        if path:
            above = id(path[-1][0])
            depths[above] = max(depths[above], depths[id(value)])
        if depths[id(value)] > limits.MAX_DEPTH:
            raise UnsafeFileError(
                f"{where} is refused: its containers nest deeper than {limits.MAX_DEPTH}",
                fix="do not use this file; ask its maker for safetensors",
            )


_CONTAINERS = frozenset({dict, list, tuple, set, frozenset, Record})


def parts_of(value: object) -> list[object]:
    """Return what a container holds directly: values, keys that are tuples, a record's arguments and state."""
    if isinstance(value, dict):
        return [*value.values(), *(key for key in value if type(key) is tuple)]
    if isinstance(value, Record):
        return [value.args, value.state]
    return list(value)  # type: ignore[call-overload,no-any-return]  # callers pass containers only
