"""Non-maximum suppression in parallel: the same boxes stay as in `lensmount_vision.results.boxes.nms`.

Greedy suppression has one solution: a box stays when no better one that stays overlaps it. Starting from all boxes and
applying that rule again and again settles there, after as many rounds as the longest chain of boxes that save one
another is long: a few. Each round is one product with the matrix of overlaps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lensmount.backend import settled as _settled

ROUNDS = 8  # without looking; then one more tells whether it has settled
BLOCK = 1024  # boxes whose pairs are compared at once

Overlapping = Callable[[slice, slice], Tensor]
"""From rows and columns to bool `(B, rows, columns)`: whether the pair is too much of an overlap."""


@_settled()
def suppress(alive: Tensor, overlapping: Overlapping, *, certain: bool) -> tuple[Tensor, Tensor]:
    """Which boxes stay.

    Args:
        alive: bool `(B, K)`: boxes that take part; the better come first.
        overlapping: Compares them.
        certain: Goes on until it has settled, which waits for the device; else `ROUNDS` rounds.

    Returns:
        bool `(B, K)`, and a bool scalar on the device: whether it has settled.
    """
    count = alive.shape[1]
    stays = alive.float()
    settled = torch.ones((), dtype=torch.bool, device=alive.device)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        rows = slice(start, stop)
        # Column j of row i: whether j, the better one, takes i out.
        hits = overlapping(rows, rows).float().tril_(-1)
        part, done = _settle(stays[:, rows], hits, certain)
        settled = settled & done
        stays[:, rows] = part
        if stop < count:
            later = slice(stop, count)
            losses = overlapping(later, rows).float() @ part[..., None]
            stays[:, later] *= losses[..., 0] == 0
    return stays > 0, settled


def suppress_fast(alive: Tensor, overlapping: Overlapping) -> Tensor:
    """Which boxes stay when each goes that overlaps a better one, whether that one stays or not.

    The boxes of `lensmount_vision.results.boxes.nms(fast=True)`; `alive` and `overlapping` are as in `suppress`.

    Returns:
        bool `(B, K)`.
    """
    count = alive.shape[1]
    stays = alive.clone()
    for start in range(0, count, BLOCK):
        rows, better = slice(start, min(start + BLOCK, count)), slice(0, min(start + BLOCK, count))
        hits = overlapping(rows, better).float().tril_(start - 1) @ alive[:, better, None].float()
        stays[:, rows] &= hits[..., 0] == 0
    return stays


def _settle(alive: Tensor, hits: Tensor, certain: bool) -> tuple[Tensor, Tensor]:
    stays = alive[..., None]
    while True:
        for _ in range(ROUNDS):
            # Ones and noughts: alive minus the number of those that take it out, not below nought.
            stays = torch.baddbmm(alive[..., None], hits, stays, alpha=-1).clamp_(min=0)
        after = torch.baddbmm(alive[..., None], hits, stays, alpha=-1).clamp_(min=0)
        settled = (after == stays).all()
        if not certain or bool(settled):
            return after[..., 0], settled
        stays = after


def box_overlaps(boxes: Tensor, classes: Tensor | None, threshold: float) -> Overlapping:
    """Compares upright boxes by intersection over union, in the host's arithmetic.

    Args:
        boxes: float32 `(B, K, 4)` xyxy.
        classes: `(B, K)`; boxes of different classes do not overlap. None for any.
        threshold: Overlap above which the weaker goes.
    """
    x1, y1, x2, y2 = (boxes[..., i].contiguous() for i in range(4))
    areas = (x2 - x1).clamp_(min=0) * (y2 - y1).clamp_(min=0)

    def overlapping(rows: slice, columns: slice) -> Tensor:
        width = torch.minimum(x2[:, rows, None], x2[:, None, columns])
        width = width.sub_(torch.maximum(x1[:, rows, None], x1[:, None, columns])).clamp_(min=0)
        both = torch.minimum(y2[:, rows, None], y2[:, None, columns])
        both = both.sub_(torch.maximum(y1[:, rows, None], y1[:, None, columns])).clamp_(min=0).mul_(width)
        union = (areas[:, rows, None] + areas[:, None, columns]).sub_(both)
        return _of_one_class(both.div_(union) > threshold, classes, rows, columns)

    return overlapping


def rotated_overlaps(boxes: Tensor, classes: Tensor | None, threshold: float) -> Overlapping:
    """Compares turned boxes as `lensmount_vision.results.rotated_boxes.rotated_iou` does, in float64 as there.

    Args:
        boxes: float32 `(B, K, 5)` xywhr.
        classes: As in `box_overlaps`.
        threshold: Likewise.
    """
    x, y, width, height, angle = boxes.double().unbind(-1)
    along, across = width.clamp(min=1e-6) ** 2 / 12, height.clamp(min=1e-6) ** 2 / 12
    cos, sin = torch.cos(angle), torch.sin(angle)
    a, b = along * cos**2 + across * sin**2, along * sin**2 + across * cos**2
    c, determinants = (along - across) * cos * sin, along * across

    def overlapping(rows: slice, columns: slice) -> Tensor:
        def pair(values: Tensor) -> Tensor:
            return values[:, rows, None] + values[:, None, columns]

        dx, dy = (values[:, rows, None] - values[:, None, columns] for values in (x, y))
        aa, bb, cc = pair(a), pair(b), pair(c)
        determinant = aa * bb - cc * cc
        distance = (aa * dy * dy + bb * dx * dx - 2 * cc * dx * dy) / (4 * determinant)
        roots = torch.sqrt(determinants[:, rows, None] * determinants[:, None, columns])
        distance += 0.5 * torch.log(determinant / (4 * roots))
        hellinger = torch.sqrt((-torch.expm1(-distance.clamp_(min=0))).clamp_(min=0))
        return _of_one_class((1 - hellinger).float() > threshold, classes, rows, columns)

    return overlapping


def _of_one_class(hits: Tensor, classes: Tensor | None, rows: slice, columns: slice) -> Tensor:
    return hits if classes is None else hits & (classes[:, rows, None] == classes[:, None, columns])
