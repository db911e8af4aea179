"""Box arithmetic shared by every model: conversions, overlap, non-maximum suppression.

Boxes are float32 `(N, 4)` rows `x1, y1, x2, y2` in continuous pixel coordinates (pixel `i` covers `[i, i + 1)`), unless a
name says otherwise. Nothing here changes its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensmount.errors import InputError, OptionError

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

# Rows compared with all that follow in one numpy step of the suppression: the temporaries stay in the L2 cache and the
# calls few. 32 and 128 are slower at 1,000 candidates.
_BLOCK = 64


def as_boxes(boxes: ArrayLike, name: str = "boxes", columns: int = 4) -> Floats:
    """Checks and casts an array of boxes.

    Args:
        boxes: Anything that makes an `(N, columns)` array; an empty list stands for no boxes.
        name: What the error message calls it.
        columns: Numbers per box: 4, or 5 for rotated boxes.

    Returns:
        float32 `(N, columns)`; the same array where nothing had to be cast.

    Raises:
        InputError: Wrong shape, not numeric, or not finite.
    """
    array = _numeric(boxes, name)
    if array.size == 0 and array.ndim <= 2:
        return np.zeros((0, columns), np.float32)
    if array.ndim != 2 or array.shape[1] != columns:
        raise InputError(f"{name} have the wrong shape", found=str(array.shape), expected=f"(N, {columns})")
    if not np.isfinite(array).all():
        raise InputError(f"{name} are not finite", found="NaN or infinity", expected="finite numbers")
    return array.astype(np.float32, copy=False)


def as_scores(scores: ArrayLike, length: int | None = None, name: str = "scores") -> Floats:
    """Checks and casts one score per box to float32 `(N,)`.

    Raises:
        InputError: Wrong shape or length, not numeric, or not finite.
    """
    array = _numeric(scores, name)
    if array.size == 0 and array.ndim <= 2:
        array = array.reshape(0)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(N,)" if length is None else f"({length},), one per box"
        raise InputError(f"{name} have the wrong shape", found=str(array.shape), expected=expected)
    if not np.isfinite(array).all():
        raise InputError(f"{name} are not finite", found="NaN or infinity", expected="finite numbers")
    return array.astype(np.float32, copy=False)


def as_class_ids(class_ids: ArrayLike, length: int | None = None) -> Indices:
    """Checks and casts one class id per box to int64 `(N,)`; floats must hold whole numbers.

    Raises:
        InputError: Wrong shape or length, not numeric, or not whole.
    """
    array = _per_box(_numeric(class_ids, "class ids"), length)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.trunc(array)).all()):
        raise InputError("class ids are not whole numbers", found=str(array[:8]), expected="integers")
    return array.astype(np.int64, copy=False)


def _per_box(array: NDArray[Any], length: int | None) -> NDArray[Any]:
    """An `(N,)` view of class ids, or an error."""
    if array.size == 0 and array.ndim <= 2:
        array = array.reshape(0)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(N,)" if length is None else f"({length},), one per box"
        raise InputError("class ids have the wrong shape", found=str(array.shape), expected=expected)
    return array


def _numeric(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} are not an array", found=str(error), expected="rows of equal length") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} are not numeric", found=f"dtype {array.dtype}", expected="float32")
    return array


# --- conversions ------------------------------------------------------------------------------------------------------


def cxcywh_to_xyxy(boxes: ArrayLike) -> Floats:
    """Turns `(N, 4)` rows centre x, centre y, width, height into corners."""
    array = as_boxes(boxes)
    half = array[:, 2:] * np.float32(0.5)
    return np.concatenate((array[:, :2] - half, array[:, :2] + half), axis=1)


def xyxy_to_cxcywh(boxes: ArrayLike) -> Floats:
    """Turns corners into `(N, 4)` rows centre x, centre y, width, height."""
    array = as_boxes(boxes)
    size = array[:, 2:] - array[:, :2]
    return np.concatenate((array[:, :2] + size * np.float32(0.5), size), axis=1)


def xyxy_to_xywh(boxes: ArrayLike) -> Floats:
    """Turns corners into COCO's `(N, 4)` rows left, top, width, height."""
    array = as_boxes(boxes)
    return np.concatenate((array[:, :2], array[:, 2:] - array[:, :2]), axis=1)


