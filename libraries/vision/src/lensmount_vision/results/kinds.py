"""What models answer: typed numpy arrays on the host, one result per image.

Every result checks its arrays when it is made, casts them to the dtypes it names, and is not changed afterwards.
`result[key]` chooses rows (a number, slice, index array or bool array) and gives the same type back.
"""

from __future__ import annotations

from lensmount_vision.results.detections import (
    Detections,
    InstanceSegmentation,
    KeypointDetections,
    Keypoints,
    OrientedDetections,
)
from lensmount_vision.results.formats import from_dict
from lensmount_vision.results.image_results import Classification, Embeddings, PromptedMasks
from lensmount_vision.results.masks import Masks
from lensmount_vision.results.video_results import VideoMasks

Result = Detections | Classification | Embeddings | PromptedMasks

__all__ = [
    "Classification",
    "Detections",
    "Embeddings",
    "InstanceSegmentation",
    "KeypointDetections",
    "Keypoints",
    "Masks",
    "OrientedDetections",
    "PromptedMasks",
    "Result",
    "VideoMasks",
    "from_dict",
]
