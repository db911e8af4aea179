"""What `predict` works through: pictures, and frames of videos and cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lensmount.images import Image


@dataclass(frozen=True, slots=True)
class Item:
    """One picture or frame.

    Attributes:
        name: Shown to the user and written into results.
        load: Gives the picture.
        video: The video or camera that it is a frame of, or None.
        frame: Its number in the video.
        seconds: Its time in the video, where known.
    """

    name: str
    load: Callable[[], Image]
    video: str | None = None
    frame: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """An iterable of items; `total` is None when the number is not known before."""

    make: Callable[[], Iterator[Item]]
    total: int | None

    def __iter__(self) -> Iterator[Item]:
        return self.make()


def items(sources: Sequence[str], max_frames: int | None) -> Work:
    """Expands what the user named.

    Raises:
        ImageError: A folder or glob holds no pictures.
    """
    from lensmount.image_sources import expand_sources, is_video

    names = list(expand_sources(sources))

    def make() -> Iterator[Item]:
        from lensmount.images import load

        for name in names:
            if is_video(name):
                yield from _frames(name, max_frames)
            else:
                yield Item(name, partial(load, name))

    return Work(make, None if any(is_video(name) for name in names) else len(names))


def _frames(source: str, max_frames: int | None) -> Iterator[Item]:
    from lensmount.errors import ImageError
    from lensmount.image_sources import video_frames

    try:
        for index, seconds, image in video_frames(source):
            if max_frames is not None and index >= max_frames:
                return
            yield Item(f"{source}#{index}", partial(_same, image), source, index, seconds)
    except ImageError as error:  # one bad video is an item that fails, like one bad picture
        yield Item(source, partial(_fail, error), source)


def _same(image: Image) -> Image:
    return image


def _fail(error: Exception) -> Image:
    raise error
