"""Work done in threads ahead of its consumer: handed out in order, never too much at once, stopped when abandoned."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_WAIT_SECONDS = 0.5  # waits are cut into pieces, so that Ctrl-C works where a lock's wait cannot be interrupted
_CLOSE_SECONDS = 5.0


def in_order(
    items: Iterable[T],
    work: Callable[[T], R],
    *,
    workers: int,
    ahead: int,
    interrupt: Callable[[], None] | None = None,
) -> Generator[tuple[T, Callable[[], R]], None, None]:
    """Does `work` on items in threads and hands the results out in the items' order.

    Args:
        items: What to work on; may be endless. It is drawn from no faster than results are taken.
        work: Runs in a thread.
        workers: Threads; 0 to do the work where the result is taken.
        ahead: Most items drawn and not yet done with: being worked on, waiting to be handed out, or handed out last.
        interrupt: For items that have to be waited for (a camera's): they are drawn in a thread of their own, and this
            ends its wait; it may be called from any thread. None draws them in the consumer's thread.

    Yields:
        Each item, and a function that returns what `work` returned, or raises what it raised. An error of `items` is
        raised in its turn. Closing the iterator stops the work.
    """
    if workers == 0:
        for item in items:
            yield item, partial(work, item)
        return
    run = _Run(iter(items), work, workers, ahead)
    drawer = None
    if interrupt is not None:
        drawer = threading.Thread(target=run.draw_all, name="lensmount-feeder", daemon=True)
        drawer.start()
    try:
        while True:
            if drawer is None:
                run.draw(wait_for_room=False)
            entry = run.next()
            if entry is None:
                break
            yield entry
            del entry  # what was handed out is the consumer's, not held here
            run.done()
    finally:
        run.stopped.set()
        if drawer is not None and interrupt is not None:
            interrupt()
            run.room.release()
            drawer.join(_CLOSE_SECONDS)
        run.close()


class _Run:
    """Items drawn, their futures in order, and the threads that work on them."""

    def __init__(self, items: Iterator[Any], work: Callable[[Any], Any], workers: int, ahead: int) -> None:
        self._items = items
        self._work = work
        self._pool = ThreadPoolExecutor(workers, "lensmount-stream")
        self._ready: queue.SimpleQueue[tuple[Any, Future[Any]] | BaseException | None] = queue.SimpleQueue()
        self._current: Future[Any] | None = None
        self._ended = False
        self.room = threading.Semaphore(ahead)
        self.stopped = threading.Event()

    def draw(self, *, wait_for_room: bool) -> None:
        """Draws items while there is room; `wait_for_room` goes on until they end or the run is stopped."""
        while not self._ended and self.room.acquire(blocking=wait_for_room):
            if self.stopped.is_set():
                return
            try:
                item = next(self._items)
            except Exception as error:
                self._ended = True
                self._ready.put(None if isinstance(error, StopIteration) else error)
                return
            if self.stopped.is_set():
                return
            self._ready.put((item, self._pool.submit(self._work, item)))
            del item  # it is the consumer's as soon as it is handed out

    def draw_all(self) -> None:
        """`draw` in a thread of its own: what fails is raised where the results are taken."""
        last: BaseException | None = None
        try:
            self.draw(wait_for_room=True)
        except BaseException as error:
            last = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            self._ready.put(last)

    def next(self) -> tuple[Any, Callable[[], Any]] | None:
        """The next item with its result, once that is there; None after the last."""
        while True:
            try:
                entry = self._ready.get(timeout=_WAIT_SECONDS)
                break
            except queue.Empty:
                continue
        if isinstance(entry, BaseException):
            raise entry
        if entry is None:
            return None
        item, self._current = entry
        while not self._current.done():
            wait([self._current], _WAIT_SECONDS)
        return item, self._current.result

    def done(self) -> None:
        """Forgets what was handed out last, which makes room for one more."""
        self._current = None
        self.room.release()

    def close(self) -> None:
        """Drops what was not begun, and waits for what was; a thread that hangs is left behind."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        left = [] if self._current is None else [self._current]
        while not self._ready.empty():
            entry = self._ready.get()
            if isinstance(entry, tuple):
                left.append(entry[1])
        begun = [future for future in left if not future.cancelled()]
        if not wait(begun, _CLOSE_SECONDS).not_done:
            self._pool.shutdown(wait=True)


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
