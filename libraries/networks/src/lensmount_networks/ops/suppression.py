"""Non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensmount_networks.values import Value

Tensor = Any


def non_max_suppression(boxes: Tensor, scores: Tensor, *, most: int, overlap: float, lowest: float) -> Tensor:
    """Which boxes stay where, by score, a box goes that overlaps a better one of its class which stays.

    Args:
        boxes: `(B, N, 4)`, float32, two opposite corners each.
        scores: `(B, C, N)`, float32.
        most: Boxes that stay per picture and class.
        overlap: Intersection over union above which the weaker box goes.
        lowest: Scores must be above it.

    Returns:
        int64 `(M, 3)`: picture, class, box.
    """
    if isinstance(boxes, Value):
        graph = boxes.graph
        bounds = [graph.integers([most]), *(graph.constant(np.float32([number])) for number in (overlap, lowest))]
        made = graph.add("NonMaxSuppression", [boxes, scores, *bounds], (1, 3), "int64")
        made.shape = (graph.free(f"{made.name}[0]", made, 0), 3)
        return made
    import torch

    found = []
    for picture in range(boxes.shape[0]):
        for category in (scores[picture] > lowest).any(1).nonzero().flatten().tolist():
            row = scores[picture, category]
            order = row.argsort(descending=True, stable=True)
            order = order[row[order] > lowest]
            for _ in range(most):
                if not len(order):
                    break
                best = int(order[0])
                found.append((picture, category, best))
                order = order[1:]
                order = order[_iou(boxes[picture, best], boxes[picture, order]) <= overlap]
    return torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _iou(box: Tensor, others: Tensor) -> Tensor:
    low, high = box[:2].maximum(others[:, :2]), box[2:].minimum(others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)
