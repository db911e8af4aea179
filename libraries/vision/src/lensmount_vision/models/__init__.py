"""What every loaded vision model has: its call on one graph, streams of frames, checked exports.

Plugins import it; it imports `device`, `results`, `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "FrameInfo": "lensmount_vision.models.streaming",
    "SingleGraph": "lensmount_vision.models.single_graph",
    "stream": "lensmount_vision.models.streaming",
}

if TYPE_CHECKING:
    from lensmount_vision.models.single_graph import SingleGraph as SingleGraph
    from lensmount_vision.models.streaming import FrameInfo as FrameInfo
    from lensmount_vision.models.streaming import stream as stream

__all__ = ["FrameInfo", "SingleGraph", "stream"]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
