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
    "DEFAULT_BYTES": "lensmount.caches.memory",
    "DiskCache": "lensmount.caches.disk",
    "MemoryCache": "lensmount.caches.memory",
    "dumps": "lensmount.caches.serial",
    "loads": "lensmount.caches.serial",
    "make_key": "lensmount.caches.keys",
}

if TYPE_CHECKING:
    from lensmount.caches.disk import DiskCache as DiskCache
    from lensmount.caches.keys import make_key as make_key
    from lensmount.caches.memory import DEFAULT_BYTES as DEFAULT_BYTES
    from lensmount.caches.memory import MemoryCache as MemoryCache
    from lensmount.caches.serial import dumps as dumps
    from lensmount.caches.serial import loads as loads

__all__ = [
    "DEFAULT_BYTES",
    "DiskCache",
    "MemoryCache",
    "dumps",
    "loads",
    "make_key",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
