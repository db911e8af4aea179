"""Hooks: one kind of cache."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import CacheProvider, hookimpl


@hookimpl
def lensmount_caches() -> Iterable[CacheProvider]:
    """`redis`."""
    yield CacheProvider(
        name="redis",
        factory="lensmount_redis_cache.cache:RedisCache",
        description="on a Redis server, shared by processes and machines",
    )
