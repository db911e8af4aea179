"""Text from files, made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), dict: ("{", "}")}
_MAX_BITS = 4_096
"""Longer integers are described: Python refuses to write more than 4,300 digits, and takes long over fewer."""


def printable(value: object, limit: int = 200) -> str:
    r"""Escape everything but printable ASCII, and cut: names in a file are the file's to choose, terminals are not.

    Look-alike letters show as escapes too (`\uff4fs.system`), so a refused name is read as what it is. No more of the
    value is looked at than is shown: a tuple of 60 levels that holds the one below it twice has 2**60 ends, and a list
    can hold itself.

    Args:
        value: A text or bytes; an exception, for what it says; else anything that a file holds, shown as `repr` would.
        limit: Characters of the value that are shown, before they are escaped.
    """
    shown = _beginning(value, limit + 1)
    return shown[:limit].encode("unicode_escape").decode("ascii") + ("…" if len(shown) > limit else "")


def plain_text(value: object) -> str:
    """The text of a name in a file, which is a text or a number.

    Raises:
        TypeError: It is anything else: a container's text may have no end.
    """
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, (int, float)) and not _is_long(value)):
        return str(value)
    raise TypeError(f"{printable(value)} is no name")


def listing(names: Iterable[str], limit: int = 40) -> str:
    """Join names with commas; beyond `limit` give their number."""
    every = iter(names)
    first = list(islice(every, limit))
    rest = sum(1 for _ in every)
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


def _beginning(value: object, count: int) -> str:
    """The first characters of a value's text, and at most a few more."""
    if isinstance(value, BaseException):
        if type(value).__str__ not in (BaseException.__str__, KeyError.__str__):
            return str(value)[:count]
        if not value.args:
            return ""
        value = value.args[0] if len(value.args) == 1 else value.args
    if isinstance(value, str):
        return str(value[:count])
    if isinstance(value, (bytes, bytearray)):
        return str(value[:count], "latin-1")
    shown: list[str] = []
    pending: list[Iterator[object]] = [iter((value,))]
    while pending and count > 0:
        for part in pending[-1]:
            text = part.text if type(part) is _Mark else _leaf(part, count)
            if text is None:
                pending.append(_inside(part))
                break
            shown.append(text)
            count -= len(text)
            if count <= 0:
                break
        else:
            pending.pop()
    return "".join(shown)


class _Mark:
    """Punctuation between the parts of a container."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _leaf(value: object, count: int) -> str | None:
    """The text of what has no parts, None for containers."""
    if isinstance(value, (str, bytes, bytearray)):
        return repr(value[:count])
    if _is_long(value):
        return f"<an integer of {value.bit_length()} bits>"  # type: ignore[attr-defined]  # is an int
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return None
    return repr(value)[:count]


def _is_long(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > _MAX_BITS


def _inside(value: Any) -> Iterator[object]:
    """A container's parts with the punctuation between them, one at a time."""
    before, after = next((_BRACKETS[kind] for kind in _BRACKETS if isinstance(value, kind)), ("frozenset({", "})"))
    if isinstance(value, (set, frozenset)) and not value:
        before, after = f"{type(value).__name__}(", ")"
    yield _Mark(before)
    for index, part in enumerate(value):
        if index:
            yield _Mark(", ")
        yield part
        if isinstance(value, dict):
            yield _Mark(": ")
            yield value[part]
    if isinstance(value, tuple) and len(value) == 1:
        yield _Mark(",")
    yield _Mark(after)
