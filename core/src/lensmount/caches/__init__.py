"""Caches for embeddings and other costly intermediate results.

* `MemoryCache` and `DiskCache` are the core's own; `lensmount.contracts.Cache` is what each promises;
* `make_key` makes a key from everything that changes a value (keys of pictures: `lensmount_vision.images`);
* `dumps` and `loads` turn values into bytes and back for caches that lie elsewhere: data only, nothing is unpickled.

Plugins and vision import it; it imports `contracts`, `backend`, `specs` and `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount.caches.disk": ("DiskCache",),
    "lensmount.caches.keys": ("make_key",),
    "lensmount.caches.memory": ("DEFAULT_BYTES", "MemoryCache"),
    "lensmount.caches.serial": ("dumps", "loads"),
}

if TYPE_CHECKING:
    from lensmount.caches.disk import DiskCache
    from lensmount.caches.keys import make_key
    from lensmount.caches.memory import DEFAULT_BYTES, MemoryCache
    from lensmount.caches.serial import dumps, loads

__all__ = ["DEFAULT_BYTES", "DiskCache", "MemoryCache", "dumps", "loads", "make_key"]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
