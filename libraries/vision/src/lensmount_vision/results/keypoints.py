"""Boxes with keypoints: the result of pose models."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lensmount.errors import InputError
from lensmount_vision.images.checks import Floats, as_array
from lensmount_vision.results.detections import Detections
from lensmount_vision.results.formats import coco_keypoints, import_supervision
from lensmount_vision.results.rows import checked_names, store
from lensmount_vision.results.shapes import Shapes

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False, kw_only=True)
class Keypoints(Detections):
    """Boxes with keypoints.

    Attributes:
        keypoints: float32 `(N, K, 3)`: x, y in original pixels and the confidence that the point is visible, 0..1.
        keypoint_names: Names of the K points, or empty.
        skeleton: Pairs of point numbers to join when drawing.
    """

    row_fields: ClassVar[tuple[str, ...]] = (*Detections.row_fields, "keypoints")
    kind: ClassVar[str] = "keypoints"
    whole_fields: ClassVar[tuple[str, ...]] = (*Detections.whole_fields, "keypoint_names", "skeleton")
    object_fields: ClassVar[Mapping[str, str]] = {**Detections.object_fields, "keypoints": "keypoints"}

    keypoints: Floats
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        points = as_array(self.keypoints, "keypoints")
        if points.size == 0:
            points = points.reshape(0, points.shape[1] if points.ndim == 3 else len(self.keypoint_names), 3)
        if points.ndim != 3 or points.shape[0] != len(self) or points.shape[2] != 3:
            raise InputError("keypoints have the wrong shape", found=str(points.shape), expected=f"({len(self)}, K, 3)")
        names = checked_names(self.keypoint_names)
        if names and len(names) != points.shape[1]:
            raise InputError("keypoint names do not fit", found=str(len(names)), expected=f"{points.shape[1]} or none")
        skeleton = tuple((int(a), int(b)) for a, b in self.skeleton)
        if len(self) and any(not 0 <= end < points.shape[1] for pair in skeleton for end in pair):
            raise InputError("the skeleton names points that are not there", found=str(skeleton))
        store(self, "keypoints", points)
        store(self, "keypoint_names", names)
        store(self, "skeleton", skeleton)

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
        per_point = {"keypoint_confidence" if current else "confidence": self.keypoints[..., 2].copy()}
        if current:
            per_point["detection_confidence"] = self.confidence.copy()
        data: dict[str, Any] = {"class_name": self.class_name}
        if self.tracker_id is not None:  # supervision's keypoints have no field for it
            data["tracker_id"] = self.tracker_id.copy()
        return made(xy=self.keypoints[..., :2].copy(), class_id=self.class_id.copy(), data=data, **per_point)


KeypointDetections = Keypoints
