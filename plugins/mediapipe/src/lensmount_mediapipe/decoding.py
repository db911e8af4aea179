"""From BlazeFace's outputs to faces: anchors, boxes and landmarks in the network's pixels, and their weighted means.

The constants are those of MediaPipe's graphs for face detection (`modules/face_detection`, Apache-2.0): anchors at the
cells' centres and of the input's size, values in pixels of the input and relative to the anchor, scores before the
sigmoid clipped to ±100, suppression at an overlap of 0.3 in its weighted form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lensmount_mediapipe.recognise import LAYOUTS
from lensmount_vision.models import Filter, Kept
from lensmount_vision.results import iou_matrix

Floats = NDArray[np.float32]

CLIP = 100.0
"""Scores before the sigmoid are cut at ± this."""

LANDMARKS = ("right_eye", "left_eye", "nose_tip", "mouth_center", "right_ear_tragion", "left_ear_tragion")
"""Right and left as the person has them: on a face that looks at the camera the right eye is at the left."""


@dataclass(frozen=True, slots=True)
class Faces(Kept):
    """Faces of one picture, best first.

    Attributes:
        points: `(n, 6, 2)` float32 x, y in the network's pixels, in the order of `LANDMARKS`.
    """

    points: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFilter(Filter):
    """What a call asks for.

    Attributes:
        iou_threshold: Overlap, 0..1, above which boxes are taken for the same face.
        max_detections: Most faces; None for all.
    """

    iou_threshold: float
    max_detections: int | None


@cache
def anchors(side: int, count: int) -> Floats:
    """Centres of the anchors `(N, 2)`, x and y in the input's pixels, row by row of each map, coarser maps later.

    Args:
        side: Of the square input, in pixels.
        count: N.
    """
    parts = []
    for stride, each in LAYOUTS[side, count]:
        cells = (np.arange(side // stride, dtype=np.float32) + 0.5) * stride
        x, y = np.meshgrid(cells, cells)
        parts.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0))
    made = np.concatenate(parts).astype(np.float32)
    made.flags.writeable = False
    return made


def decode(values: Floats, scores: Floats, side: int, wanted: FaceFilter) -> Faces:
    """The faces of one picture.

    Args:
        values: `(N, 16)`: of each anchor the box's centre and size, then six points, each x and y.
        scores: `(N, 1)` before the sigmoid.
        side: Of the square input, in pixels.
        wanted: What the call asks for.
    """
    certain = (1 / (1 + np.exp(-np.clip(scores[:, 0].astype(np.float64), -CLIP, CLIP)))).astype(np.float32)
    rows = np.flatnonzero((certain >= wanted.confidence) & (values[:, 2] > 0) & (values[:, 3] > 0))
    rows = rows[np.argsort(-certain[rows], kind="stable")]
    sizes, places = values[rows, 2:4], values[rows].reshape(-1, 8, 2)[:, [0, *range(2, 8)]]
    places = places + anchors(side, len(values))[rows, None]
    boxes = np.concatenate([places[:, 0] - sizes / 2, places[:, 0] + sizes / 2], axis=1)
    found = merge(np.concatenate([boxes, places[:, 1:].reshape(-1, 12)], axis=1), certain[rows], wanted)
    every, best = found
    if wanted.classes is not None and 0 not in wanted.classes:
        every, best = every[:0], best[:0]
    return Faces(every[:, :4], best, np.zeros(len(best), np.int64), every[:, 4:].reshape(-1, 6, 2))


def merge(places: Floats, scores: Floats, wanted: FaceFilter) -> tuple[Floats, Floats]:
    """Replaces boxes of the same face by their mean, weighted by their scores; the best one's score stays.

    Args:
        places: `(n, 16)`, best first: boxes xyxy, then points.
        scores: `(n,)`.
        wanted: What the call asks for.

    Returns:
        Means `(m, 16)`, best first, and their scores `(m,)`.
    """
    means: list[Floats] = []
    best: list[np.float32] = []
    left = np.arange(len(scores))
    while len(left) and (wanted.max_detections is None or len(means) < wanted.max_detections):
        same = iou_matrix(places[left[:1], :4], places[left, :4])[0] > wanted.iou_threshold
        same[0] = True
        rows = left[same]
        weights = scores[rows].astype(np.float64)
        means.append(((places[rows] * weights[:, None]).sum(0) / weights.sum()).astype(np.float32))
        best.append(scores[left[0]])
        left = left[~same]
    return np.array(means, np.float32).reshape(-1, places.shape[1]), np.array(best, np.float32)
