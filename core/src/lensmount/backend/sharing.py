"""Sessions that several models of a process share: opened once, closed with the last model that holds them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from lensmount.contracts.session import Session, TensorSpec
from lensmount.errors import ClosedError


class _Opened:
    """Sessions of one network; they close when nobody holds this any more."""

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        self.sessions = dict(sessions)
        weakref.finalize(self, _close, list(self.sessions.values()))


def _close(sessions: list[Session]) -> None:
    for session in sessions:
        session.close()


_opened: weakref.WeakValueDictionary[Hashable, _Opened] = weakref.WeakValueDictionary()
_locks: dict[Hashable, threading.Lock] = {}
_guard = threading.Lock()


def share(key: Hashable, opener: Callable[[], Mapping[str, Session]]) -> dict[str, Session]:
    """Handles by name on the sessions that belong to a key, opened if no model holds them yet.

    The key covers all that decides what the sessions are; threads that ask for one key at once open it once. Closing
    all handles, or dropping them, lets go of the sessions.
    """
    with _guard:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        opened = _opened.get(key)
        if opened is None:
            opened = _Opened(opener())
            _opened[key] = opened
    return {name: SharedSession(opened, name) for name in opened.sessions}


class SharedSession:
    """One model's handle on a shared session; satisfies `lensmount.contracts.Session`."""

    def __init__(self, opened: _Opened, name: str) -> None:
        self._name = name
        self._opened: _Opened | None = opened
        session = opened.sessions[name]
        self.backend: str = session.backend
        self.device: str = session.device
        self.precision: str = session.precision
        self.provider: str = session.provider
        self.inputs: tuple[TensorSpec, ...] = session.inputs
        self.outputs: tuple[TensorSpec, ...] = session.outputs
        self.metadata: Mapping[str, str] = session.metadata

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once; see `lensmount.contracts.Session.run`.

        Raises:
            ClosedError: This handle was closed.
        """
        opened = self._opened
        if opened is None:
            raise ClosedError(f"session {self._name!r} was closed", fix="load the model again")
        return opened.sessions[self._name].run(feeds)

    def close(self) -> None:
        """Lets go of the session, which closes with its last handle."""
        self._opened = None
