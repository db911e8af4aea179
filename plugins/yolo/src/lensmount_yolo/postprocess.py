"""From a network's raw output to candidate boxes, the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_vision.models import detector
from lensmount_vision.results.boxes import cxcywh_to_xyxy, nms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_vision.images.geometry import Geometry
    from lensmount_yolo.head import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(detector.Filter):
    """What a call asks for, checked and resolved.

    Attributes:
        iou_threshold: Overlap above which the weaker of two boxes goes.
        max_detections: Most boxes kept per picture.
        max_candidates: Most boxes that enter suppression.
        class_agnostic: Suppress across classes.
        fast: Boxes that go themselves take others out too.
    """

    iou_threshold: float
    max_detections: int
    max_candidates: int
    class_agnostic: bool
    fast: bool = False


@dataclass(frozen=True, slots=True)
class Kept(detector.Kept):
    """Boxes that survived, best first, in network pixels.

    Attributes:
        extra: `(n, extra)` float32: mask coefficients, keypoints, angle.
    """

    extra: NDArray[np.float32]


def keep_boxes(output: NDArray[Any], head: Head, wanted: Filter, geometry: Geometry) -> Kept:
    """Filters one picture's output and suppresses doubles.

    Args:
        output: `(4 + classes + extra, N)` or `(M, 6 + extra)`, as `head` says.
        head: Meaning of the output.
        wanted: What the call asks for.
        geometry: Boxes wholly in the padding of this picture are dropped before they can suppress others.
    """
    kept = candidates(output, head, wanted)
    kept = take(kept, np.flatnonzero(geometry.inside(kept.boxes)))
    if head.kind == "rows":
        return take(kept, np.arange(min(len(kept.scores), wanted.max_detections)))
    groups = None if wanted.class_agnostic else kept.class_ids
    chosen = nms(
        kept.boxes,
        kept.scores,
        groups,
        iou_threshold=wanted.iou_threshold,
        max_detections=wanted.max_detections,
        fast=wanted.fast,
    )
    return take(kept, chosen)


def candidates(output: NDArray[Any], head: Head, wanted: Filter, *, centred: bool = False) -> Kept:
    """Boxes of one picture's output that pass the thresholds and the choice of classes, before suppression.

    Args:
        output: As for `keep_boxes`.
        head: Meaning of the output.
        wanted: What the call asks for.
        centred: Rows begin with centre, width and height, as those of oriented boxes do; raw predictions always do.
    """
    return _from_rows(output, wanted, centred) if head.kind == "rows" else _from_raw(output, head, wanted)


def take(kept: Kept, index: NDArray[Any]) -> Kept:
    """Those rows, in that order."""
    return Kept(kept.boxes[index], kept.scores[index], kept.class_ids[index], kept.extra[index])


def _wanted(scores: NDArray[np.float32], ids: NDArray[np.int64], wanted: Filter) -> NDArray[np.bool_]:
    keep: NDArray[np.bool_] = scores >= np.float32(wanted.confidence)
    if wanted.per_class is not None:
        known = ids < len(wanted.per_class)
        keep &= scores >= wanted.per_class[np.where(known, ids, 0)]
    if wanted.classes is not None:
        keep &= np.isin(ids, wanted.classes)
    return keep


def _from_raw(output: NDArray[Any], head: Head, wanted: Filter) -> Kept:
    classes = len(output) - 4 - head.extra
    table = output[4 : 4 + classes]
    best = table.max(0)  # of 8,400 cells few pass; the costly argmax is for those alone
    cells = np.flatnonzero(best >= np.float32(wanted.confidence))
    ids = table[:, cells].argmax(0).astype(np.int64)
    scores = best[cells].astype(np.float32)
    if wanted.per_class is not None or wanted.classes is not None:
        keep = _wanted(scores, ids, wanted)
        cells, ids, scores = cells[keep], ids[keep], scores[keep]
    if len(cells) > wanted.max_candidates:
        strongest = np.argsort(-scores, kind="stable")[: wanted.max_candidates]
        cells, ids, scores = cells[strongest], ids[strongest], scores[strongest]
    boxes = cxcywh_to_xyxy(np.ascontiguousarray(output[:4, cells].T, dtype=np.float32))
    extra = np.ascontiguousarray(output[4 + classes :, cells].T, dtype=np.float32)
    return Kept(boxes, scores, ids, extra)


def _from_rows(output: NDArray[Any], wanted: Filter, centred: bool) -> Kept:
    scores = output[:, 4].astype(np.float32)
    ids = np.rint(output[:, 5]).astype(np.int64)
    boxes = output[:, :4].astype(np.float32)
    boxes = cxcywh_to_xyxy(boxes) if centred else boxes
    # Padding rows are all zero. Boxes turned inside out stay: they are a fault that must not look like nothing found.
    real = (boxes[:, 2] != boxes[:, 0]) & (boxes[:, 3] != boxes[:, 1]) & (ids >= 0)
    keep = np.flatnonzero(real & _wanted(scores, ids, wanted))
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    return Kept(boxes[keep], scores[keep], ids[keep], output[keep, 6:].astype(np.float32))
