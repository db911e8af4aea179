"""Pictures: any form that a user has them in, to arrays, and arrays to what a network takes.

Any distribution may import this room's names; it imports the core alone, and OpenCV where a picture is decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "Color": "lensmount_vision.images.image",
    "DType": "lensmount_vision.images.transforms",
    "Frame": "lensmount_vision.images.sources",
    "Geometry": "lensmount_vision.images.geometry",
    "IMAGE_SUFFIXES": "lensmount_vision.images.sources",
    "Image": "lensmount_vision.images.image",
    "Reduced": "lensmount_vision.images.reduced_decode",
    "content_key": "lensmount_vision.images.source_keys",
    "expand_sources": "lensmount_vision.images.sources",
    "image_key": "lensmount_vision.images.source_keys",
    "import_cv2": "lensmount_vision.images.decoding",
    "is_video": "lensmount_vision.images.sources",
    "load": "lensmount_vision.images.loading",
    "load_many": "lensmount_vision.images.loading",
    "matmul_single_threaded": "lensmount_vision.images.resample",
    "plan": "lensmount_vision.images.geometry",
    "prepare": "lensmount_vision.images.transforms",
    "source_key": "lensmount_vision.images.source_keys",
    "split": "lensmount_vision.images.loading",
    "video_frames": "lensmount_vision.images.sources",
}

if TYPE_CHECKING:
    from lensmount_vision.images.decoding import import_cv2 as import_cv2
    from lensmount_vision.images.geometry import Geometry as Geometry
    from lensmount_vision.images.geometry import plan as plan
    from lensmount_vision.images.image import Color as Color
    from lensmount_vision.images.image import Image as Image
    from lensmount_vision.images.loading import load as load
    from lensmount_vision.images.loading import load_many as load_many
    from lensmount_vision.images.loading import split as split
    from lensmount_vision.images.reduced_decode import Reduced as Reduced
    from lensmount_vision.images.resample import matmul_single_threaded as matmul_single_threaded
    from lensmount_vision.images.source_keys import content_key as content_key
    from lensmount_vision.images.source_keys import image_key as image_key
    from lensmount_vision.images.source_keys import source_key as source_key
    from lensmount_vision.images.sources import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from lensmount_vision.images.sources import Frame as Frame
    from lensmount_vision.images.sources import expand_sources as expand_sources
    from lensmount_vision.images.sources import is_video as is_video
    from lensmount_vision.images.sources import video_frames as video_frames
    from lensmount_vision.images.transforms import DType as DType
    from lensmount_vision.images.transforms import prepare as prepare

__all__ = [
    "IMAGE_SUFFIXES",
    "Color",
    "DType",
    "Frame",
    "Geometry",
    "Image",
    "Reduced",
    "content_key",
    "expand_sources",
    "image_key",
    "import_cv2",
    "is_video",
    "load",
    "load_many",
    "matmul_single_threaded",
    "plan",
    "prepare",
    "source_key",
    "split",
    "video_frames",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
