"""Scores and suppression, in numpy, the same for every backend. The rules are written down in the plugin's README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lensmount_owlv2.proposals import Floats, Proposals
from lensmount_vision.images.resample import matmul_single_threaded
from lensmount_vision.results.boxes import nms

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Reference embeddings of all classes, sorted by class, positives before negatives. Arrays are read-only.

    Attributes:
        embeddings: float32 `(R, D)`, of length 1.
        class_id: int64 `(R,)`.
        negative: bool `(R,)`.
        class_names: Names by class id; each class has at least one positive.
    """

    embeddings: Floats
    class_id: Indices
    negative: NDArray[np.bool_]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for array in (self.embeddings, self.class_id, self.negative):
            array.flags.writeable = False

    @classmethod
    def of(
        cls,
        embeddings: NDArray[np.floating],
        class_id: Sequence[int] | Indices,
        negative: Sequence[bool] | NDArray[np.bool_],
        class_names: Sequence[str],
    ) -> Bank:
        """Sorts rows of any order."""
        ids, flags = np.asarray(class_id, np.int64), np.asarray(negative, np.bool_)
        order = np.lexsort((flags, ids))
        rows = np.ascontiguousarray(np.asarray(embeddings, np.float32)[order])
        return cls(rows, ids[order], flags[order], tuple(class_names))


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Proposals that were kept, best first.

    Attributes:
        rows: int64 `(n,)` into the proposals.
        scores: float32 `(n,)`.
        class_id: int64 `(n,)`.
    """

    rows: Indices
    scores: Floats
    class_id: Indices


def similarities(proposals: Proposals, queries: Floats) -> Floats:
    """`(cos + 1) / 2` of every proposal with every query, float32 `(N, R)` in 0..1."""
    cosines = matmul_single_threaded(proposals.embeddings, np.ascontiguousarray(queries.T))
    cosines += np.float32(1)
    cosines *= np.float32(0.5)
    return np.clip(cosines, 0, 1, out=cosines)


def few_shot(
    proposals: Proposals,
    bank: Bank,
    *,
    thresholds: float | NDArray[np.float32],
    iou_threshold: float,
    max_detections: int,
) -> Found:
    """What of the proposals is of the bank's classes.

    Args:
        proposals: Of one picture, already cut to those that compete.
        bank: References.
        thresholds: Lowest score, for all classes or one per class.
        iou_threshold: Overlap above which the weaker box goes.
        max_detections: Most that are kept.

    Returns:
        Those kept, best first; see the README for the rule.
    """
    classes = len(bank.class_names)
    scores = similarities(proposals, bank.embeddings)
    groups = bank.class_id * 2 + bank.negative
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    best = np.full((len(proposals), 2 * classes), -1, np.float32)
    best[:, groups[starts]] = np.maximum.reduceat(scores, starts, axis=1)
    positive, negative = best[:, 0::2], best[:, 1::2]
    limits = np.broadcast_to(np.asarray(thresholds, np.float32), classes)
    value = np.maximum(positive, negative)
    taken = (value >= limits) & proposals.visible[:, None]
    # Negatives first, so that of equal scores they win; within a kind by class, then by objectness.
    wins = positive > negative
    ids_n, rows_n = np.nonzero((taken & ~wins).T)
    ids_p, rows_p = np.nonzero((taken & wins).T)
    rows, ids = np.concatenate((rows_n, rows_p)), np.concatenate((ids_n, ids_p))
    values = value[rows, ids]
    kept = nms(proposals.boxes[rows], values, ids, iou_threshold=iou_threshold)
    kept = np.sort(kept[kept >= len(rows_n)])  # sorted, so that ties across classes go by class and objectness
    rows, ids, values = rows[kept], ids[kept], values[kept]
    kept = nms(proposals.boxes[rows], values, iou_threshold=iou_threshold, max_detections=max_detections)
    return Found(rows[kept], values[kept], ids[kept])


def query_logits(proposals: Proposals, queries: Floats) -> Floats:
    """Logits of words or of a one-shot query: `(cos + shift) * scale`, float32 `(N, Q)`; `queries` have length 1."""
    logits = matmul_single_threaded(proposals.embeddings, np.ascontiguousarray(queries.T))
    logits += proposals.shift[:, None]
    logits *= proposals.scale[:, None]
    return logits


def by_query(
    proposals: Proposals,
    queries: Floats,
    *,
    thresholds: float | NDArray[np.float32],
    iou_threshold: float | None,
    max_detections: int,
) -> Found:
    """What of the proposals fits a query: each takes its best query, with the score `sigmoid(logit)`.

    Args:
        proposals: Of one picture.
        queries: float32 `(Q, D)` of length 1.
        thresholds: Lowest score, for all queries or one per query.
        iou_threshold: Overlap above which the weaker box of the same query goes; None for no suppression.
        max_detections: Most that are kept.
    """
    logits = query_logits(proposals, queries)
    ids = logits.argmax(axis=1)
    best = np.take_along_axis(logits, ids[:, None], axis=1)[:, 0].astype(np.float64)
    scores = (0.5 * (1 + np.tanh(best / 2))).astype(np.float32)  # the sigmoid, which cannot overflow
    limits = np.broadcast_to(np.asarray(thresholds, np.float32), len(queries))
    rows = np.flatnonzero((scores >= limits[ids]) & proposals.visible)
    if iou_threshold is None:
        kept = np.argsort(-scores[rows], kind="stable")[:max_detections]
    else:
        kept = nms(
            proposals.boxes[rows],
            scores[rows],
            ids[rows],
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )
    rows = rows[kept]
    return Found(rows, scores[rows], ids[rows])
