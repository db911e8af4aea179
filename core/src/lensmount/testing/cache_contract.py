"""What a cache promises."""

from __future__ import annotations


class CacheContract:
    """Subclass as `Test…` and set `cache`."""

    cache: str = ""
