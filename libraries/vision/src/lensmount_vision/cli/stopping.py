"""Ctrl-C: what was done stays whole, is said, and the exit status tells a script that it was not all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended before it was done: 128 + the signal's number, as in shells."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back while a result is put into several files, so that all of them have it or none.

    Raises:
        KeyboardInterrupt: At the end, where Ctrl-C was pressed meanwhile; at once at the second time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def note(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    earlier = signal.getsignal(signal.SIGINT)
    if earlier in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
    if pressed:
        raise KeyboardInterrupt


def leave(done: int, total: int | None, what: str) -> NoReturn:
    """Says how far it came, and ends the command.

    Args:
        done: How many were done.
        total: Of how many; None where nobody knows.
        what: What was counted, in the plural.

    Raises:
        typer.Exit: Always, with status 130.
    """
    from lensmount.cli.output import err

    every = "" if total is None or total < done else f" of {total}"
    err().print(f"stopped after {done}{every} {what}; what is written holds these", markup=False, soft_wrap=True)
    raise typer.Exit(INTERRUPTED)
