"""Candidates and suppression on the device, for all pictures of a batch at once: the boxes of `postprocess`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lensmount.backend import settled
from lensmount.errors import InputError
from lensmount_vision.device.ordering import top_k
from lensmount_vision.device.suppression import Overlapping, box_overlaps, rotated_overlaps, suppress, suppress_fast
from lensmount_vision.images.torch_streams import fetch, put
from lensmount_yolo.postprocess import Filter, Kept

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_vision.images.geometry import Geometry
    from lensmount_yolo.head import Head

CANDIDATES = 512
"""Boxes of a picture that are looked at without asking the device how many there are."""


@settled()
def keep_boxes(
    output: Tensor, head: Head, wanted: Filter, geometries: Sequence[Geometry], *, rotated: bool = False
) -> list[Kept]:
    """Filters raw outputs and suppresses doubles; one download of a few kilobytes for each picture.

    Only where more than `CANDIDATES` boxes of a picture pass the threshold, or suppression has not settled after a few
    rounds, is it done again with as many as there are.

    Args:
        output: `(B, 4 + classes + extra, N)` on the device.
        head: Meaning of the output; `raw`.
        wanted: What the call asks for.
        geometries: Boxes wholly in the padding of a picture are dropped before they can suppress others.
        rotated: Boxes are turned by the angle in `extra`.

    Returns:
        The survivors of each picture.

    Raises:
        InputError: A box that passes the threshold is not finite.
    """
    output = output.float()
    most = min(wanted.max_candidates, output.shape[2])
    count, certain = min(most, CANDIDATES), False
    while True:
        rows, passing, settled = _run(output, head, wanted, geometries, count, rotated, certain)
        if (passing <= count or count == most) and settled:
            return [_kept(part, wanted.max_detections) for part in rows]
        count, certain = min(most, max(passing, count)), True


def _run(
    output: Tensor,
    head: Head,
    wanted: Filter,
    geometries: Sequence[Geometry],
    count: int,
    rotated: bool,
    certain: bool,
) -> tuple[NDArray[np.float32], int, bool]:
    """Rows `(B, count, 7 + extra)` on the host, boxes that passed in the fullest picture, and whether it settled."""
    classes = output.shape[1] - 4 - head.extra
    best, ids = output[:, 4 : 4 + classes].max(1)
    allowed = _allowed(best, ids, wanted)
    index, real = top_k(best, count, allowed)
    values = output.gather(2, index[:, None].expand(-1, output.shape[1], -1)).transpose(1, 2)
    half = values[..., 2:4] * 0.5
    boxes = torch.cat((values[..., :2] - half, values[..., :2] + half), 2)
    scores, labels = best.gather(1, index), ids.gather(1, index)
    extra = values[..., 4 + classes :]
    groups = None if wanted.class_agnostic else labels
    overlapping: Overlapping
    if rotated:
        # The host computes its centres and sides again from the corners; so do we, for the same bits.
        sides = boxes[..., 2:] - boxes[..., :2]
        turned = torch.cat((boxes[..., :2] + sides * 0.5, sides, extra), 2)
        alive = real & _inside(_around(turned), geometries)
        overlapping = rotated_overlaps(turned, groups, wanted.iou_threshold)
    else:
        alive = real & _inside(boxes, geometries)
        overlapping = box_overlaps(boxes, groups, wanted.iou_threshold)
    if wanted.fast:
        keep, settled = suppress_fast(alive, overlapping), torch.ones((), dtype=torch.bool, device=alive.device)
    else:
        keep, settled = suppress(alive, overlapping, certain=certain)
    rows = torch.cat((boxes, scores[..., None], labels[..., None].float(), keep[..., None].float(), extra), 2)
    finite = (torch.isfinite(boxes).all(2) | ~real).all()
    told = torch.stack((allowed.sum(1).max().float(), settled.float(), finite.float()))
    here, told_here = fetch(rows, told)
    if not told_here[2]:
        raise InputError("boxes are not finite", found="NaN or infinity", expected="finite numbers")
    return here, int(told_here[0]), bool(told_here[1])


def _kept(rows: NDArray[np.float32], most: int) -> Kept:
    chosen = rows[np.flatnonzero(rows[:, 6])[:most]]
    return Kept(chosen[:, :4].copy(), chosen[:, 4].copy(), chosen[:, 5].astype(np.int64), chosen[:, 7:].copy())


def _allowed(scores: Tensor, ids: Tensor, wanted: Filter) -> Tensor:
    """`(B, N)`: what passes the thresholds and the choice of classes."""
    keep = scores >= float(np.float32(wanted.confidence))
    if wanted.per_class is not None:
        table = put(wanted.per_class, scores.device)
        keep &= scores >= table[torch.where(ids < len(table), ids, 0)]
    if wanted.classes is not None:
        keep &= torch.isin(ids, put(wanted.classes, scores.device))
    return keep


def _inside(boxes: Tensor, geometries: Sequence[Geometry]) -> Tensor:
    """`(B, K)`: `Geometry.inside` of every picture."""
    bounds = put(np.array([geometry.content_box for geometry in geometries], np.float32), boxes.device)
    left, top, right, bottom = bounds[:, None].unbind(-1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 < right) & (y1 < bottom) & (x2 > left) & (y2 > top)


def _around(boxes: Tensor) -> Tensor:
    """Upright boxes around turned ones: `(B, K, 5)` xywhr to `(B, K, 4)` xyxy."""
    x, y, width, height, angle = boxes.double().unbind(-1)
    cos, sin = torch.cos(angle).abs(), torch.sin(angle).abs()
    across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return torch.stack((x - across, y - down, x + across, y + down), -1).float()
