"""Large pictures in tiles, so that small objects are seen at their own size, and the results put together again."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError, OptionError
from lensmount.specs.options import flag, fraction, is_whole, one_of
from lensmount_vision.images.image import Image
from lensmount_vision.results.detections import Detections
from lensmount_vision.results.keypoints import Keypoints
from lensmount_vision.results.masks import Masks
from lensmount_vision.results.oriented import OrientedDetections

if TYPE_CHECKING:
    from lensmount_vision.images.image import Color

Slice = bool | tuple[int, int]
Merge = Literal["nmm", "nms"]

_USUAL = (640, 640)


class Sliced:
    """A model that looks at large pictures tile by tile; everything else is the model's own.

        sliced = Sliced(model, (640, 640))
        (result,) = sliced("street-4k.jpg", confidence=0.3)

    A picture that is not larger than a tile goes through as it is. `lensmount_vision.models.stream(sliced, source)`
    takes it like any model.

    Args:
        model: A loaded model that gives boxes, with masks or keypoints or not.
        size: `(width, height)` of a tile in pixels; None for the size of the model's input.
        overlap: Share of a tile that it has in common with the next, 0 to 0.9. Objects that are smaller than that are
            whole in some tile.
        merge: What becomes of an object that was found in several tiles: `"nmm"` joins boxes and masks, `"nms"` keeps
            the best. Keypoints and rotated boxes cannot be joined: of them the best is kept.
        threshold: Two objects of one class are one where the smaller box lies in the other by more than this share.
        whole: Looks at the whole picture as well, for objects that are larger than a tile.

    Raises:
        OptionError: One of these is out of range, or the model gives no boxes that could be put together.
    """

    def __init__(
        self,
        model: Any,
        size: tuple[int, int] | None = None,
        *,
        overlap: float = 0.2,
        merge: Merge = "nmm",
        threshold: float = 0.5,
        whole: bool = True,
    ) -> None:
        if size is None:
            height, width = getattr(getattr(model, "preprocess_spec", None), "size", None) or _USUAL
            size = (width, height)
        pair = (
            isinstance(size, (tuple, list)) and len(size) == 2 and all(is_whole(side) and side >= 16 for side in size)
        )
        if not pair:
            raise OptionError(
                "the size of a tile is not valid", found=repr(size), expected="(width, height), each 16 pixels or more"
            )
        if fraction("overlap", overlap) > 0.9:
            raise OptionError("overlap is out of range", found=repr(overlap), expected="a number from 0 to 0.9")
        self._model = model
        self.size = (int(size[0]), int(size[1]))
        self.overlap = float(overlap)
        self.merge = one_of("merge", merge, ("nmm", "nms"))
        self.threshold = fraction("threshold", threshold)
        self.whole = flag("whole", whole)
        self.__signature__ = inspect.signature(model)  # what a call takes is what the model's takes

    def __getattr__(self, name: str) -> Any:
        # The stages of a single picture are not those of tiles: what looks for them finds a model that is called.
        if name in ("postprocess", "infer_pictures", "stream", "_model"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def __call__(self, images: Any, *, color: Color | None = None, **options: Any) -> list[Any]:
        """One result per picture; see the model's own call.

        Raises:
            OptionError: The model gives no boxes.
        """
        from lensmount_vision.images.loading import load_many

        return [self._one(picture, options) for picture in load_many(images, color=color)]

    def _one(self, picture: Image, options: dict[str, Any]) -> Any:
        places = windows(picture.size, self.size, self.overlap)
        if len(places) == 1:
            (result,) = self._model([picture], **options)
            return result
        parts = [
            Image(np.ascontiguousarray(picture.pixels[y : y + h, x : x + w]), picture.color) for x, y, w, h in places
        ]
        if self.whole:
            parts.append(picture)
            places = [*places, (0, 0, picture.width, picture.height)]
        found = self._model(parts, **options)
        moved = [_placed(r, x, y, picture) for r, (x, y, _, _) in zip(found, places, strict=True)]
        most = options.get("max_detections")
        joined = _joined(moved, self.merge, self.threshold)
        return joined if most is None else joined[:most]


def sliced(model: Any, given: Any) -> Any:
    """The model, looking at tiles where `slice=` asks for it.

    Args:
        model: A loaded model.
        given: False; True for tiles of the model's input size; or `(width, height)`.
    """
    if given is False:
        return model
    return Sliced(model, None if given is True else given)


def windows(size: tuple[int, int], tile: tuple[int, int], overlap: float) -> list[tuple[int, int, int, int]]:
    """Tiles of one size, as few as cover a picture with at least the overlap, evenly laid.

    Args:
        size: `(height, width)` of the picture.
        tile: `(width, height)` of a tile; cut to the picture's.
        overlap: Least share that neighbours have in common.

    Returns:
        `(x, y, width, height)` of each, row by row.
    """

    def starts(length: int, side: int) -> list[int]:
        steps = math.ceil((length - side) / max(1, math.floor(side * (1 - overlap))))
        return [round((length - side) * i / steps) for i in range(steps + 1)] if steps else [0]

    height, width = size
    w, h = min(tile[0], width), min(tile[1], height)
    return [(x, y, w, h) for y in starts(height, h) for x in starts(width, w)]


def _placed(result: Any, x: int, y: int, picture: Image) -> Any:
    """A tile's result in the whole picture's pixels."""
    if not isinstance(result, Detections):
        raise OptionError(
            "tiles are put together by boxes, and this result has none",
            found=getattr(result, "kind", type(result).__name__),
            expected="detections, masks, keypoints or rotated boxes",
            fix="leave slice out",
        )
    shift = np.array([x, y], np.float32)
    moved: dict[str, Any] = {"xyxy": result.xyxy + np.tile(shift, 2)}
    masks = getattr(result, "masks", None)
    if masks is not None:
        crops = [masks.crop(i) for i in range(len(masks))]
        # An empty crop lies nowhere.
        moved["masks"] = Masks(crops, masks.origins + np.array([x, y], np.int64), picture.size)
    if isinstance(result, Keypoints):
        moved["keypoints"] = np.concatenate((result.keypoints[..., :2] + shift, result.keypoints[..., 2:]), -1)
    if isinstance(result, OrientedDetections):
        moved["xywhr"] = np.concatenate((result.xywhr[:, :2] + shift, result.xywhr[:, 2:]), -1)
    return replace(result, image_size=picture.size, path=picture.path, **moved)


def _joined(parts: Sequence[Any], merge: str, threshold: float) -> Any:
    """One result of several of one picture: rows that show the same object become one, best first."""
    kind = type(parts[0])
    if any(type(part) is not kind for part in parts):
        raise InputError("tiles gave results of several kinds", found=str({type(part).__name__ for part in parts}))
    columns: dict[str, Any] = {}
    for name in kind.row_fields:
        values = [getattr(part, name) for part in parts]
        if any(value is None for value in values):
            columns[name] = None
        elif isinstance(values[0], Masks):
            crops = [value.crop(i) for value in values for i in range(len(value))]
            columns[name] = Masks(crops, np.concatenate([value.origins for value in values]), values[0].image_size)
        else:
            columns[name] = np.concatenate(values)
    every = replace(parts[0], **columns)
    every = every[np.argsort(-every.confidence, kind="stable")]
    joins = merge == "nmm" and not isinstance(every, (Keypoints, OrientedDetections))
    kept, boxes, groups = grouped(every.xyxy, every.class_id, threshold, grow=joins)
    result = every[kept]
    if not joins:
        return result
    masks = getattr(every, "masks", None)
    if masks is None:
        return replace(result, xyxy=boxes)
    unions = [_union(masks, rows) for rows in groups]
    return replace(result, xyxy=boxes, masks=Masks.from_crops(unions, masks.image_size))


def grouped(
    boxes: NDArray[np.float32], classes: NDArray[np.int64], threshold: float, *, grow: bool
) -> tuple[list[int], NDArray[np.float32], list[list[int]]]:
    """Which rows show one object: greedy, the best first, within each class.

    Args:
        boxes: `(N, 4)` xyxy, best first.
        classes: `(N,)`.
        threshold: Share of the smaller box above which two are one.
        grow: Whether a box grows by those that join it, and is compared anew.

    Returns:
        The best row of each group, its box `(G, 4)`, and all rows of each group.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    made: list[NDArray[np.float32]] = []
    groups: list[list[int]] = []
    for row in range(len(boxes)):
        if not left[row]:
            continue
        left[row] = False
        box, rows = boxes[row].copy(), [row]
        while True:
            others = np.flatnonzero(left & (classes == classes[row]))
            corner, far = np.maximum(boxes[others, :2], box[:2]), np.minimum(boxes[others, 2:], box[2:])
            shared = (far - corner).clip(0).prod(1)
            smaller = np.minimum(areas[others], (box[2:] - box[:2]).prod())
            hits = others[shared > threshold * np.maximum(smaller, 1e-9)]
            if not len(hits):
                break
            left[hits] = False
            rows += hits.tolist()
            if not grow:
                break
            box[:2] = np.minimum(box[:2], boxes[hits, :2].min(0))
            box[2:] = np.maximum(box[2:], boxes[hits, 2:].max(0))
        kept.append(row)
        made.append(box)
        groups.append(rows)
    return kept, np.array(made, np.float32).reshape(-1, 4), groups


def _union(masks: Masks, rows: Sequence[int]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The crop and place of several masks together."""
    crops = [(masks.crop(i), masks.origins[i].tolist()) for i in rows]
    crops = [(crop, origin) for crop, origin in crops if crop.size]
    if not crops:
        return np.zeros((0, 0), np.bool_), (0, 0)
    x = min(origin[0] for _, origin in crops)
    y = min(origin[1] for _, origin in crops)
    right = max(origin[0] + crop.shape[1] for crop, origin in crops)
    bottom = max(origin[1] + crop.shape[0] for crop, origin in crops)
    joined = np.zeros((bottom - y, right - x), np.bool_)
    for crop, (left, top) in crops:
        joined[top - y : top - y + crop.shape[0], left - x : left - x + crop.shape[1]] |= crop
    return joined, (x, y)
