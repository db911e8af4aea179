"""Box arithmetic shared by every model: conversions, overlap, non-maximum suppression.

Boxes are float32 `(N, 4)` rows `x1, y1, x2, y2` in continuous pixel coordinates (pixel `i` covers `[i, i + 1)`), unless
a name says otherwise. Nothing here changes its arguments.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensmount.errors import OptionError
from lensmount_vision.images.checks import Floats, Indices, as_boxes, as_class_ids, as_scores, check_fraction
from lensmount_vision.results.rotated_boxes import gaussians, probabilistic_iou, rotated_iou, xywhr_to_corners

__all__ = [
    "area",
    "cxcywh_to_xyxy",
    "iou_matrix",
    "nms",
    "nms_rotated",
    "rotated_iou",
    "top_candidates",
    "xywh_to_xyxy",
    "xywhr_to_corners",
    "xyxy_to_cxcywh",
    "xyxy_to_xywh",
]

# Rows compared with all that follow in one numpy step of the suppression: the temporaries stay in the L2 cache and the
# calls few. 32 and 128 are slower at 1,000 candidates.
_BLOCK = 64


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
    fast: bool = False,
) -> Indices:
    """Greedy non-maximum suppression, or fast suppression.

    A box goes when its IoU with a better one that stays is *greater* than the threshold, as in torchvision. With
    `class_ids` only boxes of one class suppress each other; classes are compared as integers, so no precision is lost
    to shifted coordinates. Of equal scores the lower index is better.

    Args:
        boxes: `(N, 4)` xyxy.
        scores: `(N,)`.
        class_ids: `(N,)` whole numbers, or None for class-agnostic suppression.
        iou_threshold: 0..1.
        max_detections: Keeps the best so many; None for all.
        fast: A box goes when it overlaps any better one, whether that one stays or not ("Fast NMS" of Bolya et al.,
            "YOLACT", 2019): fewer boxes stay where they lie in chains.

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

    return _suppress(overlapping, len(columns.x1), scores, class_ids, max_detections, fast)


def nms_rotated(
    boxes: ArrayLike,
    scores: ArrayLike,
    class_ids: ArrayLike | None = None,
    *,
    iou_threshold: float = 0.5,
    max_detections: int | None = None,
    fast: bool = False,
) -> Indices:
    """Suppression of `(N, 5)` rotated boxes xywhr by `rotated_iou`; everything else as in `nms`."""
    densities = gaussians(as_boxes(boxes, "rotated boxes", 5))
    threshold = np.float32(check_fraction(iou_threshold, "iou_threshold"))

    def overlapping(rows: Indices, others: Indices) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = probabilistic_iou(densities[rows], densities[others]) > threshold
        return result

    return _suppress(overlapping, len(densities), scores, class_ids, max_detections, fast)


def _suppress(
    overlapping: Callable[[Indices, Indices], NDArray[np.bool_]],
    length: int,
    scores: ArrayLike,
    class_ids: ArrayLike | None,
    max_detections: int | None,
    fast: bool,
) -> Indices:
    """Suppression in blocks of rows, given a test on pairs of indices."""
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
        taking_part = np.ones(end - start, np.bool_) if fast else alive[start:end]
        others = np.flatnonzero(taking_part) + start
        rows = others[: int(np.count_nonzero(taking_part[: stop - start]))]
        if not len(rows):
            continue
        hits = overlapping(order[rows], order[others])
        if classes is not None and classes[rows[0]] != classes[others[-1]]:
            hits &= classes[rows][:, None] == classes[others]
        alive[others[_losers(hits, fast)]] = False
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


def _losers(hits: NDArray[np.bool_], fast: bool) -> NDArray[np.bool_]:
    """Which columns a block suppresses; row `i` is column `i`. Rows become whole numbers: one `or` per winner."""
    rows, columns = hits.shape
    packed = np.packbits(hits, axis=1, bitorder="little")
    width, data = packed.shape[1], packed.tobytes()
    dead = 0
    for row in range(rows):
        if fast or not dead >> row & 1:
            # A row overlaps itself, and those before it have had their turn: only what follows may go.
            later = int.from_bytes(data[row * width : (row + 1) * width], "little") >> (row + 1)
            dead |= later << (row + 1)
    bits = np.frombuffer(dead.to_bytes(width, "little"), np.uint8)
    return np.unpackbits(bits, count=columns, bitorder="little").view(np.bool_)
