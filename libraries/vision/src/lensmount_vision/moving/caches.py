"""Caches under the names of inference-models: they make our caches, with that library's defaults."""

from __future__ import annotations

from lensmount.caches import MemoryCache


class InMemoryCache:
    """`init(size_limit=…)` makes a cache for one use of a model: embeddings of pictures, masks, classes.

    The entries of what it makes are kept in host memory unless `send_to_cpu=False`, as inference-models does; caches
    that `registry.load` is given keep them where they are. The least recently used entry goes first.
    """

    @staticmethod
    def init(size_limit: int | None, send_to_cpu: bool = True) -> MemoryCache:
        """A cache of `size_limit` entries; None for a bound by bytes alone (512 MB)."""
        return MemoryCache(size_limit, send_to_cpu=send_to_cpu)


class NoCache(MemoryCache):
    """A cache that keeps nothing."""

    def __init__(self) -> None:
        super().__init__(0)
