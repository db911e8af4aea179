"""Caches for embeddings and other costly intermediate results.

* `Cache` is what each promises; `MemoryCache` and `DiskCache` are the core's own;
* `make_key` makes a key from everything that changes a value; `source_key` and `content_key` that of a picture;
* `dumps` and `loads` turn values into bytes and back for caches that lie elsewhere: data only, nothing is unpickled.

Names are resolved on first use (PEP 562): `Cache` alone needs no numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "Cache": "base",
    "DiskCache": "disk",
    "MemoryCache": "memory",
    "content_key": "sources",
    "dumps": "serial",
    "image_key": "keys",
    "loads": "serial",
    "make_key": "keys",
    "source_key": "sources",
}

if TYPE_CHECKING:
    from lensmount.caches.base import Cache as Cache
    from lensmount.caches.disk import DiskCache as DiskCache
    from lensmount.caches.keys import image_key as image_key
    from lensmount.caches.keys import make_key as make_key
    from lensmount.caches.memory import MemoryCache as MemoryCache
    from lensmount.caches.serial import dumps as dumps
    from lensmount.caches.serial import loads as loads
    from lensmount.caches.sources import content_key as content_key
    from lensmount.caches.sources import source_key as source_key

__all__ = [*sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"lensmount.caches.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'lensmount.caches' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
