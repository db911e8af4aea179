"""What models give back: boxes, masks, keypoints, classes, vectors, and their forms on disk, on screen and elsewhere.

Any distribution may import this room's names; it imports `images` and the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.results.boxes": (
        "cxcywh_to_xyxy",
        "iou_matrix",
        "nms",
        "nms_rotated",
        "top_candidates",
        "xyxy_to_cxcywh",
    ),
    "lensmount_vision.results.drawing": ("draw",),
    "lensmount_vision.results.kinds": (
        "Classification",
        "Detections",
        "Embeddings",
        "InstanceSegmentation",
        "KeypointDetections",
        "Keypoints",
        "OrientedDetections",
        "PromptedMasks",
        "Result",
        "VideoMasks",
        "from_dict",
    ),
    "lensmount_vision.results.mask_decoding": ("decode_prototypes", "resize_logits_in_boxes"),
    "lensmount_vision.results.masks": ("Masks",),
    "lensmount_vision.results.rotated_boxes": ("xywhr_to_corners",),
    "lensmount_vision.results.shapes": ("Drawable", "Shapes"),
}

if TYPE_CHECKING:
    from lensmount_vision.results.boxes import (
        cxcywh_to_xyxy,
        iou_matrix,
        nms,
        nms_rotated,
        top_candidates,
        xyxy_to_cxcywh,
    )
    from lensmount_vision.results.drawing import draw
    from lensmount_vision.results.kinds import (
        Classification,
        Detections,
        Embeddings,
        InstanceSegmentation,
        KeypointDetections,
        Keypoints,
        OrientedDetections,
        PromptedMasks,
        Result,
        VideoMasks,
        from_dict,
    )
    from lensmount_vision.results.mask_decoding import decode_prototypes, resize_logits_in_boxes
    from lensmount_vision.results.masks import Masks
    from lensmount_vision.results.rotated_boxes import xywhr_to_corners
    from lensmount_vision.results.shapes import Drawable, Shapes

__all__ = [
    "Classification", "Detections", "Drawable", "Embeddings", "InstanceSegmentation", "KeypointDetections", "Keypoints",
    "Masks", "OrientedDetections", "PromptedMasks", "Result", "Shapes", "VideoMasks", "cxcywh_to_xyxy",
    "decode_prototypes", "draw", "from_dict", "iou_matrix", "nms", "nms_rotated", "resize_logits_in_boxes",
    "top_candidates", "xywhr_to_corners", "xyxy_to_cxcywh",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
