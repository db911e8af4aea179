"""Text from files, made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: object, limit: int = 200) -> str:
    r"""Escape everything but printable ASCII, and cut: names in a file are the file's to choose, terminals are not.

    Look-alike letters show as escapes too (`\uff4fs.system`), so a refused name is read as what it is.
    """
    shown = str(text, "latin-1") if isinstance(text, bytes) else str(text)
    cut = shown[:limit]
    escaped = cut.encode("unicode_escape").decode("ascii")
    return escaped + ("…" if len(shown) > limit else "")


def listing(names: Iterable[str], limit: int = 40) -> str:
    """Join names with commas; beyond `limit` give their number."""
    every = list(names)
    rest = len(every) - limit
    return ", ".join(every[:limit]) + (f" and {rest} more" if rest > 0 else "")
