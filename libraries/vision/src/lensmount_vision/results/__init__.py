"""What models give back: boxes, masks, keypoints, classes, vectors, and their forms on disk, on screen and elsewhere.

Any distribution may import this room's names; it imports `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "Classification": "lensmount_vision.results.kinds",
    "Detections": "lensmount_vision.results.kinds",
    "Drawable": "lensmount_vision.results.shapes",
    "Embeddings": "lensmount_vision.results.kinds",
    "InstanceSegmentation": "lensmount_vision.results.kinds",
    "KeypointDetections": "lensmount_vision.results.kinds",
    "Keypoints": "lensmount_vision.results.kinds",
    "Masks": "lensmount_vision.results.masks",
    "OrientedDetections": "lensmount_vision.results.kinds",
    "PromptedMasks": "lensmount_vision.results.kinds",
    "Result": "lensmount_vision.results.kinds",
    "Shapes": "lensmount_vision.results.shapes",
    "VideoMasks": "lensmount_vision.results.kinds",
    "cxcywh_to_xyxy": "lensmount_vision.results.boxes",
    "decode_prototypes": "lensmount_vision.results.mask_decoding",
    "draw": "lensmount_vision.results.drawing",
    "from_dict": "lensmount_vision.results.kinds",
    "iou_matrix": "lensmount_vision.results.boxes",
    "nms": "lensmount_vision.results.boxes",
    "nms_rotated": "lensmount_vision.results.boxes",
    "resize_logits_in_boxes": "lensmount_vision.results.mask_decoding",
    "top_candidates": "lensmount_vision.results.boxes",
    "xywhr_to_corners": "lensmount_vision.results.rotated_boxes",
    "xyxy_to_cxcywh": "lensmount_vision.results.boxes",
}

if TYPE_CHECKING:
    from lensmount_vision.results.boxes import cxcywh_to_xyxy as cxcywh_to_xyxy
    from lensmount_vision.results.boxes import iou_matrix as iou_matrix
    from lensmount_vision.results.boxes import nms as nms
    from lensmount_vision.results.boxes import nms_rotated as nms_rotated
    from lensmount_vision.results.boxes import top_candidates as top_candidates
    from lensmount_vision.results.boxes import xyxy_to_cxcywh as xyxy_to_cxcywh
    from lensmount_vision.results.drawing import draw as draw
    from lensmount_vision.results.kinds import Classification as Classification
    from lensmount_vision.results.kinds import Detections as Detections
    from lensmount_vision.results.kinds import Embeddings as Embeddings
    from lensmount_vision.results.kinds import InstanceSegmentation as InstanceSegmentation
    from lensmount_vision.results.kinds import KeypointDetections as KeypointDetections
    from lensmount_vision.results.kinds import Keypoints as Keypoints
    from lensmount_vision.results.kinds import OrientedDetections as OrientedDetections
    from lensmount_vision.results.kinds import PromptedMasks as PromptedMasks
    from lensmount_vision.results.kinds import Result as Result
    from lensmount_vision.results.kinds import VideoMasks as VideoMasks
    from lensmount_vision.results.kinds import from_dict as from_dict
    from lensmount_vision.results.mask_decoding import decode_prototypes as decode_prototypes
    from lensmount_vision.results.mask_decoding import resize_logits_in_boxes as resize_logits_in_boxes
    from lensmount_vision.results.masks import Masks as Masks
    from lensmount_vision.results.rotated_boxes import xywhr_to_corners as xywhr_to_corners
    from lensmount_vision.results.shapes import Drawable as Drawable
    from lensmount_vision.results.shapes import Shapes as Shapes

__all__ = [
    "Classification",
    "Detections",
    "Drawable",
    "Embeddings",
    "InstanceSegmentation",
    "KeypointDetections",
    "Keypoints",
    "Masks",
    "OrientedDetections",
    "PromptedMasks",
    "Result",
    "Shapes",
    "VideoMasks",
    "cxcywh_to_xyxy",
    "decode_prototypes",
    "draw",
    "from_dict",
    "iou_matrix",
    "nms",
    "nms_rotated",
    "resize_logits_in_boxes",
    "top_candidates",
    "xywhr_to_corners",
    "xyxy_to_cxcywh",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
