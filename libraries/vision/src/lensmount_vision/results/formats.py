"""What the forms of other tools have in common for all results: plain values, COCO annotations, supervision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import MissingDependencyError, OptionError
from lensmount_vision.results.boxes import xyxy_to_xywh
from lensmount_vision.results.masks import Masks


def plain(value: Any) -> Any:
    """The same in JSON's types.

    Floating arrays become nested lists of the shortest decimals that read back as the same float32 (0.9, not
    0.8999999761581421), other arrays and tuples lists, masks run lengths.
    """
    if isinstance(value, Masks):
        return value.to_rle()
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind != "f":
        return value.tolist()
    if value.ndim == 1:
        return [float(str(number)) for number in value]
    return [plain(part) for part in value]


# --- COCO -------------------------------------------------------------------------------------------------------------


def coco_annotations(
    boxes: NDArray[np.float32],
    areas: Iterable[float],
    scores: NDArray[np.float32],
    categories: Iterable[int],
    shapes: Iterable[Mapping[str, Any]],
    *,
    image_id: int | str,
    annotation_start: int,
) -> list[dict[str, Any]]:
    """COCO annotations of one image; see `Detections.to_coco`.

    Args:
        boxes: float32 `(N, 4)` corners.
        areas: Of each object, in pixels.
        scores: float32 `(N,)`.
        categories: COCO category of each object.
        shapes: Of each object, what it has besides a box: `segmentation`, `keypoints`.
        image_id: The image's id.
        annotation_start: Id of the first annotation; the others follow.
    """
    columns = (categories, plain(xyxy_to_xywh(boxes)), areas, plain(scores), shapes)
    return [
        {
            "id": number,
            "image_id": image_id,
            "category_id": category,
            "bbox": box,
            "area": float(pixels),
            "iscrowd": 0,
            "score": score,
            **shape,
        }
        for number, (category, box, pixels, score, shape) in enumerate(zip(*columns, strict=True), annotation_start)
    ]


def coco_category(class_id: int, category_ids: Mapping[int, int] | Sequence[int] | None) -> int:
    """The COCO category of a class.

    Raises:
        OptionError: The class has none.
    """
    if category_ids is None:
        return class_id
    known = class_id in category_ids if isinstance(category_ids, Mapping) else 0 <= class_id < len(category_ids)
    if not known:
        raise OptionError(f"class {class_id} has no category", found=f"{len(category_ids)} category_ids")
    return int(category_ids[class_id])


def coco_keypoints(points: NDArray[np.float32]) -> dict[str, Any]:
    """COCO's flat x, y, v: 2 for visible, 1 for a point that is placed but probably hidden. 2 where nothing is said."""
    values: list[float] = []
    for x, y, *confidence in points:
        values += [float(str(x)), float(str(y)), 2 if not confidence or confidence[0] >= 0.5 else 1]
    return {"keypoints": values, "num_keypoints": len(points)}


# --- supervision ------------------------------------------------------------------------------------------------------


def import_supervision() -> Any:
    """The module, or an error that says how to install it."""
    try:
        import supervision
    except ImportError as error:
        raise MissingDependencyError(
            "to_supervision() needs the supervision package",
            found=str(error),
            fix='pip install "lensmount[supervision]"',
        ) from error
    return supervision


def supervision_masks(supervision: Any, masks: Masks) -> Any:
    """Masks as supervision keeps them: its `CompactMask`, made from the crops; dense `(N, H, W)` bool before 0.28.

    Each crop is encoded by supervision itself and then moved to its place, so that neither a dense mask is made nor
    supervision's own encoding assumed. The result shares no memory with `masks`.
    """
    kind = getattr(supervision, "CompactMask", None)
    if kind is None or 0 in masks.image_size:
        return masks.dense()
    if not len(masks):
        return kind([], np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32), masks.image_size)
    parts = []
    for index, (x, y) in enumerate(masks.origins.tolist()):
        crop = masks.crop(index)
        if not crop.size:
            crop, x, y = np.zeros((1, 1), np.bool_), 0, 0
        height, width = crop.shape
        whole = np.array([[0, 0, width - 1, height - 1]], np.float32)  # supervision counts the last pixel in
        parts.append(kind.from_dense(crop[None], whole, (height, width)).with_offset(x, y, masks.image_size))
    return kind.merge(parts)
