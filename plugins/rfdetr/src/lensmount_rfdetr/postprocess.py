"""From a network's outputs to the best (query, class) pairs, the same for every backend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount_vision.models import detector

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(detector.Filter):
    """What a call asks for, checked and resolved.

    Attributes:
        max_detections: Most pairs kept; None for as many as there are queries.
    """

    max_detections: int | None


@dataclass(frozen=True, slots=True)
class Kept(detector.Kept):
    """Pairs that were chosen, best first; boxes as fractions of the input.

    Attributes:
        queries: `(n,)` int64: which query each is of; one query can be in several pairs.
    """

    queries: NDArray[np.int64]


def keep_pairs(boxes: NDArray[Any], logits: NDArray[Any], wanted: Filter, classes: int) -> Kept:
    """The best pairs of query and class of one picture: a flat top-K over sigmoid scores, without suppression.

    Equal scores keep the order of the flattened `(query, class)` index, so that every backend breaks ties alike.

    Args:
        boxes: `(Q, 4)` cxcywh as fractions of the input.
        logits: `(Q, C)`.
        wanted: What the call asks for; filters come before the top-K.
        classes: Columns that are classes; those beyond are background.
    """
    table = logits if logits.dtype == np.float32 else logits.astype(np.float32)
    columns = table.shape[1]
    flat = np.flatnonzero(table.ravel() >= _lower_logit(wanted.confidence))
    queries, ids = flat // columns, flat % columns
    scores = _sigmoid(table[queries, ids])
    keep = (scores >= np.float32(wanted.confidence)) & (ids < classes)
    if wanted.per_class is not None:
        keep &= scores >= wanted.per_class[np.minimum(ids, len(wanted.per_class) - 1)]
    if wanted.classes is not None:
        keep &= np.isin(ids, wanted.classes)
    # A network that overflowed in half precision has boxes that are no numbers; they are no objects either.
    keep &= np.isfinite(boxes).all(1)[queries]
    # Queries that no cell moved have boxes of the weights' own, of negative sides perhaps: no objects either. Where all
    # are so, they stay: that is a fault, and must not look like nothing found.
    upright = keep & np.asarray((boxes[:, 2:] >= 0).all(1))[queries]
    keep = upright if upright.any() else keep
    if not keep.all():
        queries, ids, scores = queries[keep], ids[keep], scores[keep]
    limit = len(boxes) if wanted.max_detections is None else wanted.max_detections
    order = np.argsort(-scores, kind="stable")[:limit]
    queries, ids, scores = queries[order], ids[order], scores[order]
    centre, half = boxes[queries, :2].astype(np.float32), boxes[queries, 2:].astype(np.float32) / 2
    return Kept(np.concatenate((centre - half, centre + half), 1), scores, ids.astype(np.int64), queries)


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        result: Floats = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return result


def _lower_logit(score: float) -> float:
    """A logit safely below the one of a score: only survivors are worth a sigmoid."""
    if score <= 0:
        return -math.inf
    if score >= 1:
        return 8.0  # sigmoid reaches 1 in float32 at about 17
    return math.log(score / (1 - score)) - 1e-3
