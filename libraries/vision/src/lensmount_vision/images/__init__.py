"""Pictures: any form that a user has them in, to arrays, and arrays to what a network takes.

Any distribution may import this room's names; it imports the core alone, and OpenCV where a picture is decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.images.decoding": ("import_cv2",),
    "lensmount_vision.images.geometry": ("Geometry", "plan"),
    "lensmount_vision.images.image": ("Color", "Image"),
    "lensmount_vision.images.loading": ("load", "load_many", "split"),
    "lensmount_vision.images.reduced_decode": ("Reduced",),
    "lensmount_vision.images.resample": ("matmul_single_threaded",),
    "lensmount_vision.images.source_keys": ("content_key", "image_key", "source_key"),
    "lensmount_vision.images.sources": ("Frame", "IMAGE_SUFFIXES", "expand_sources", "is_video", "video_frames"),
    "lensmount_vision.images.transforms": ("DType", "prepare"),
    "lensmount_vision.images.writing": ("VideoWriter",),
}

if TYPE_CHECKING:
    from lensmount_vision.images.decoding import import_cv2
    from lensmount_vision.images.geometry import Geometry, plan
    from lensmount_vision.images.image import Color, Image
    from lensmount_vision.images.loading import load, load_many, split
    from lensmount_vision.images.reduced_decode import Reduced
    from lensmount_vision.images.resample import matmul_single_threaded
    from lensmount_vision.images.source_keys import content_key, image_key, source_key
    from lensmount_vision.images.sources import IMAGE_SUFFIXES, Frame, expand_sources, is_video, video_frames
    from lensmount_vision.images.transforms import DType, prepare
    from lensmount_vision.images.writing import VideoWriter

__all__ = [
    "IMAGE_SUFFIXES", "Color", "DType", "Frame", "Geometry", "Image", "Reduced", "VideoWriter", "content_key",
    "expand_sources", "image_key", "import_cv2", "is_video", "load", "load_many", "matmul_single_threaded", "plan",
    "prepare", "source_key", "split", "video_frames",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
