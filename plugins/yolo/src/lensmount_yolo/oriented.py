"""Detection with boxes turned by an angle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_vision.results.boxes import nms_rotated, xyxy_to_cxcywh
from lensmount_vision.results.kinds import OrientedDetections
from lensmount_vision.results.rotated_boxes import xywhr_to_corners
from lensmount_yolo.model import YoloDetector
from lensmount_yolo.postprocess import Filter, Kept, candidates, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.masks import Masks


class YoloOrientedDetector(YoloDetector):
    """Finds objects and the turned boxes around them."""

    extra = 1
    rotated = True
    suppression = "fast"

    def _keep(self, output: NDArray[Any], wanted: Filter, geometry: Geometry) -> Kept:
        """Boxes of the survivors stay unturned (`xyxy` about the same centre), angles are in `extra`."""
        kept = candidates(output, self.head, wanted, centred=True)
        corners = xywhr_to_corners(_turned(kept))
        upright = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
        kept = take(kept, np.flatnonzero(geometry.inside(upright)))
        if self.head.kind == "rows":  # final already: centre, width, height, score, class, angle
            return take(kept, np.arange(min(len(kept.scores), wanted.max_detections)))
        chosen = nms_rotated(
            _turned(kept),
            kept.scores,
            None if wanted.class_agnostic else kept.class_ids,
            iou_threshold=wanted.iou_threshold,
            max_detections=wanted.max_detections,
            fast=wanted.fast,
        )
        return take(kept, chosen)

    def _result(
        self, kept: Kept, boxes: NDArray[Any], masks: Masks | None, geometry: Geometry, path: str | None
    ) -> OrientedDetections:
        return OrientedDetections.from_xywhr(
            boxes_to_image(_turned(kept), geometry),
            kept.scores,
            kept.class_ids,
            class_names=self.names,
            image_size=geometry.original_size,
            path=path,
        )


def _turned(kept: Kept) -> NDArray[np.float32]:
    """`(n, 5)` centre x, centre y, width, height, angle in network pixels."""
    return np.concatenate((xyxy_to_cxcywh(kept.boxes), kept.extra), axis=1).astype(np.float32)


def boxes_to_image(boxes: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Maps `(n, 5)` turned boxes from network to original pixels.

    The scales of the two axes differ by rounding, so a box's sides are scaled along their own directions, and its
    angle follows its long axis.
    """
    x, y = geometry.scale
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return np.stack(
        (
            *geometry.points_to_image(boxes[:, :2]).T,
            boxes[:, 2] * np.hypot(cos / x, sin / y),
            boxes[:, 3] * np.hypot(sin / x, cos / y),
            np.arctan2(sin / y, cos / x),
        ),
        axis=1,
    ).astype(np.float32)
