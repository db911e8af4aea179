"""Results with one box per object; each other kind adds a field to `Detections`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError
from lensmount_vision.images.checks import Floats, Indices, as_array, as_boxes, as_class_ids, as_scores, check_fraction
from lensmount_vision.results.masks import Masks, checked_size
from lensmount_vision.results.rotated_boxes import xywhr_to_corners
from lensmount_vision.results.rows import Rows, checked_names, class_name, resolve_classes, store

if TYPE_CHECKING:
    import supervision

D = TypeVar("D", bound="Detections")


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections(Rows):
    """Boxes of one image.

    Attributes:
        xyxy: float32 `(N, 4)` corners in pixels of the original image, unrounded; `(0, 4)` when empty.
        confidence: float32 `(N,)`, best first as models give them.
        class_id: int64 `(N,)`, numbers into `class_names`.
        class_names: Names of *all* classes of the model, by id.
        image_size: `(height, width)` of the original image.
        path: Where the image came from, if it came from a file or address.

    Raises:
        InputError: Arrays do not fit together, are not numeric or not finite.
    """

    row_fields: ClassVar[tuple[str, ...]] = ("xyxy", "confidence", "class_id")
    kind: ClassVar[str] = "detections"

    xyxy: Floats
    confidence: Floats
    class_id: Indices
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    path: str | None = None

    def __post_init__(self) -> None:
        boxes = as_boxes(self.xyxy, "xyxy")
        store(self, "xyxy", boxes)
        store(self, "confidence", as_scores(self.confidence, len(boxes), "confidence"))
        store(self, "class_id", as_class_ids(self.class_id, len(boxes)))
        store(self, "class_names", checked_names(self.class_names))
        store(self, "image_size", checked_size(self.image_size))
        store(self, "path", None if self.path is None else str(self.path))

    @classmethod
    def empty(cls, image_size: tuple[int, int], class_names: Sequence[str] = (), path: str | None = None) -> Detections:
        """No boxes."""
        return Detections(
            xyxy=np.zeros((0, 4), np.float32),
            confidence=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int64),
            class_names=tuple(class_names),
            image_size=image_size,
            path=path,
        )

    @property
    def class_name(self) -> NDArray[np.str_]:
        """Array of str `(N,)`: each object's class name; `class_7` for an id without one."""
        return np.array([class_name(self.class_names, i) for i in self.class_id.tolist()], dtype=np.str_)

    def filter(
        self: D, *, confidence: float | None = None, classes: Iterable[int | str] | int | str | None = None
    ) -> D:
        """The objects that pass every condition given.

        Args:
            confidence: Lowest confidence that passes.
            classes: Class ids or names that pass.

        Raises:
            OptionError: The confidence is not in 0..1, or a class is not known.
        """
        keep = np.ones(len(self), np.bool_)
        if confidence is not None:
            keep &= self.confidence >= np.float32(check_fraction(confidence, "confidence"))
        if classes is not None:
            keep &= np.isin(self.class_id, resolve_classes(classes, self.class_names))
        return self[keep]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; `results.from_dict` makes an equal result of them."""
        from lensmount_vision.results.formats import to_dict

        return to_dict(self)

    def to_coco(
        self,
        *,
        image_id: int | str = 0,
        annotation_start: int = 1,
        category_ids: Mapping[int, int] | Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:
        """COCO annotations, which also serve as COCO results (they carry `score`).

        Args:
            image_id: The image's id.
            annotation_start: Id of the first annotation; the others follow.
            category_ids: COCO category by class id (a mapping or sequence); None takes class ids as they are.

        Returns:
            One dict per object: `id image_id category_id bbox` (x, y, width, height) `area iscrowd score`, and
            `segmentation` (run lengths) or `keypoints num_keypoints` where the result has them.

        Raises:
            OptionError: A class id has no category.
        """
        from lensmount_vision.results.formats import to_coco

        return to_coco(self, image_id=image_id, annotation_start=annotation_start, category_ids=category_ids)

    def to_supervision(self) -> supervision.Detections | supervision.KeyPoints:
        """A `supervision.Detections` (`supervision.KeyPoints` for keypoints), with names in `data["class_name"]`.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        from lensmount_vision.results.formats import to_supervision

        return to_supervision(self)

    def draw(
        self,
        image: Any,
        *,
        labels: bool = True,
        confidence: bool = True,
        masks: bool = True,
        thickness: int | None = None,
        color: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """A BGR copy of the image with the result drawn on it; the options are those of `results.drawing.draw`."""
        from lensmount_vision.results.drawing import draw

        return draw(image, self, labels=labels, confidence=confidence, masks=masks, thickness=thickness, color=color)


@dataclass(frozen=True, eq=False, kw_only=True)
class InstanceSegmentation(Detections):
    """Boxes with masks.

    Attributes:
        masks: One mask per box, compact; `.masks.dense()` for `(N, H, W)`.
    """

    row_fields: ClassVar[tuple[str, ...]] = (*Detections.row_fields, "masks")
    kind: ClassVar[str] = "instance-segmentation"

    masks: Masks

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.masks, Masks):
            raise InputError(
                "masks have the wrong type", found=type(self.masks).__name__, expected="Masks", fix="Masks.from_dense"
            )
        if len(self.masks) != len(self) or self.masks.image_size != self.image_size:
            raise InputError(
                "masks do not fit the boxes", found=repr(self.masks), expected=f"{len(self)} of {self.image_size}"
            )


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


KeypointDetections = Keypoints


@dataclass(frozen=True, eq=False, kw_only=True)
class OrientedDetections(Detections):
    """Rotated boxes; `xyxy` are the upright boxes around them.

    Attributes:
        xywhr: float32 `(N, 5)` centre x, centre y, width, height in original pixels, angle in radians (clockwise, as y
            points down).
    """

    row_fields: ClassVar[tuple[str, ...]] = (*Detections.row_fields, "xywhr")
    kind: ClassVar[str] = "oriented-detections"

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

    @property
    def corners(self) -> Floats:
        """float32 `(N, 4, 2)` corners x, y, in turn around the box."""
        return xywhr_to_corners(self.xywhr)
