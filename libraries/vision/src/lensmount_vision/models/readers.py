"""What a stream reads: pictures one after another, videos frame by frame, cameras side by side.

A *lane* is one thing that is read in order. Files and videos that are listed together share a lane and come one after
another; every live source has a lane and a reading thread of its own, so that a camera that hangs or dies delays no
other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lensmount_vision.models.entries import Feed, Item, entries_of, items_of

if TYPE_CHECKING:
    from lensmount.specs import Preprocess
    from lensmount_vision.images.image import Color

_JOIN_SECONDS = 2.0
_QUEUE = 2


class Reader:
    """Gives items from all lanes, and stops when told to.

    Args:
        source: What the caller named; see `lensmount_vision.models.streaming.stream`.
        latest: True to keep only the newest frame of every source, False to keep all, None for what each is.
        color: Channel order of arrays and tensors.
        max_frames: Most frames of one video or camera.
        reduced_for: See `lensmount_vision.images.loading.load`.
        channels: See `lensmount_vision.images.loading.load`.

    Raises:
        ImageError: A folder or glob holds no pictures.
    """

    def __init__(
        self,
        source: Any,
        *,
        latest: bool | None = None,
        color: Color | None = None,
        max_frames: int | None = None,
        reduced_for: Preprocess | None = None,
        channels: int = 3,
    ) -> None:
        entries, self.total = entries_of(source)
        if latest and not isinstance(entries, list):  # the caller's own frames, as they come
            given = entries
            entries = [Feed("frames", lambda: given, live=True)]
        listed = entries if isinstance(entries, list) else []
        threaded = [entry for entry in listed if isinstance(entry, Feed) and (entry.live or latest)]
        rest = [e for e in entries if not any(e is feed for feed in threaded)] if threaded else entries
        items = partial(items_of, color=color, max_frames=max_frames, reduced_for=reduced_for, channels=channels)
        self.live = bool(threaded)
        self._lanes: list[_Lane] = []
        self._turn = 0
        self._changed = threading.Condition()
        self._closed = False
        self._sequence: Iterator[Item] | None = None if threaded else items(rest)
        if threaded and rest:
            self._lanes.append(_Lane(items(rest), False, self._changed))
        self._lanes += [_Lane(items([feed]), latest is not False, self._changed) for feed in threaded]

    def take(self, count: int) -> list[Item]:
        """Waits for the next items: as many as asked for from files, as many as there are from live sources.

        Returns:
            The items; none when all lanes have ended or the reader was closed.
        """
        if self._sequence is not None:
            return self._from_sequence(count)
        with self._changed:
            while not self._closed:
                found = self._fresh(count)
                if found:
                    self._changed.notify_all()
                    return found
                if all(lane.ended for lane in self._lanes):
                    break
                self._changed.wait(0.5)
        return []

    def _from_sequence(self, count: int) -> list[Item]:
        assert self._sequence is not None
        found: list[Item] = []
        while len(found) < count and not self._closed:
            item = next(self._sequence, None)
            if item is None:
                break
            found.append(item)
        return found

    def _fresh(self, count: int) -> list[Item]:
        """One item of each lane in turn, the lane after the one served last first; the lock is held."""
        found: list[Item] = []
        for _ in range(len(self._lanes)):
            if len(found) == count:
                break
            lane = self._lanes[self._turn % len(self._lanes)]
            self._turn += 1
            item = lane.pop()
            if item is not None:
                found.append(item)
        return found

    def groups(self, size: int) -> Iterator[tuple[int, list[Item]]]:
        """What `take` gives until all lanes have ended, each time with the number of the first item; then closes."""
        first = 0
        try:
            while items := self.take(size):
                yield first, items
                first += len(items)
        finally:
            self.close()

    def stop(self) -> None:
        """Ends every wait; may be called from any thread."""
        with self._changed:
            self._closed = True
            for lane in self._lanes:
                lane.stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Releases files and captures; called by the thread that calls `take`, after `stop` or at the end."""
        self.stop()
        if self._sequence is not None:
            _close(self._sequence)
        deadline = time.monotonic() + _JOIN_SECONDS
        for lane in self._lanes:
            # A reader that hangs in the driver is left to end by itself: it is a daemon and holds no lock of ours.
            lane.thread.join(max(0.0, deadline - time.monotonic()))


class _Lane:
    """A thread that reads one source into a few places: the newest frame alone, or all in order with a bound."""

    def __init__(self, items: Iterator[Item], latest: bool, changed: threading.Condition) -> None:
        self._source = items
        self._latest = latest
        self._changed = changed
        self._waiting: deque[Item] = deque()
        self._done = False
        self._failure: BaseException | None = None
        self.stopped = False
        self.thread = threading.Thread(target=self._read, name="lensmount-reader", daemon=True)
        self.thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self._done and not self._waiting

    def pop(self) -> Item | None:
        """The next item, if there is one; the lock is held.

        Raises:
            BaseException: What the source's own code raised.
        """
        if self._waiting:
            return self._waiting.popleft()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return None

    def _read(self) -> None:
        failure: BaseException | None = None
        try:
            for item in self._source:
                with self._changed:
                    self._put(item)
                    if self.stopped:
                        break
        except BaseException as error:  # handed to the thread that takes
            failure = error
        finally:
            _close(self._source)
            with self._changed:
                self._failure, self._done = failure, True
                self._changed.notify_all()

    def _put(self, item: Item) -> None:
        if self._latest and item.frame is not None:
            item = replace(item, dropped=sum(old.dropped + 1 for old in self._waiting))
            self._waiting.clear()
        while not self.stopped and len(self._waiting) >= _QUEUE:
            self._changed.wait(0.5)
        self._waiting.append(item)
        self._changed.notify_all()


def _close(items: Iterator[Item]) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()
