"""Compares results of two runs: the same objects, in any order, to tolerances that are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lensmount_vision.results.kinds import (
    Classification,
    Detections,
    Embeddings,
    InstanceSegmentation,
    Keypoints,
    Masks,
    OrientedDetections,
    PromptedMasks,
)

_FEW = 4  # pixels by which any two masks may differ, however small they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two results may be apart and still count as the same.

    Attributes:
        pixels: Coordinates of boxes, keypoints and corners.
        score: Confidences, probabilities and scores.
        mask: Share of two masks' union that may be in one alone; four pixels may be in any case.
        vector: Each number of an embedding.
    """

    pixels: float = 0.05
    score: float = 1e-3
    mask: float = 0.01
    vector: float = 1e-3


def require_same(found: Sequence[Any], wanted: Sequence[Any], tolerance: Tolerance, what: str) -> None:
    """Compares results picture by picture.

    Args:
        found: Results of one run.
        wanted: Results of the other.
        tolerance: How far they may be apart.
        what: The two runs, for messages: `"a PNG file and its array"`.

    Raises:
        AssertionError: They differ; the message says in what.
    """
    assert len(found) == len(wanted), f"{what}: {len(found)} and {len(wanted)} results"
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        problem = difference(one, other, tolerance)
        assert problem is None, f"{what} differ (picture {number}): {problem}"


def difference(one: Any, other: Any, tolerance: Tolerance) -> str | None:
    """In what two results of one picture differ, or None."""
    if type(one) is not type(other):
        return f"{type(one).__name__} and {type(other).__name__}"
    if isinstance(one, Detections):
        return _boxes(one, other, tolerance)
    if isinstance(one, Classification):
        return _numbers("probabilities", one.probabilities, other.probabilities, tolerance.score)
    if isinstance(one, Embeddings):
        return _numbers("vectors", one.vectors, other.vectors, tolerance.vector)
    if isinstance(one, PromptedMasks):
        if one.image_size != other.image_size:
            return f"pictures of {one.image_size} and {other.image_size}"
        scores = _numbers("scores", one.scores, other.scores, tolerance.score)
        pairs = [(i, i) for i in range(min(len(one), len(other)))]
        return scores or _masks(one.masks, other.masks, pairs, tolerance)
    return None if one == other else "they are not equal"


def _numbers(name: str, one: Any, other: Any, limit: float) -> str | None:
    if one.shape != other.shape:
        return f"{name} have shapes {one.shape} and {other.shape}"
    apart = float(np.abs(one.astype(np.float64) - other).max()) if one.size else 0.0
    return None if apart <= limit else f"{name} are {apart:.4g} apart, {limit:g} allowed"


def _boxes(one: Detections, other: Detections, tolerance: Tolerance) -> str | None:
    if one.image_size != other.image_size:
        return f"pictures of {one.image_size} and {other.image_size}"
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} objects"
    pairs: list[tuple[int, int]] = []
    left = set(range(len(other)))
    for i in range(len(one)):
        near = [j for j in left if one.class_id[i] == other.class_id[j]]
        if not near:
            return f"object {i} ({one.class_name[i]}) has no counterpart of its class"
        apart = [float(np.abs(one.xyxy[i] - other.xyxy[j]).max()) for j in near]
        best = near[int(np.argmin(apart))]
        if min(apart) > tolerance.pixels:
            return f"object {i} ({one.class_name[i]}) is {min(apart):.4g} pixels off, {tolerance.pixels:g} allowed"
        left.remove(best)
        pairs.append((i, best))
    rows, columns = [i for i, _ in pairs], [j for _, j in pairs]
    problem = _numbers("confidences", one.confidence[rows], other.confidence[columns], tolerance.score)
    if problem is None and isinstance(one, InstanceSegmentation) and isinstance(other, InstanceSegmentation):
        problem = _masks(one.masks, other.masks, pairs, tolerance)
    if problem is None and isinstance(one, Keypoints) and isinstance(other, Keypoints):
        points, others = one.keypoints[rows], other.keypoints[columns]
        if one.point_values != other.point_values:
            return f"keypoints have {one.point_values} values, the other's {other.point_values}"
        problem = _numbers("keypoints", points[..., :2], others[..., :2], tolerance.pixels)
        problem = problem or _numbers("visibilities", points[..., 2:], others[..., 2:], tolerance.score)
    if problem is None and isinstance(one, OrientedDetections) and isinstance(other, OrientedDetections):
        problem = _numbers("corners", one.corners[rows], other.corners[columns], 2 * tolerance.pixels)
    return problem


def _masks(one: Masks, other: Masks, pairs: list[tuple[int, int]], tolerance: Tolerance) -> str | None:
    for i, j in pairs:
        a, b = one[[i]].dense()[0], other[[j]].dense()[0]
        apart, union = int((a ^ b).sum()), int((a | b).sum())
        if apart > max(_FEW, tolerance.mask * union):
            return f"mask {i} differs in {apart} of {union} pixels"
    return None
