"""Single flight: one download of a file at a time, across threads and processes, where locks work.

A lock here saves bandwidth and nothing else. Where it silently does nothing the leases still keep most downloads
single; where it hangs, it is left aside once nobody is seen to work.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.05
HUNG_SECONDS = 15.0


def _file_lock(path: Path) -> Any:
    from filelock import FileLock

    return FileLock(str(path))


@contextlib.contextmanager
def _held(path: Path, timeout: float) -> Iterator[bool]:
    """Yields whether the lock is held, or True when the file system has none to give."""
    from filelock import Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _file_lock(path)
        lock.acquire(timeout=timeout, poll_interval=POLL_SECONDS)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield True
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            lock.release()


def single_flight(path: Path, ready: Callable[[], T | None], busy: Callable[[], bool], work: Callable[[], T]) -> T:
    """Does a piece of work unless somebody else is doing it, in which case their result is waited for.

    Args:
        path: Lock file.
        ready: The result, once it is there.
        busy: Whether a living worker is seen.
        work: Makes the result.
    """
    idle_since = time.monotonic()
    while True:
        done = ready()
        if done is not None:
            return done
        if busy():
            idle_since = time.monotonic()
        hung = time.monotonic() - idle_since > HUNG_SECONDS
        with _held(path, timeout=0.5) as held:
            if held or hung:
                idle = not busy()  # asked first: a worker stores its result, and gives up its lease after that
                done = ready()
                if done is not None:
                    return done
                if idle:
                    return work()
        time.sleep(POLL_SECONDS)
