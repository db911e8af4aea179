"""What `predict` works through: pictures, and frames of videos and cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import ImageError

if TYPE_CHECKING:
    from lensmount.images import Image

LIVE = ("rtsp://", "rtmp://", "udp://", "tcp://")


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
        ImageError: A file or folder is not there, or a folder holds no pictures.
    """
    pictures: list[str] = []
    streams: list[str] = []
    for source in sources:
        if source.isdigit() or source.lower().startswith(LIVE):
            streams.append(source)
        elif "://" in source or source.startswith("data:"):
            (streams if _is_video(source.partition("?")[0]) else pictures).append(source)
        else:
            from lensmount.images import expand_sources

            for path in expand_sources([source]):
                (streams if _is_video(str(path)) else pictures).append(str(path))
    if not pictures and not streams:
        raise ImageError("nothing to work on", expected="a picture, folder, glob, URL, video or camera number")

    def make() -> Iterator[Item]:
        from lensmount.images import load

        for name in pictures:
            yield Item(name, lambda name=name: load(name))  # type: ignore[misc]  # bound per item
        for name in streams:
            yield from _frames(name, max_frames)

    return Work(make, len(pictures) if not streams else None)


def _is_video(name: str) -> bool:
    from lensmount.images import VIDEO_SUFFIXES

    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _frames(source: str, max_frames: int | None) -> Iterator[Item]:
    from lensmount.images import video_frames

    for index, seconds, image in video_frames(int(source) if source.isdigit() else source):
        if max_frames is not None and index >= max_frames:
            return
        yield Item(f"{source}#{index}", lambda image=image: image, source, index, seconds)  # type: ignore[misc]
