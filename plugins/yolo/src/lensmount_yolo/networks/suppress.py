"""Non-maximum suppression as part of a network, for exports that need none afterwards."""

from __future__ import annotations

from lensmount_networks import Layer, ops
from lensmount_networks.layers import Tensor


class Suppression(Layer):
    """Raw predictions to final rows.

    Args:
        classes: Number of classes.
        confidence: Scores must be above it.
        iou_threshold: Overlap, within a class, above which the weaker box goes.
        max_detections: Rows per picture.
    """

    def __init__(self, classes: int, *, confidence: float, iou_threshold: float, max_detections: int) -> None:
        self.classes = classes
        self.confidence = confidence
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections

    def forward(self, raw: Tensor) -> Tensor:
        """Maps `(B, 4 + classes + extra, N)` to rows `(B, max_detections, 6 + extra)`, zero where there is nothing."""
        extra = raw.shape[1] - 4 - self.classes
        sizes = [2, 2, self.classes, *([extra] if extra else [])]
        centre, size, table, *extras = raw.transpose(1, 2).split(sizes, 2)
        boxes = ops.concat((centre - size / 2, centre + size / 2), 2)
        scores, ids = table.amax(2), table.argmax(2)
        # One class per box: the others' scores are zero, which no threshold lets pass.
        single = ops.where(ids.unsqueeze(2) == ops.arange(self.classes, like=ids), table, 0.0)
        kept = ops.non_max_suppression(
            boxes,
            single.transpose(1, 2),
            most=self.max_detections,
            overlap=self.iou_threshold,
            lowest=self.confidence,
        )
        survives = ops.full(scores.shape, 0.0, like=scores)
        survives = ops.put(survives, kept[:, ::2], ops.full((kept.shape[0],), 1.0, like=scores))
        labels = ops.cast(ids.unsqueeze(2), "float32")
        rows = ops.concat((boxes, scores.unsqueeze(2), labels, *extras), 2)
        # Empty rows at the end, so that there are always enough to choose from.
        rows = ops.pad(rows * survives.unsqueeze(2), (0, 0, 0, self.max_detections))
        best = ops.topk(ops.pad(scores * survives, (0, self.max_detections)), self.max_detections, 1)[1]
        return ops.gather(rows, 1, best.unsqueeze(2).expand(-1, -1, 6 + extra))