def xywh_to_xyxy(boxes: ArrayLike) -> Floats:
    """Turns COCO's left, top, width, height into corners."""
    array = as_boxes(boxes)
    return np.concatenate((array[:, :2], array[:, :2] + array[:, 2:]), axis=1)


def xywhr_to_corners(boxes: ArrayLike) -> Floats:
    """Corners of rotated boxes.

    Args:
        boxes: `(N, 5)` rows centre x, centre y, width, height, angle in radians; with y pointing down, a growing angle
            turns clockwise.

    Returns:
        float32 `(N, 4, 2)`: top left, top right, bottom right, bottom left of the unrotated box, each turned.
    """
    array = as_boxes(boxes, "rotated boxes", 5).astype(np.float64)
    cos, sin = np.cos(array[:, 4]), np.sin(array[:, 4])
    along = np.stack((cos, sin), axis=1) * array[:, 2:3] / 2
    across = np.stack((-sin, cos), axis=1) * array[:, 3:4] / 2
    corners = array[:, None, :2] + np.stack((-along - across, along - across, along + across, across - along), axis=1)
    return corners.astype(np.float32)


def area(boxes: ArrayLike) -> Floats:
    """Area of each box in square pixels, float32 `(N,)`; a box turned inside out has none."""
    array = as_boxes(boxes)
    size = np.maximum(array[:, 2:] - array[:, :2], np.float32(0))
    result: Floats = size[:, 0] * size[:, 1]
    return result


# --- overlap ----------------------------------------------------------------------------------------------------------


def iou_matrix(a: ArrayLike, b: ArrayLike) -> Floats:
    """Intersection over union of every pair.

    Args:
        a: `(N, 4)` boxes xyxy.
        b: `(M, 4)` boxes xyxy.

    Returns:
        float32 `(N, M)` in 0..1; 0 for pairs without any area.
    """
    return np.nan_to_num(_iou(_Columns(as_boxes(a, "boxes a")), _Columns(as_boxes(b, "boxes b"))), copy=False)


class _Columns:
    """Boxes as contiguous columns, with their areas."""

    __slots__ = ("area", "x1", "x2", "y1", "y2")

    def __init__(self, boxes: Floats) -> None:
        self.x1, self.y1, self.x2, self.y2 = np.ascontiguousarray(boxes.T)
        self.area = area(boxes)

    def take(self, rows: Indices) -> _Columns:
        part = _Columns.__new__(_Columns)
        for name in self.__slots__:
            setattr(part, name, getattr(self, name)[rows])
        return part


def _iou(a: _Columns, b: _Columns) -> Floats:
    """IoU matrix; NaN where neither box has any area."""
    width = np.minimum(a.x2[:, None], b.x2)
    width -= np.maximum(a.x1[:, None], b.x1)
    np.maximum(width, np.float32(0), out=width)
    overlap = np.minimum(a.y2[:, None], b.y2)
    overlap -= np.maximum(a.y1[:, None], b.y1)
    np.maximum(overlap, np.float32(0), out=overlap)
    overlap *= width
    union = np.add(a.area[:, None], b.area, out=width)
    union -= overlap
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.divide(overlap, union, out=overlap)
    return result


