"""What every loaded vision model has: its call on one graph, streams of frames, checked exports.

Any distribution may import this room's names; it imports `device`, `results`, `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "Classes": "lensmount_vision.models.detector",
    "Detector": "lensmount_vision.models.detector",
    "Feed": "lensmount_vision.models.entries",
    "Filter": "lensmount_vision.models.detector",
    "FrameInfo": "lensmount_vision.models.streaming",
    "Kept": "lensmount_vision.models.detector",
    "LoadedModel": "lensmount_vision.models.loaded",
    "Policy": "lensmount_vision.models.streaming",
    "SingleGraph": "lensmount_vision.models.single_graph",
    "Stream": "lensmount_vision.models.streaming",
    "describe_graph": "lensmount_vision.models.exporting",
    "keep": "lensmount_vision.models.exporting",
    "read_class_names": "lensmount_vision.models.detector",
    "require": "lensmount_vision.models.exporting",
    "stream": "lensmount_vision.models.streaming",
}

if TYPE_CHECKING:
    from lensmount_vision.models.detector import Classes as Classes
    from lensmount_vision.models.detector import Detector as Detector
    from lensmount_vision.models.detector import Filter as Filter
    from lensmount_vision.models.detector import Kept as Kept
    from lensmount_vision.models.detector import read_class_names as read_class_names
    from lensmount_vision.models.entries import Feed as Feed
    from lensmount_vision.models.exporting import describe_graph as describe_graph
    from lensmount_vision.models.exporting import keep as keep
    from lensmount_vision.models.exporting import require as require
    from lensmount_vision.models.loaded import LoadedModel as LoadedModel
    from lensmount_vision.models.single_graph import SingleGraph as SingleGraph
    from lensmount_vision.models.streaming import FrameInfo as FrameInfo
    from lensmount_vision.models.streaming import Policy as Policy
    from lensmount_vision.models.streaming import Stream as Stream
    from lensmount_vision.models.streaming import stream as stream

__all__ = [
    "Classes",
    "Detector",
    "Feed",
    "Filter",
    "FrameInfo",
    "Kept",
    "LoadedModel",
    "Policy",
    "SingleGraph",
    "Stream",
    "describe_graph",
    "keep",
    "read_class_names",
    "require",
    "stream",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
