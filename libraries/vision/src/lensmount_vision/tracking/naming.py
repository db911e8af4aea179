"""From what a caller names to something that makes trackers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lensmount.errors import OptionError
from lensmount.specs.options import one_of
from lensmount_vision.tracking.roboflow import KINDS, maker
from lensmount_vision.tracking.sequences import ObjectTracker

Maker = Callable[[], ObjectTracker]


def tracker(name: str, **settings: Any) -> Maker:
    """A kind of tracker with settings of its own: `model.stream(video, tracker=tracker("sort", lost_track_buffer=90))`.

    Args:
        name: `bytetrack`, `sort`, `ocsort`, `botsort` (makes up for a moving camera) or `cbiou`.
        **settings: Of the tracker's class in the package `trackers`.

    Returns:
        What makes a tracker for each video.

    Raises:
        OptionError: There is no such tracker, or a setting is not valid.
        UnknownOptionError: The tracker has no such setting.
        MissingDependencyError: The package `trackers` is not installed.
    """
    return maker(one_of("tracker", name, tuple(KINDS)), settings)


def maker_of(given: Any) -> Maker:
    """What makes trackers, from a name or from code of the caller's own.

    Raises:
        OptionError: It is neither, or a single tracker, which would mix the objects of several videos.
    """
    if isinstance(given, str):
        return tracker(given)
    if not callable(given) or (hasattr(given, "update") and not isinstance(given, type)):
        raise OptionError(
            "tracker is not valid",
            found=repr(given)[:120],
            expected=f"one of {', '.join(KINDS)}, or a function that makes a tracker for each video",
            fix="pass the class, or lensmount_vision.tracking.tracker(name, setting=…)",
        )
    made: Maker = given
    return made
