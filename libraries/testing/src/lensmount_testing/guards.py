"""What a piece of code does behind one's back: sockets, files written, processes started, pickles read.

Python's audit events tell it, also of C code and of names that were imported long before. An audit hook cannot be taken
away again, so there is one for the process, set by the first guard, which does nothing while no guard is open.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")
_ALTERS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_RESOLVES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_open: list[_Guard] = []
_installed = threading.Lock()
_hooked = False


class RefusedError(Exception):
    """Something was tried that the promise under test forbids."""


def kind_of(event: str, arguments: tuple[object, ...]) -> str | None:
    """Sorts an audit event: `socket`, `write`, `process`, `pickle`, or None for what is of no interest."""
    if event == "open":
        return "write" if _writes(*arguments[:3]) else None
    if event == "socket.__new__":
        return "socket" if arguments[1] in (socket.AF_INET, socket.AF_INET6) else None
    if event in _RESOLVES:
        return "socket"
    if event in _ALTERS:
        return "write"
    if event.startswith(_STARTS):
        return "process"
    return "pickle" if event == "pickle.find_class" else None


def _writes(path: object, mode: object = None, flags: object = 0) -> bool:
    if path == os.devnull:
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITING)


class _Guard:
    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self.seen: list[str] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _open:
        return
    kind = kind_of(event, arguments)
    if kind is None:
        return
    for guard in list(_open):
        if kind in guard.kinds:
            guard.seen.append(f"{event} {arguments!r}"[:200])
            raise RefusedError(f"{event} {arguments!r}"[:200])


@contextmanager
def refused(*kinds: str) -> Iterator[list[str]]:
    """Refuses kinds of events in the whole process, and records each that was tried, also if its error was caught.

    Args:
        *kinds: Of `socket`, `write`, `process`, `pickle`.

    Yields:
        What was tried; look at it after the block.
    """
    global _hooked
    with _installed:
        if not _hooked:
            sys.addaudithook(_audit)
            _hooked = True
    guard = _Guard(kinds)
    _open.append(guard)
    try:
        yield guard.seen
    finally:
        _open.remove(guard)


@contextmanager
def forbidden(*kinds: str, saying: str) -> Iterator[None]:
    """As `refused`, and fails when something was tried, with `saying` and what it was.

    Raises:
        AssertionError: Something was tried, even where the error was caught.
    """
    with refused(*kinds) as tried:
        try:
            yield
        except Exception as error:
            if tried:
                raise AssertionError(f"{saying}: {tried[0]}") from error
            raise
    if tried:
        raise AssertionError(f"{saying}: {tried[0]}")
