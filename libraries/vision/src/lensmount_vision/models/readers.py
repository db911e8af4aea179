"""What a stream reads: pictures one after another, videos frame by frame, cameras side by side.

A *lane* is one thing that is read in order. Files and videos that are listed together share a lane and come one after
another; every live source has a lane and a reading thread of its own, so that a camera that hangs or dies delays no
other.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ImageError
from lensmount_vision.images.arrays import is_array, is_pil
from lensmount_vision.images.image import Color, Image
from lensmount_vision.images.loading import load
from lensmount_vision.images.sources import STREAM_SCHEMES, Frame, expand_sources, is_video, shown, video_frames

if TYPE_CHECKING:
    from lensmount.specs import Preprocess

_JOIN_SECONDS = 2.0
_QUEUE = 2


@dataclass(frozen=True, slots=True)
class Feed:
    """Frames from code of one's own (GStreamer, a camera's SDK), as a source of a stream.

    Attributes:
        name: Shown in results and errors.
        frames: Starts reading: gives an iterable of frames, each a `images.sources.Frame` or anything that
            `lensmount_vision.images.loading.load` takes. Called and drawn from in a thread of the stream's.
        live: Whether frames that nobody has time for may be left out.
    """

    name: str
    frames: Callable[[], Iterable[Any]]
    live: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One picture or frame that is still to be decoded.

    Attributes:
        source: Path, address, camera or name that it comes from.
        load: Gives the picture, or raises `ImageError`.
        frame: Number of the frame, for videos and cameras.
        seconds: Its time in the video, or since the camera was opened.
        live: Whether it comes from a live source.
        dropped: Frames of this source left out just before it.
    """

    source: str
    load: Callable[[], Image]
    frame: int | None = None
    seconds: float | None = None
    live: bool = False
    dropped: int = 0


class Reader:
    """Gives items from all lanes, and stops when told to.

    Args:
        source: What the caller named; see `lensmount_vision.models.streaming.stream`.
        latest: True to keep only the newest frame of every source, False to keep all, None for what each is.
        color: Channel order of arrays and tensors.
        max_frames: Most frames of one video or camera.
        reduced_for: See `lensmount_vision.images.loading.load`.

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
    ) -> None:
        entries, self.total = entries_of(source)
        if latest and not isinstance(entries, list):  # the caller's own frames, as they come
            given = entries
            entries = [Feed("frames", lambda: given, live=True)]
        beside = [e for e in entries if isinstance(e, Feed) and (e.live or latest)] if isinstance(entries, list) else []
        rest = [e for e in entries if not any(e is feed for feed in beside)] if beside else entries
        items = partial(_items, color=color, max_frames=max_frames, reduced_for=reduced_for)
        self.live = bool(beside)
        self._lanes: list[_Lane] = []
        self._turn = 0
        self._changed = threading.Condition()
        self._closed = False
        self._sequence: Iterator[Item] | None = None if beside else items(rest)
        if beside and rest:
            self._lanes.append(_Lane(items(rest), False, self._changed))
        self._lanes += [_Lane(items([feed]), latest is not False, self._changed) for feed in beside]

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


# --- what the caller named --------------------------------------------------------------------------------------------


def entries_of(source: Any) -> tuple[Iterable[Any], int | None]:
    """A source as single pictures and feeds, and how many pictures that is, where it is known; nothing is opened.

    Raises:
        ImageError: A folder or glob holds no pictures.
    """
    if isinstance(source, (str, os.PathLike, int)):
        return _expanded([source])
    if isinstance(source, (Feed, Image, bytes, bytearray, memoryview)) or is_pil(source):
        return _expanded([source])
    if is_array(source):
        return _expanded(list(source) if source.ndim == 4 else [source])
    if isinstance(source, (list, tuple)):
        return _expanded(list(source))
    if isinstance(source, Iterable) and not isinstance(source, (dict, set, frozenset)):
        return source, None
    return _expanded([source])  # a file object; or no picture at all, which becomes an error record


def _expanded(entries: list[Any]) -> tuple[list[Any], int | None]:
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, (str, os.PathLike, int)):
            found.append(entry)
        elif isinstance(entry, int):
            found.append(_video(entry))
        else:
            found += [_video(name) if is_video(name) else name for name in expand_sources(entry)]
    return found, None if any(isinstance(entry, Feed) for entry in found) else len(found)


def _video(name: str | int) -> Feed:
    text = str(name)
    camera = text.isdecimal() and not Path(text).exists()
    return Feed(text, partial(video_frames, name), live=camera or text.lower().startswith(STREAM_SCHEMES))


def _items(
    entries: Iterable[Any], color: Color | None, max_frames: int | None, reduced_for: Preprocess | None
) -> Iterator[Item]:
    for index, entry in enumerate(entries):
        if isinstance(entry, Feed):
            yield from _frames(entry, color, max_frames)
        elif isinstance(entry, (str, os.PathLike)) and is_video(entry):  # from a generator
            yield from _frames(_video(os.fspath(entry)), color, max_frames)
        else:
            name = os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else getattr(entry, "path", None)
            yield Item(str(name or f"image {index}"), partial(load, entry, color=color, reduced_for=reduced_for))


def _frames(feed: Feed, color: Color | None, max_frames: int | None) -> Iterator[Item]:
    start = time.monotonic()
    number = -1
    try:
        for number, entry in enumerate(feed.frames()):
            if max_frames is not None and number >= max_frames:
                return
            if isinstance(entry, Frame):
                yield Item(feed.name, partial(load, entry.image), entry.number, entry.seconds, feed.live)
            else:
                seconds = time.monotonic() - start
                yield Item(feed.name, partial(load, entry, color=color), number, seconds, feed.live)
    except ImageError as error:  # one bad video is an item that fails, like one bad picture
        yield Item(feed.name, partial(_fail, error), live=feed.live)
        return
    if feed.live:
        problem = f"{shown(feed.name)} gives no more frames"
        ended = ImageError(problem, found=f"{number + 1} frames before", fix="check the camera and the network")
        yield Item(feed.name, partial(_fail, ended), live=True)


def _fail(error: Exception) -> Image:
    raise error
