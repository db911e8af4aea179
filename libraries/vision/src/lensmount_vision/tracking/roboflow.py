"""Trackers of the `trackers` package (Apache-2.0), which are written after their papers, behind our protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import MissingDependencyError, OptionError
from lensmount.specs.options import check_names
from lensmount_vision.images.checks import Indices

if TYPE_CHECKING:
    from lensmount_vision.images.image import Image
    from lensmount_vision.results.detections import Detections

KINDS = {
    "bytetrack": "ByteTrackTracker",
    "sort": "SORTTracker",
    "ocsort": "OCSORTTracker",
    "botsort": "BoTSORTTracker",
    "cbiou": "CBIoUTracker",
}
"""Name of each tracker, and of its class in `trackers`."""

RATE = 30.0
"""Frames per second that the trackers' own settings are meant for: they count lost frames in 30ths of a second."""

_OURS = ("self", "frame_rate", "state_estimator_class", "iou", "cmc")
_LOOK = ("botsort",)
"""Those that look at the picture, to make up for a moving camera."""


def maker(name: str, settings: dict[str, Any]) -> Callable[[], RoboflowTracker]:
    """What makes trackers of a kind, once its settings are checked.

    Args:
        name: One of `KINDS`.
        settings: Of its class in `trackers`: `lost_track_buffer`, `minimum_iou_threshold` …

    Raises:
        MissingDependencyError: The package is not installed.
        UnknownOptionError: The tracker has no such setting.
        OptionError: A setting has a value that the tracker refuses.
    """
    kind = getattr(_import(), KINDS[name])
    known = [parameter for parameter in inspect.signature(kind.__init__).parameters if parameter not in _OURS]
    check_names(settings, known, f"tracker {name!r}")

    def make() -> RoboflowTracker:
        try:
            return RoboflowTracker(kind(frame_rate=RATE, **settings), looks=name in _LOOK)
        except (TypeError, ValueError) as error:
            raise OptionError(f"a setting of tracker {name!r} is not valid", found=str(error)) from error

    make()
    return make


class RoboflowTracker:
    """One of the `trackers` package.

    Args:
        inner: The package's tracker.
        looks: Whether it is shown the picture.
    """

    def __init__(self, inner: Any, *, looks: bool = False) -> None:
        self._inner = inner
        self._looks = looks

    def update(self, result: Detections, image: Image | None, seconds: float | None) -> Indices:
        """See `lensmount_vision.tracking.ObjectTracker`; frames without times are taken for 30 in a second."""
        import supervision

        rows = np.arange(len(result))
        given = supervision.Detections(
            xyxy=result.xyxy.copy(),
            confidence=result.confidence.copy(),
            class_id=result.class_id.copy(),
            data={"row": rows},
        )
        frame = image.array("bgr") if self._looks and image is not None else None
        found = self._inner.update(given, frame=frame, timestamp=seconds)
        ids = np.full(len(result), -1, np.int64)
        if len(found):  # in an order of its own; the package counts from 0
            numbers = np.asarray(found.tracker_id, np.int64)
            ids[np.asarray(found.data["row"], np.int64)] = np.where(numbers >= 0, numbers + 1, -1)
        return ids


def _import() -> Any:
    try:
        import trackers
    except ImportError as error:
        raise MissingDependencyError(
            "trackers are in a package of their own",
            found=str(error),
            fix='pip install "lensmount[track]"',
        ) from error
    return trackers