def rotated_iou(a: ArrayLike, b: ArrayLike) -> Floats:
    """Probabilistic IoU of every pair of rotated boxes.

    Each box becomes the Gaussian with the mean and covariance of a uniform density over it; the overlap is one minus
    the Hellinger distance of the two ("Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object
    Detection", arXiv 2106.06072). It is 1 for equal boxes, and what oriented-box detectors are trained and suppressed
    with; it is not the IoU of the two areas.

    Args:
        a: `(N, 5)` rows centre x, centre y, width, height, angle in radians.
        b: `(M, 5)` rows of the same.

    Returns:
        float32 `(N, M)` in 0..1.
    """
    return _probabilistic_iou(
        _gaussians(as_boxes(a, "rotated boxes a", 5)), _gaussians(as_boxes(b, "rotated boxes b", 5))
    )


def _gaussians(boxes: Floats) -> NDArray[np.float64]:
    """Columns x, y and the covariance's a, b, c, with its determinant."""
    x, y, width, height, angle = boxes.astype(np.float64).T
    # A box without thickness has no density: a millionth of a pixel keeps the logarithm finite.
    along, across = np.maximum(width, 1e-6) ** 2 / 12, np.maximum(height, 1e-6) ** 2 / 12
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = along * cos**2 + across * sin**2, along * sin**2 + across * cos**2
    return np.stack((x, y, a, b, (along - across) * cos * sin, along * across), axis=1)


def _probabilistic_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> Floats:
    x1, y1, a1, b1, c1, det1 = first.T[:, :, None]
    x2, y2, a2, b2, c2, det2 = second.T[:, None, :]
    a, b, c, dx, dy = a1 + a2, b1 + b2, c1 + c2, x1 - x2, y1 - y2
    determinant = a * b - c * c
    distance = (a * dy * dy + b * dx * dx - 2 * c * dx * dy) / (4 * determinant)
    distance += 0.5 * np.log(determinant / (4 * np.sqrt(det1 * det2)))
    hellinger = np.sqrt(np.maximum(-np.expm1(-np.maximum(distance, 0)), 0))
    return (1 - hellinger).astype(np.float32)


# --- suppression ------------------------------------------------------------------------------------------------------


def top_candidates(scores: ArrayLike, k: int) -> Indices:
    """Indices of the `k` highest scores, best first; of equal scores the lower index comes first.

    Args:
        scores: `(N,)` numbers.
        k: How many at most.

    Returns:
        int64 `(min(k, N),)`.

    Raises:
        OptionError: `k` is negative.
    """
    values = as_scores(scores)
    if k < 0:
        raise OptionError("the number of candidates is not valid", found=str(k), expected="zero or more")
    if k == 0:
        return np.zeros(0, np.int64)
    if k >= len(values):
        return np.argsort(-values, kind="stable")
    # Partition finds the value at the cut; of those equal to it the first ones are taken, so the choice does not
    # depend on the partition's inner order.
    cut = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > cut)
    chosen = np.concatenate((above, np.flatnonzero(values == cut)[: k - len(above)]))
    chosen.sort()
    result: Indices = chosen[np.argsort(-values[chosen], kind="stable")]
    return result


def nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    class_ids: ArrayLike | None = None,
    *,
    iou_threshold: float = 0.5,
    max_detections: int | None = None,
) -> Indices:
    """Greedy non-maximum suppression.

    A box goes when its IoU with a better one that stays is *greater* than the threshold, as in torchvision. With
    `class_ids` only boxes of one class suppress each other; classes are compared as integers, so no precision is lost
    to shifted coordinates. Of equal scores the lower index is better.

    Args:
        boxes: `(N, 4)` xyxy.
        scores: `(N,)`.
        class_ids: `(N,)` whole numbers, or None for class-agnostic suppression.
        iou_threshold: 0..1.
        max_detections: Keeps the best so many; None for all.

    Returns:
        int64 indices of those kept, best first.

    Raises:
        InputError: Shapes do not fit, or numbers are not finite.
        OptionError: The threshold or `max_detections` is out of range.
    """
    columns = _Columns(as_boxes(boxes))
    threshold = np.float32(check_fraction(iou_threshold, "iou_threshold"))

    def overlapping(rows: Indices, others: Indices) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = _iou(columns.take(rows), columns.take(others)) > threshold
        return result

    return _suppress(overlapping, len(columns.x1), scores, class_ids, max_detections)


