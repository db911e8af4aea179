"""The source of a stream, as the caller names it, to single pictures and feeds of frames; nothing is opened yet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ImageError
from lensmount.specs.options import is_whole
from lensmount_vision.images.arrays import is_array
from lensmount_vision.images.image import Color, Image
from lensmount_vision.images.loading import load, several
from lensmount_vision.images.pages import pictures, several_in
from lensmount_vision.images.sources import STREAM_SCHEMES, Frame, expand_sources, is_video, shown, video_frames

if TYPE_CHECKING:
    from lensmount.specs import Preprocess


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


def entries_of(source: Any) -> tuple[Iterable[Any], int | None]:
    """A source as single pictures and feeds, and how many pictures that is, where it is known; nothing is opened.

    A file that holds several pictures counts as one here: that is known when its turn comes.

    Raises:
        ImageError: A folder or glob holds no pictures.
    """
    inputs = several(source)
    if inputs is None:  # perhaps no picture at all, which becomes an error record
        return _expanded([source])
    return _expanded(list(inputs)) if isinstance(inputs, (list, tuple)) or is_array(inputs) else (inputs, None)


def _expanded(entries: list[Any]) -> tuple[list[Any], int | None]:
    found: list[Any] = []
    for entry in entries:
        if is_whole(entry):
            found.append(_video(int(entry)))
        elif not isinstance(entry, (str, os.PathLike)):
            found.append(entry)
        else:
            found += [_video(name) if is_video(name) else name for name in expand_sources(entry)]
    return found, None if any(isinstance(entry, Feed) for entry in found) else len(found)


def is_live(name: str | int) -> bool:
    """Whether a video's name is that of a camera or a network stream, which have no end of their own."""
    text = str(name)
    return (text.isdecimal() and not Path(text).exists()) or text.lower().startswith(STREAM_SCHEMES)


def _video(name: str | int) -> Feed:
    return Feed(str(name), partial(video_frames, name), live=is_live(name))


def items_of(
    entries: Iterable[Any], color: Color | None, max_frames: int | None, reduced_for: Preprocess | None, channels: int
) -> Iterator[Item]:
    """The pictures and frames of entries, one after another; a video is opened when its turn comes."""
    loaded = partial(load, channels=channels)
    for index, entry in enumerate(entries):
        if isinstance(entry, Feed):
            yield from _frames(entry, color, max_frames, loaded)
        elif isinstance(entry, (str, os.PathLike)) and is_video(entry):  # from a generator
            yield from _frames(_video(os.fspath(entry)), color, max_frames, loaded)
        elif several_in(entry):  # an animation, pages
            name = os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else f"image {index}"
            yield from _frames(Feed(name, partial(pictures, entry)), color, max_frames, loaded)
        else:
            name = os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else getattr(entry, "path", None)
            yield Item(str(name or f"image {index}"), partial(loaded, entry, color=color, reduced_for=reduced_for))


def _frames(feed: Feed, color: Color | None, max_frames: int | None, loaded: Callable[..., Image]) -> Iterator[Item]:
    start = time.monotonic()
    number = -1
    try:
        for number, entry in enumerate(feed.frames()):
            if max_frames is not None and number >= max_frames:
                return
            if isinstance(entry, Frame):
                yield Item(feed.name, partial(loaded, entry.image), entry.number, entry.seconds, feed.live)
            else:
                seconds = time.monotonic() - start
                yield Item(feed.name, partial(loaded, entry, color=color), number, seconds, feed.live)
    except ImageError as error:  # one bad video is an item that fails, like one bad picture
        yield Item(feed.name, partial(_fail, error), live=feed.live)
        return
    if feed.live:
        problem = f"{shown(feed.name)} gives no more frames"
        ended = ImageError(problem, found=f"{number + 1} frames before", fix="check the camera and the network")
        yield Item(feed.name, partial(_fail, ended), live=True)


def _fail(error: Exception) -> Image:
    raise error
