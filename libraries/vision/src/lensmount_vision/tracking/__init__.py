"""Objects that keep their number from frame to frame: trackers of boxes, and what is counted of them.

Any distribution may import this room's names; it imports `results`, `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.tracking.naming": ("tracker",),
    "lensmount_vision.tracking.sequences": ("ObjectTracker", "Tracks"),
}

if TYPE_CHECKING:
    from lensmount_vision.tracking.naming import tracker
    from lensmount_vision.tracking.sequences import ObjectTracker, Tracks

__all__ = ["ObjectTracker", "Tracks", "tracker"]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
