"""What every vision model needs: its call on one graph, streams of frames, checked exports, weights read in full.

Any distribution may import this room's names; it imports `device`, `results`, `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.models.class_options": ("first_column", "listed_names"),
    "lensmount_vision.models.detector": ("Classes", "Detector", "Filter", "Kept", "read_class_names"),
    "lensmount_vision.models.entries": ("Feed",),
    "lensmount_vision.models.exporting": (
        "describe_graph",
        "keep_checked",
        "require_packages",
        "tail_nodes",
        "write_checked",
    ),
    "lensmount_vision.models.loaded": ("LoadedModel", "NotPicklableError", "class_of_task"),
    "lensmount_vision.models.leftovers": ("Taken", "require_all_used"),
    "lensmount_vision.models.numbers": ("NotFiniteError",),
    "lensmount_vision.models.processors": ("ImageProcessor", "read_image_processor"),
    "lensmount_vision.models.settings": ("HARMLESS", "READ", "Only", "check_settings", "unknown_note"),
    "lensmount_vision.models.single_graph": ("SingleGraph",),
    "lensmount_vision.models.streaming": ("FrameInfo", "Policy", "Stream", "stream"),
}

if TYPE_CHECKING:
    from lensmount_vision.models.class_options import first_column, listed_names
    from lensmount_vision.models.detector import Classes, Detector, Filter, Kept, read_class_names
    from lensmount_vision.models.entries import Feed
    from lensmount_vision.models.exporting import (
        describe_graph,
        keep_checked,
        require_packages,
        tail_nodes,
        write_checked,
    )
    from lensmount_vision.models.leftovers import Taken, require_all_used
    from lensmount_vision.models.loaded import LoadedModel, NotPicklableError, class_of_task
    from lensmount_vision.models.numbers import NotFiniteError
    from lensmount_vision.models.processors import ImageProcessor, read_image_processor
    from lensmount_vision.models.settings import HARMLESS, READ, Only, check_settings, unknown_note
    from lensmount_vision.models.single_graph import SingleGraph
    from lensmount_vision.models.streaming import FrameInfo, Policy, Stream, stream

__all__ = [
    "HARMLESS",
    "READ",
    "Classes",
    "Detector",
    "Feed",
    "Filter",
    "FrameInfo",
    "ImageProcessor",
    "Kept",
    "LoadedModel",
    "NotFiniteError",
    "NotPicklableError",
    "Only",
    "Policy",
    "SingleGraph",
    "Stream",
    "Taken",
    "check_settings",
    "class_of_task",
    "describe_graph",
    "first_column",
    "keep_checked",
    "listed_names",
    "read_class_names",
    "read_image_processor",
    "require_all_used",
    "require_packages",
    "stream",
    "tail_nodes",
    "unknown_note",
    "write_checked",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
