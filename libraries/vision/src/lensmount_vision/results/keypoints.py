"""Boxes with keypoints: the result of pose models."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lensmount.errors import InputError
from lensmount_vision.images.checks import Floats, as_array
from lensmount_vision.results.detections import Detections
from lensmount_vision.results.formats import coco_keypoints, import_supervision
from lensmount_vision.results.rows import checked_names, store
from lensmount_vision.results.shapes import Shapes

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Keypoints(Detections):
    """Boxes with keypoints.

    Attributes:
        keypoints: float32 `(N, K, 3)`: x, y in original pixels and the confidence that the point is visible, 0..1; or
            `(N, K, 2)` of models that say where points are, and not whether they can be seen.
        keypoint_names: Names of the K points, or empty.
        skeleton: Pairs of point numbers to join when drawing.
    """

    row_fields: ClassVar[tuple[str, ...]] = (*Detections.row_fields, "keypoints")
    kind: ClassVar[str] = "keypoints"
    whole_fields: ClassVar[tuple[str, ...]] = (*Detections.whole_fields, "keypoint_names", "skeleton", "point_values")
    object_fields: ClassVar[Mapping[str, str]] = {**Detections.object_fields, "keypoints": "keypoints"}

    keypoints: Floats
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        points = as_array(self.keypoints, "keypoints")
        if points.size == 0 and points.ndim != 3:
            points = points.reshape(0, len(self.keypoint_names), 3)
        if points.ndim != 3 or points.shape[0] != len(self) or points.shape[2] not in (2, 3):
            expected = f"({len(self)}, K, 3), or ({len(self)}, K, 2) without visibility"
            raise InputError("keypoints have the wrong shape", found=str(points.shape), expected=expected)
        names = checked_names(self.keypoint_names)
        if names and len(names) != points.shape[1]:
            raise InputError("keypoint names do not fit", found=str(len(names)), expected=f"{points.shape[1]} or none")
        skeleton = tuple((int(a), int(b)) for a, b in self.skeleton)
        if len(self) and any(not 0 <= end < points.shape[1] for pair in skeleton for end in pair):
            raise InputError("the skeleton names points that are not there", found=str(skeleton))
        store(self, "keypoints", points)
        store(self, "keypoint_names", names)
        store(self, "skeleton", skeleton)

    @property
    def point_values(self) -> int:
        """Values of a point: 3, or 2 where the model says nothing of visibility."""
        return int(self.keypoints.shape[2])

    @classmethod
    def fields_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """As for every result; a picture without objects has points of as many values as others."""
        found = super().fields_of(data)
        values = found.pop("point_values", 3)
        if not data["objects"]:
            found["keypoints"] = np.empty((0, len(found.get("keypoint_names", ())), int(values)), np.float32)
        return found

    def shapes(self) -> Shapes:
        """What is drawn: boxes, points and the lines between them."""
        return replace(super().shapes(), keypoints=self.keypoints, skeleton=self.skeleton)

    def _coco_shapes(self) -> tuple[Sequence[float], list[dict[str, Any]]]:
        return super()._coco_shapes()[0], [coco_keypoints(points) for points in self.keypoints]

    def to_supervision(self) -> supervision.KeyPoints:
        """A `supervision.KeyPoints`, with names in `data["class_name"]`; it shares no memory with the result.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        made = import_supervision().KeyPoints
        # The name of the argument changed in supervision 0.29.
        current = "keypoint_confidence" in inspect.signature(made.__init__).parameters
        sure = self.keypoints[..., 2].copy() if self.point_values == 3 else None
        per_point = {"keypoint_confidence" if current else "confidence": sure}
        if current:
            per_point["detection_confidence"] = self.confidence.copy()
        data: dict[str, Any] = {"class_name": self.class_name}
        if self.tracker_id is not None:  # supervision's keypoints have no field for it
            data["tracker_id"] = self.tracker_id.copy()
        return made(xy=self.keypoints[..., :2].copy(), class_id=self.class_id.copy(), data=data, **per_point)


KeypointDetections = Keypoints