def nms_rotated(
    boxes: ArrayLike,
    scores: ArrayLike,
    class_ids: ArrayLike | None = None,
    *,
    iou_threshold: float = 0.5,
    max_detections: int | None = None,
) -> Indices:
    """Greedy suppression of `(N, 5)` rotated boxes xywhr by `rotated_iou`; everything else as in `nms`."""
    gaussians = _gaussians(as_boxes(boxes, "rotated boxes", 5))
    threshold = np.float32(check_fraction(iou_threshold, "iou_threshold"))

    def overlapping(rows: Indices, others: Indices) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = _probabilistic_iou(gaussians[rows], gaussians[others]) > threshold
        return result

    return _suppress(overlapping, len(gaussians), scores, class_ids, max_detections)


def check_fraction(value: float, name: str) -> float:
    """Returns a number in 0..1.

    Raises:
        OptionError: It is not one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise OptionError(f"{name} is not a number", found=repr(value), expected="a number in 0..1")
    if not 0 <= value <= 1 or math.isnan(value):
        raise OptionError(f"{name} is out of range", found=repr(value), expected="a number in 0..1")
    return float(value)


def _suppress(
    overlapping: Callable[[Indices, Indices], NDArray[np.bool_]],
    length: int,
    scores: ArrayLike,
    class_ids: ArrayLike | None,
    max_detections: int | None,
) -> Indices:
    """Greedy suppression in blocks of rows, given a test on pairs of indices."""
    if max_detections is not None and max_detections < 0:
        raise OptionError("max_detections is out of range", found=str(max_detections), expected="zero or more")
    ranking = np.argsort(-as_scores(scores, length), kind="stable")
    order, classes, ends = ranking, None, None
    if class_ids is not None:
        ids = as_class_ids(class_ids, length)[ranking]
        by_class = np.argsort(ids, kind="stable")
        order, classes = ranking[by_class], ids[by_class]
        # A row can only suppress up to the end of its class.
        ends = np.searchsorted(classes, classes, side="right")
    alive = np.ones(length, np.bool_)
    kept = 0
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        end = length if ends is None else int(ends[stop - 1])
        others = np.flatnonzero(alive[start:end]) + start
        rows = others[: int(np.count_nonzero(alive[start:stop]))]
        if not len(rows):
            continue
        hits = overlapping(order[rows], order[others])
        if classes is not None and classes[rows[0]] != classes[others[-1]]:
            hits &= classes[rows][:, None] == classes[others]
        alive[others[_losers(hits)]] = False
        if classes is None and max_detections is not None:
            kept += int(np.count_nonzero(alive[start:stop]))
            if kept >= max_detections:
                alive[stop:] = False
                break
    if classes is not None:
        in_ranking = np.zeros(length, np.bool_)
        in_ranking[by_class] = alive
        alive = in_ranking
    result: Indices = ranking[alive][:max_detections]
    return result


def _losers(hits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which columns a block suppresses; row `i` is column `i`. Rows become whole numbers: one `or` per winner."""
    rows, columns = hits.shape
    packed = np.packbits(hits, axis=1, bitorder="little")
    width, data = packed.shape[1], packed.tobytes()
    dead = 0
    for row in range(rows):
        if not dead >> row & 1:
            # A row overlaps itself, and those before it have had their turn: only what follows may go.
            later = int.from_bytes(data[row * width : (row + 1) * width], "little") >> (row + 1)
            dead |= later << (row + 1)
    bits = np.frombuffer(dead.to_bytes(width, "little"), np.uint8)
    return np.unpackbits(bits, count=columns, bitorder="little").view(np.bool_)
