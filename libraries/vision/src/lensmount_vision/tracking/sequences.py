"""One tracker for each video or camera, fed in the order of its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from lensmount.errors import InputError, OptionError
from lensmount_vision.images.checks import Indices
from lensmount_vision.results.detections import Detections

if TYPE_CHECKING:
    from lensmount_vision.images.image import Image

D = TypeVar("D", bound=Detections)


@runtime_checkable
class ObjectTracker(Protocol):
    """Gives the objects of one video numbers that stay theirs. It is used from one thread."""

    def update(self, result: Detections, image: Image | None, seconds: float | None) -> Indices:
        """Takes the next frame.

        Args:
            result: What was found in it; boxes are in the frame's pixels.
            image: The frame, for trackers that look at it.
            seconds: Its time, greater than that of the frame before; None where frames have no times.

        Returns:
            int64 `(N,)`: the number of each box's object, from 1; -1 for a box that belongs to none yet.
        """


class Tracks:
    """Trackers by source: every video, camera and folder of pictures has its own.

    Args:
        make: Makes a tracker that has seen nothing.
    """

    def __init__(self, make: Callable[[], ObjectTracker]) -> None:
        self._make = make
        self._running: dict[str, _Sequence] = {}

    def follow(
        self,
        result: D,
        *,
        source: str = "",
        frame: int | None = None,
        seconds: float | None = None,
        image: Image | None = None,
        live: bool = False,
    ) -> D:
        """The same result with `tracker_id`.

        Args:
            result: Boxes of the next frame of its source.
            source: Name of the source. Pictures without frame numbers follow one another by folder.
            frame: Number of the frame; one that is not greater than the last begins the source anew.
            seconds: Time of the frame.
            image: The frame.
            live: Whether the source is read side by side with others. Of others only the latest is remembered.

        Raises:
            OptionError: The result has no boxes that could be followed.
            InputError: The tracker gave no whole number for each box.
        """
        if not isinstance(result, Detections):
            raise OptionError(
                "a tracker follows boxes, and this result has none",
                found=getattr(result, "kind", type(result).__name__),
                expected="detections, masks, keypoints or rotated boxes",
                fix="leave tracker out",
            )
        key = source if frame is not None else str(Path(source).parent)
        at = self._running.get(key)
        if at is None or (frame is not None and at.frame is not None and frame <= at.frame):
            if not live:
                self._running = {name: other for name, other in self._running.items() if other.live}
            at = self._running[key] = _Sequence(self._make(), live)
        at.frame = frame
        ids = np.asarray(at.tracker.update(result, image, at.later(seconds)))
        if ids.shape != (len(result),) or (ids.size and ids.dtype.kind not in "iu"):
            raise InputError(
                f"{type(at.tracker).__name__} gave other numbers than one for each box",
                found=f"{ids.dtype} {ids.shape}",
                expected=f"({len(result)},) whole numbers",
            )
        return replace(result, tracker_id=ids.astype(np.int64))


class _Sequence:
    """One source: its tracker, and how far it is."""

    def __init__(self, tracker: ObjectTracker, live: bool) -> None:
        self.tracker = tracker
        self.live = live
        self.frame: int | None = None
        self._seconds: float | None = None

    def later(self, seconds: float | None) -> float | None:
        """The time of a frame, made greater than the last one's where the source's clock stood still or jumped."""
        if seconds is None:
            return None
        if self._seconds is not None and seconds <= self._seconds:
            seconds = self._seconds + 1e-3
        self._seconds = seconds
        return seconds


def as_pairs(tracks: Tracks, info: Any, result: Any) -> Any:
    """The result of a stream's record with `tracker_id`; None, of a picture that failed, stays None."""
    if result is None:
        return None
    return tracks.follow(
        result, source=info.source, frame=info.frame, seconds=info.seconds, image=info.image, live=info.live
    )
