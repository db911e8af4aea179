"""Results with one box per object; every other kind (here masks) adds a field to `Detections`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError
from lensmount_vision.images.checks import Floats, Indices, as_boxes, as_class_ids, as_scores, check_fraction
from lensmount_vision.results.boxes import area
from lensmount_vision.results.drawing import draw
from lensmount_vision.results.formats import (
    coco_annotations,
    coco_category,
    import_supervision,
    plain,
    supervision_masks,
)
from lensmount_vision.results.masks import Masks, checked_size
from lensmount_vision.results.rows import Rows, checked_names, class_name, resolve_classes, store
from lensmount_vision.results.shapes import Shapes

if TYPE_CHECKING:
    import supervision

D = TypeVar("D", bound="Detections")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Detections(Rows):
    """Boxes of one image.

    Attributes:
        xyxy: float32 `(N, 4)` corners in pixels of the original image, unrounded; `(0, 4)` when empty.
        confidence: float32 `(N,)`, best first as models give them.
        class_id: int64 `(N,)`, numbers into `class_names`.
        class_names: Names of *all* classes of the model, by id.
        image_size: `(height, width)` of the original image.
        path: Where the image came from, if it came from a file or address.
        tracker_id: int64 `(N,)` numbers that objects keep from frame to frame, from 1, and -1 for one that is not
            followed yet; None where nothing was tracked.

    Raises:
        InputError: Arrays do not fit together, are not numeric or not finite.
    """

    row_fields: ClassVar[tuple[str, ...]] = ("xyxy", "confidence", "class_id", "tracker_id")
    kind: ClassVar[str] = "detections"
    whole_fields: ClassVar[tuple[str, ...]] = ("image_size", "path", "class_names")
    object_fields: ClassVar[Mapping[str, str]] = {
        n: n for n in ("class_id", "class_name", "confidence", "xyxy", "tracker_id")
    }

    xyxy: Floats
    confidence: Floats
    class_id: Indices
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    path: str | None = None
    tracker_id: Indices | None = None

    def __post_init__(self) -> None:
        boxes = as_boxes(self.xyxy, "xyxy")
        store(self, "xyxy", boxes)
        store(self, "confidence", as_scores(self.confidence, len(boxes), "confidence"))
        store(self, "class_id", as_class_ids(self.class_id, len(boxes)))
        store(self, "class_names", checked_names(self.class_names))
        store(self, "image_size", checked_size(self.image_size))
        store(self, "path", None if self.path is None else str(self.path))
        if self.tracker_id is not None:
            ids = np.asarray(self.tracker_id)
            if ids.shape != (len(boxes),) or (ids.size and ids.dtype.kind not in "iu"):
                raise InputError(
                    "tracker_id does not fit the boxes",
                    found=f"{ids.dtype} {ids.shape}",
                    expected=f"({len(boxes)},) whole numbers",
                )
            store(self, "tracker_id", ids.astype(np.int64))

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

    @property
    def counts(self) -> dict[str, int]:
        """How many objects there are of each class that has any, the most frequent first."""
        return dict(Counter(self.class_name.tolist()).most_common())

    def summary(self) -> str:
        """How many objects, and of which classes: `5: 4 person, 1 bus`."""
        found = [f"{count} {name}" for name, count in self.counts.items()]
        shown = [*found[:5], f"{len(found) - 5} more classes"] if len(found) > 6 else found
        return f"{len(self)}: {', '.join(shown)}" if found else "none"

    def __str__(self) -> str:
        """The line of `repr`, and one line for each object: class, confidence and corners."""
        width = max((len(name) for name in self.counts), default=0)
        rows = zip(self.class_name.tolist(), self.confidence.tolist(), self.xyxy.tolist(), strict=True)
        lines = [f"  {name:<{width}}  {score:.3f}  {' '.join(f'{v:7.1f}' for v in box)}" for name, score, box in rows]
        return "\n".join([repr(self), *lines])

    def _named(self, key: str) -> NDArray[np.bool_]:
        """The objects of a class; none where the model has the class and the picture does not."""
        return np.isin(self.class_id, resolve_classes(key, self.class_names))

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

    def shapes(self) -> Shapes:
        """What is drawn: the boxes with class names and confidences; a followed object has a colour of its own."""
        numbers, names = self.class_id.tolist(), self.class_name.tolist()
        for row, number in enumerate([] if self.tracker_id is None else self.tracker_id.tolist()):
            if number > 0:
                numbers[row], names[row] = number, f"#{number} {names[row]}"
        return Shapes(
            numbers=numbers,
            names=names,
            scores=self.confidence,
            boxes=self.xyxy,
            outlined=True,
        )

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
            `segmentation` (run lengths), `keypoints num_keypoints` and `track_id` where the result has them.

        Raises:
            OptionError: A class id has no category.
        """
        areas, shapes = self._coco_shapes()
        if self.tracker_id is not None:
            shapes = [{**s, "track_id": number} for s, number in zip(shapes, self.tracker_id.tolist(), strict=True)]
        return coco_annotations(
            self.xyxy,
            areas,
            self.confidence,
            [coco_category(class_id, category_ids) for class_id in self.class_id.tolist()],
            shapes,
            image_id=image_id,
            annotation_start=annotation_start,
        )

    def _coco_shapes(self) -> tuple[Sequence[float], list[dict[str, Any]]]:
        """The area of each object, and what else COCO knows of it."""
        return plain(area(self.xyxy)), [{}] * len(self)

    def to_supervision(self) -> supervision.Detections | supervision.KeyPoints:
        """A `supervision.Detections` (`supervision.KeyPoints` for keypoints), with names in `data["class_name"]`.

        Masks stay compact: from supervision 0.28 on they are its `CompactMask`, before they are dense.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        supervision = import_supervision()
        return supervision.Detections(**self._supervision_fields(supervision))

    def _supervision_fields(self, supervision: Any) -> dict[str, Any]:
        """What the module's `Detections` is made of; it shares no memory with the result."""
        return {
            "xyxy": self.xyxy.copy(),
            "confidence": self.confidence.copy(),
            "class_id": self.class_id.copy(),
            "tracker_id": None if self.tracker_id is None else self.tracker_id.copy(),
            "data": {"class_name": self.class_name},
        }

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
        return draw(image, self, labels=labels, confidence=confidence, masks=masks, thickness=thickness, color=color)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InstanceSegmentation(Detections):
    """Boxes with masks.

    Attributes:
        masks: One mask per box, compact; `.masks.dense()` for `(N, H, W)`.
    """

    row_fields: ClassVar[tuple[str, ...]] = (*Detections.row_fields, "masks")
    kind: ClassVar[str] = "instance-segmentation"
    object_fields: ClassVar[Mapping[str, str]] = {**Detections.object_fields, "mask": "masks"}

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

    def shapes(self) -> Shapes:
        """What is drawn: boxes and masks."""
        return replace(super().shapes(), masks=self.masks)

    def _coco_shapes(self) -> tuple[Sequence[float], list[dict[str, Any]]]:
        return self.masks.area.tolist(), [{"segmentation": mask} for mask in self.masks.to_rle()]

    def _supervision_fields(self, supervision: Any) -> dict[str, Any]:
        return super()._supervision_fields(supervision) | {"mask": supervision_masks(supervision, self.masks)}
