"""What a pickle's classes and functions become: names with data, and nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping

from lensmount_reading.text import printable


class GlobalName:
    """A class or function that a pickle refers to, by name only; nothing is looked up.

    Attributes:
        module: Module as written in the file (Python 2's `__builtin__` and `copy_reg` under their present names).
        name: Name within the module.
        kind: `"record"` for a class whose instances become records, `"call"` for one this package interprets itself,
            `"storage"`, or `"refused"`.
    """

    __slots__ = ("kind", "module", "name")

    def __init__(self, module: str, name: str, kind: str) -> None:
        self.module = module
        self.name = name
        self.kind = kind

    @property
    def full_name(self) -> str:
        """Return `module.name`, fit to be shown."""
        return _full_name(self.module, self.name)

    def __repr__(self) -> str:
        return f"GlobalName({self.full_name})"


class Record:
    """An object of a class that is not imported: the class's name, what it was made from, and its state.

    Attributes:
        module: The class's module.
        name: The class's name.
        args: What its constructor would have been given.
        state: Its attributes, usually a dict; None where the file gives none.
    """

    __slots__ = ("args", "module", "name", "state")

    def __init__(self, module: str, name: str, args: tuple[object, ...] = (), state: object = None) -> None:
        self.module = module
        self.name = name
        self.args = args
        self.state = state

    @property
    def full_name(self) -> str:
        """Return `module.name`, fit to be shown."""
        return _full_name(self.module, self.name)

    @property
    def attributes(self) -> Mapping[str, object]:
        """Its state where that is a dict, else an empty mapping."""
        return self.state if isinstance(self.state, dict) else {}

    def get(self, name: str, default: object = None) -> object:
        """Return an attribute, a parameter, a buffer or a submodule of this name, as `getattr` on a module would."""
        attributes = self.attributes
        if name in attributes:
            return attributes[name]
        for group in ("_parameters", "_buffers", "_modules"):
            members = attributes.get(group)
            if isinstance(members, dict) and name in members:
                return members[name]
        return default

    def __repr__(self) -> str:
        # Attributes may refer back to this record, so only their number is shown.
        return f"Record({self.full_name}, {len(self.attributes)} attributes)"


def _full_name(module: str, name: str) -> str:
    # Cut before they are joined: a file may use one long text for a million names.
    return printable(f"{module[:201]}.{name[:201]}")


def describe(value: object) -> str:
    """What a value is, for messages."""
    if isinstance(value, GlobalName):
        return value.full_name
    if isinstance(value, Record):
        return f"a {value.full_name}"
    kind = type(value).__name__.lower()
    return "None" if value is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
