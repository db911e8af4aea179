"""Rotated boxes: `(N, 5)` rows centre x, centre y, width, height, angle in radians (clockwise, y pointing down)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensmount_vision.images.checks import Floats, as_boxes


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
    return probabilistic_iou(gaussians(as_boxes(a, "rotated boxes a", 5)), gaussians(as_boxes(b, "rotated boxes b", 5)))


def gaussians(boxes: Floats) -> NDArray[np.float64]:
    """Columns x, y and the covariance's a, b, c, with its determinant."""
    x, y, width, height, angle = boxes.astype(np.float64).T
    # A box without thickness has no density: a millionth of a pixel keeps the logarithm finite.
    along, across = np.maximum(width, 1e-6) ** 2 / 12, np.maximum(height, 1e-6) ** 2 / 12
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = along * cos**2 + across * sin**2, along * sin**2 + across * cos**2
    return np.stack((x, y, a, b, (along - across) * cos * sin, along * across), axis=1)


def probabilistic_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> Floats:
    """Overlap of every pair of rows that `gaussians` made."""
    x1, y1, a1, b1, c1, det1 = first.T[:, :, None]
    x2, y2, a2, b2, c2, det2 = second.T[:, None, :]
    a, b, c, dx, dy = a1 + a2, b1 + b2, c1 + c2, x1 - x2, y1 - y2
    determinant = a * b - c * c
    distance = (a * dy * dy + b * dx * dx - 2 * c * dx * dy) / (4 * determinant)
    distance += 0.5 * np.log(determinant / (4 * np.sqrt(det1 * det2)))
    hellinger = np.sqrt(np.maximum(-np.expm1(-np.maximum(distance, 0)), 0))
    result: Floats = (1 - hellinger).astype(np.float32)
    return result
