"""The in-memory cache: least recently used, bounded by entries and by bytes, with a host tier below the device tier."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from lensmount.backend.tensors import measure, on_device, to_device, to_host
from lensmount.errors import OptionError
from lensmount.specs.options import is_whole

DEFAULT_BYTES = 512 * 1024 * 1024


class MemoryCache:
    """A thread-safe LRU cache.

    Values are handed out as they were put in, not copied: treat them as read-only.

    Args:
        max_entries: Most entries; a limit of 2 holds 2. None for no limit, 0 keeps nothing.
        max_bytes: Most bytes, by what the arrays and tensors keep alive. A value larger than this is not kept. None
            for no limit.
        send_to_cpu: Keeps tensors in host memory from the start, and moves them back to their device on `get`.
        host_entries: Entries of a second tier in host memory: values with device tensors that drop out of the first
            tier move there, and come back to their device on `get`. 0 for no such tier.
        host_bytes: Bytes of the second tier; None for no limit of its own.

    Raises:
        OptionError: A limit is negative or not an integer.
    """

    def __init__(
        self,
        max_entries: int | None = 256,
        max_bytes: int | None = DEFAULT_BYTES,
        *,
        send_to_cpu: bool = False,
        host_entries: int | None = 0,
        host_bytes: int | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._send_to_cpu = send_to_cpu
        self._first = _Tier("max_entries", max_entries, "max_bytes", max_bytes)
        self._host = _Tier("host_entries", host_entries, "host_bytes", host_bytes)

    def get(self, key: str) -> Any | None:
        """The value, on the device it was put in from, or None. Counts as a use."""
        with self._lock:
            value = self._first.get(key)
            if value is not None:
                return to_device(value) if self._send_to_cpu else value
            value = self._host.take(key)
            if value is None:
                return None
            value = to_device(value)
            self._store(key, value)
            return value

    def put(self, key: str, value: Any) -> None:
        """Stores a value (not None), and drops the least recently used ones that no longer fit."""
        with self._lock:
            self._host.take(key)
            self._store(key, to_host(value) if self._send_to_cpu else value)

    def _store(self, key: str, value: Any) -> None:
        for dropped, old in self._first.put(key, value):
            if self._host.max_entries != 0 and on_device(old):
                self._host.put(dropped, to_host(old))

    def clear(self) -> None:
        """Drops everything, in both tiers."""
        with self._lock:
            self._first.clear()
            self._host.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._first.entries) + len(self._host.entries)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._first.entries or key in self._host.entries

    @property
    def nbytes(self) -> int:
        """Bytes held, in both tiers."""
        with self._lock:
            return self._first.nbytes + self._host.nbytes


class _Tier:
    """One ordered map with its two bounds; not thread-safe by itself."""

    def __init__(self, entries_name: str, max_entries: int | None, bytes_name: str, max_bytes: int | None) -> None:
        self.max_entries = _limit(entries_name, max_entries)
        self.max_bytes = _limit(bytes_name, max_bytes)
        self.entries: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self.nbytes = 0

    def get(self, key: str) -> Any | None:
        entry = self.entries.get(key)
        if entry is None:
            return None
        self.entries.move_to_end(key)
        return entry[0]

    def take(self, key: str) -> Any | None:
        entry = self.entries.pop(key, None)
        if entry is None:
            return None
        self.nbytes -= entry[1]
        return entry[0]

    def put(self, key: str, value: Any) -> list[tuple[str, Any]]:
        """Stores, and returns what fell out; the new value itself when it alone is too large."""
        self.take(key)
        size = measure(value)
        if self.max_bytes is not None and size > self.max_bytes:
            return [(key, value)]
        self.entries[key] = (value, size)
        self.nbytes += size
        dropped = []
        while self._over():
            old, (item, bytes_) = self.entries.popitem(last=False)
            self.nbytes -= bytes_
            dropped.append((old, item))
        return dropped

    def _over(self) -> bool:
        too_many = self.max_entries is not None and len(self.entries) > self.max_entries
        return too_many or (self.max_bytes is not None and self.nbytes > self.max_bytes)

    def clear(self) -> None:
        self.entries.clear()
        self.nbytes = 0


def _limit(name: str, value: int | None) -> int | None:
    if value is not None and (not is_whole(value) or value < 0):
        raise OptionError(f"{name} is not valid", found=repr(value), expected="an integer from 0, or None for no limit")
    return value
