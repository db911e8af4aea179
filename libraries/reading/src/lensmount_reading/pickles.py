"""A machine that reads pickles, protocols 0 to 5, and runs nothing.

Why not `pickle.Unpickler` with `find_class` closed off: it still *calls* what it was given (`REDUCE`), sets attributes
on it (`BUILD`), appends through any object's methods, consults the process-wide extension registry, and lets a
40-byte file allocate gigabytes (memo index, frame and length prefixes). Why not `torch.load(weights_only=True)`: it
needs torch, stops at the first refused name, cannot keep module trees, and imports whatever other code in the process
has allowed. Here every opcode is written out (`opcodes`); a global is a name (`GlobalName`), an object of an allowed
class is a `Record`, and the few constructors that matter are done by `rebuild.Rebuilder` on plain data. Nothing is
looked up, imported, called or set on the file's behalf, so the worst a hostile file can do is to be refused.

Refused names do not stop the machine: it goes on, inertly, to the end, so that an error lists all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.machine import Machine
from lensmount_reading.opcodes import HANDLERS
from lensmount_reading.records import Record
from lensmount_reading.text import listing


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
        tree = machine.run(HANDLERS)
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
