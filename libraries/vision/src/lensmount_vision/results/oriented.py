"""Rotated boxes as a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lensmount.errors import InputError
from lensmount_vision.images.checks import Floats, as_boxes
from lensmount_vision.results.detections import Detections
from lensmount_vision.results.formats import plain
from lensmount_vision.results.masks import checked_size
from lensmount_vision.results.rotated_boxes import xywhr_to_corners
from lensmount_vision.results.rows import store
from lensmount_vision.results.shapes import Shapes

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OrientedDetections(Detections):
    """Rotated boxes; `xyxy` are the upright boxes around them.

    Attributes:
        xywhr: float32 `(N, 5)` centre x, centre y, width, height in original pixels, angle in radians (clockwise, as y
            points down).
    """

    row_fields: ClassVar[tuple[str, ...]] = (*Detections.row_fields, "xywhr")
    kind: ClassVar[str] = "oriented-detections"
    object_fields: ClassVar[Mapping[str, str]] = {**Detections.object_fields, "xywhr": "xywhr"}

    xywhr: Floats

    def __post_init__(self) -> None:
        super().__post_init__()
        boxes = as_boxes(self.xywhr, "xywhr", 5)
        if len(boxes) != len(self):
            raise InputError("xywhr do not fit", found=str(boxes.shape), expected=f"({len(self)}, 5)")
        store(self, "xywhr", boxes)

    @classmethod
    def from_xywhr(
        cls,
        xywhr: Any,
        confidence: Any,
        class_id: Any,
        *,
        class_names: Sequence[str],
        image_size: tuple[int, int],
        path: str | None = None,
    ) -> OrientedDetections:
        """Works out the upright boxes, clipped to the image."""
        corners = xywhr_to_corners(xywhr)
        upright = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
        height, width = checked_size(image_size)
        return cls(
            xyxy=upright.clip(0, (width, height, width, height)),
            confidence=confidence,
            class_id=class_id,
            class_names=tuple(class_names),
            image_size=(height, width),
            path=path,
            xywhr=xywhr,
        )

    def shapes(self) -> Shapes:
        """What is drawn: the rotated boxes."""
        return replace(super().shapes(), corners=self.corners)

    def _coco_shapes(self) -> tuple[Sequence[float], list[dict[str, Any]]]:
        areas: list[float] = plain(self.xywhr[:, 2] * self.xywhr[:, 3])
        return areas, [{"segmentation": [plain(corners.reshape(-1))]} for corners in self.corners]

    def _supervision_fields(self, supervision: Any) -> dict[str, Any]:
        fields = super()._supervision_fields(supervision)
        return fields | {"data": fields["data"] | {"xyxyxyxy": self.corners}}

    @property
    def corners(self) -> Floats:
        """float32 `(N, 4, 2)` corners x, y, in turn around the box."""
        return xywhr_to_corners(self.xywhr)
