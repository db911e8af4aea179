"""What every loaded vision model has: its call on one graph, streams of frames, checked exports.

Any distribution may import this room's names; it imports `device`, `results`, `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "Feed": "lensmount_vision.models.entries",
    "FrameInfo": "lensmount_vision.models.streaming",
    "Policy": "lensmount_vision.models.streaming",
    "SingleGraph": "lensmount_vision.models.single_graph",
    "Stream": "lensmount_vision.models.streaming",
    "stream": "lensmount_vision.models.streaming",
}

if TYPE_CHECKING:
    from lensmount_vision.models.entries import Feed as Feed
    from lensmount_vision.models.single_graph import SingleGraph as SingleGraph
    from lensmount_vision.models.streaming import FrameInfo as FrameInfo
    from lensmount_vision.models.streaming import Policy as Policy
    from lensmount_vision.models.streaming import Stream as Stream
    from lensmount_vision.models.streaming import stream as stream

__all__ = [
    "Feed",
    "FrameInfo",
    "Policy",
    "SingleGraph",
    "Stream",
    "stream",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
