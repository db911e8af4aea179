"""A registry that sees nothing of the machine's plugins, store or network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lensmount.registry import Registry

if TYPE_CHECKING:
    from lensmount.host.discovery import Candidate, PluginStatus

_UNSET = ("LENSMOUNT_PLUGINS", "LENSMOUNT_BLOCK_PLUGINS", "LENSMOUNT_STRICT", "LENSMOUNT_THREADS")


def isolate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points the store to a folder of its own, goes offline, and forgets the user's settings, until the test ends."""
    for name in _UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LENSMOUNT_HOME", str(home))
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")


class IsolatedRegistry(Registry):
    """A registry that discovers nothing until it is told what to."""

    def __init__(self) -> None:
        super().__init__(candidates=self._named)
        self._names: set[str] | None = set()

    def discover(self, *distributions: str) -> list[PluginStatus]:
        """Adds installed plugins.

        Args:
            *distributions: Names of distributions; none for every one that is installed.

        Returns:
            Their statuses, in the order of discovery.
        """
        if not distributions:
            self._names = None
        elif self._names is not None:
            self._names |= {_normal(name) for name in distributions}
        self.refresh()
        return [status for status in self.plugins() if status.module != "lensmount.host.builtin"]

    def _named(self) -> Iterable[Candidate]:
        from lensmount.host.discovery import find_entry_points

        names = self._names
        if names is not None and not names:
            return []
        return [c for c in find_entry_points() if names is None or _normal(c.status.distribution) in names]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
