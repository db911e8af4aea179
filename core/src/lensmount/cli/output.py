"""Consoles and small helpers of the commands. `NO_COLOR` and pipes are respected by rich itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError

__all__ = ["err", "out", "plain", "see", "size", "table", "write_atomically", "write_json"]

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def out() -> Console:
    """Console on standard output; as wide as it needs to be when it is not a terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 200))


def err() -> Console:
    """Console on standard error, for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(*columns: str, title: str | None = None) -> Table:
    """A table in the house style."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def plain(text: object, *, lines: bool = False) -> str:
    """Text that may come out of a file, as it is safe to show: control characters become escapes (but line breaks)."""
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )


def see(pages: Iterable[str]) -> None:
    """The last line after errors that were told one by one: where each kind of them is explained."""
    for page in sorted(set(pages)):
        err().print(f"see: lensmount errors {page}", markup=False)


def write_json(value: Any, target: str) -> None:
    """Writes JSON to a file, whole or not at all, or to standard output for `-`.

    Raises:
        InputError: The file cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if target == "-":
        print("".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text))
        return
    write_atomically(Path(target), (text + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that the user named, whole or not at all.

    Raises:
        InputError: The folder cannot be written.
    """
    from lensmount.store.files import write_atomic

    try:
        write_atomic(path, content)
    except OSError as error:
        raise InputError(
            f"cannot write {path}",
            found=str(error),
            fix="check that the folder exists and may be written, and that there is room",
        ) from error
