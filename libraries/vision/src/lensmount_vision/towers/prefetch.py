"""Work ahead of its consumer: pictures are decoded in threads while the network runs, and never too many at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def default_workers() -> int:
    """Threads that decode: as many as there are processors, at most four: decoding is seldom what one waits for."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        count = os.cpu_count() or 1
    return max(1, min(4, count))


def prefetch(
    items: Iterable[T], work: Callable[[T], R], *, ahead: int, workers: int | None = None
) -> Iterator[tuple[T, Callable[[], R]]]:
    """Does `work` on items in threads, in order, at most `ahead` of them beyond the one handed out.

    The iterable is drawn from in the caller's thread, and no faster than results are taken. Abandoning the iterator
    stops the work.

    Args:
        items: What to work on; may be endless.
        work: Runs in a thread.
        ahead: Most items being worked on, or done and not yet handed out.
        workers: Threads; None for `default_workers()`, 0 to do the work where the result is taken.

    Yields:
        Each item, and a function that waits for its result: it returns what `work` returned, or raises what it raised.
    """
    if workers == 0:
        for item in items:
            yield item, partial(work, item)
        return
    source = iter(items)
    pending: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(workers or default_workers(), thread_name_prefix="lensmount-decode")

    def top_up() -> None:
        with suppress(StopIteration):
            while len(pending) < ahead:
                item = next(source)
                pending.append((item, pool.submit(work, item)))

    try:
        top_up()
        while pending:
            item, future = pending.popleft()
            yield item, future.result
            del item, future  # what was handed out is the consumer's, not held here
            top_up()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Groups of `size`, the last one perhaps smaller."""
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def count_of(items: Any) -> int | None:
    """Number of items where it is known without drawing them."""
    try:
        return len(items)
    except TypeError:
        return None
