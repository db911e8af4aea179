"""What every loaded vision model has: its call on one graph, streams of frames, checked exports.

Any distribution may import this room's names; it imports `device`, `results`, `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.models.detector": ("Classes", "Detector", "Filter", "Kept", "read_class_names"),
    "lensmount_vision.models.entries": ("Feed",),
    "lensmount_vision.models.exporting": ("describe_graph", "require_packages", "tail_nodes", "write_checked"),
    "lensmount_vision.models.loaded": ("LoadedModel", "NotPicklableError", "class_of_task"),
    "lensmount_vision.models.numbers": ("NotFiniteError",),
    "lensmount_vision.models.single_graph": ("SingleGraph",),
    "lensmount_vision.models.streaming": ("FrameInfo", "Policy", "Stream", "stream"),
}

if TYPE_CHECKING:
    from lensmount_vision.models.detector import Classes, Detector, Filter, Kept, read_class_names
    from lensmount_vision.models.entries import Feed
    from lensmount_vision.models.exporting import describe_graph, require_packages, tail_nodes, write_checked
    from lensmount_vision.models.loaded import LoadedModel, NotPicklableError, class_of_task
    from lensmount_vision.models.numbers import NotFiniteError
    from lensmount_vision.models.single_graph import SingleGraph
    from lensmount_vision.models.streaming import FrameInfo, Policy, Stream, stream

__all__ = [
    "Classes", "Detector", "Feed", "Filter", "FrameInfo", "Kept", "LoadedModel", "NotFiniteError", "NotPicklableError",
    "Policy", "SingleGraph", "Stream", "class_of_task", "describe_graph", "read_class_names", "require_packages",
    "stream", "tail_nodes", "write_checked",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
