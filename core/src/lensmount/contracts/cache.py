"""The cache protocol: a bounded, thread-safe map from a key that covers everything to a value."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Cache(Protocol):
    """A bounded map. Keys are strings made by `lensmount.caches.keys.make_key`.

    Callers must not change the values they get: a cache may return the same objects that were put in.
    `lensmount_testing.CacheContract` tests what else is expected.
    """

    def get(self, key: str) -> Any | None:
        """The value, or None. Counts as a use."""

    def put(self, key: str, value: Any) -> None:
        """Stores a value, and drops the least recently used ones that no longer fit."""

    def clear(self) -> None:
        """Drops everything."""

    def __len__(self) -> int:
        """Number of entries."""
