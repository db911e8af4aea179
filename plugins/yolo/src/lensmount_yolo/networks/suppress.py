"""Non-maximum suppression as part of a network, for exports that need none afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class NonMaxSuppression(torch.autograd.Function):
    """The ONNX operator of this name, with an equal in torch for tracing and for comparison."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, most: Tensor, overlap: Tensor, lowest: Tensor) -> Tensor:
        """Greedy suppression per picture and class.

        Args:
            ctx: Not used.
            boxes: `(B, N, 4)` xyxy.
            scores: `(B, C, N)`.
            most: Boxes kept per picture and class.
            overlap: IoU above which the weaker box goes.
            lowest: Scores must be above it.

        Returns:
            int64 `(M, 3)`: picture, class, box.
        """
        found = []
        for picture in range(boxes.shape[0]):
            candidates = (scores[picture] > lowest).any(1).nonzero().flatten().tolist()
            for category in candidates:
                row = scores[picture, category]
                order = row.argsort(descending=True, stable=True)
                order = order[row[order] > lowest]
                for _ in range(int(most)):
                    if not len(order):
                        break
                    best = int(order[0])
                    found.append((picture, category, best))
                    order = order[1:]
                    order = order[_iou(boxes[picture, best], boxes[picture, order]) <= overlap]
        return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, most: Any, overlap: Any, lowest: Any) -> Any:
        """The operator itself."""
        return g.op("NonMaxSuppression", boxes, scores, most, overlap, lowest)


def _iou(box: Tensor, others: Tensor) -> Tensor:
    low = torch.maximum(box[:2], others[:, :2])
    high = torch.minimum(box[2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


class WithSuppression(nn.Module):
    """A network whose raw predictions become final rows.

    Args:
        network: Gives `(B, 4 + classes + extra, N)` in evaluation mode, or a tuple that begins with it.
        classes: Number of classes.
        confidence: Scores must be above it.
        iou_threshold: Overlap, within a class, above which the weaker box goes.
        max_detections: Rows per picture.
    """

    def __init__(
        self, network: nn.Module, classes: int, *, confidence: float, iou_threshold: float, max_detections: int
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.confidence = confidence
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Maps `(B, 3, H, W)` to rows `(B, max_detections, 6 + extra)`, zero where there is nothing."""
        result = self.network(images)
        raw = result[0] if isinstance(result, tuple) else result
        rows = self._rows(raw)
        return (rows, *result[1:]) if isinstance(result, tuple) else rows

    def _rows(self, raw: Tensor) -> Tensor:
        extra = int(raw.shape[1]) - 4 - self.classes
        sizes = [2, 2, self.classes, *([extra] if extra else [])]
        centre, size, table, *extras = torch.split(raw.transpose(1, 2), sizes, 2)
        boxes = torch.cat((centre - size / 2, centre + size / 2), 2)
        scores, ids = table.max(2)
        # One class per box: the others' scores are zero, which no threshold lets pass.
        single = torch.zeros_like(table).scatter(2, ids.unsqueeze(2), scores.unsqueeze(2))
        kept = NonMaxSuppression.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            boxes,
            single.transpose(1, 2),
            torch.tensor([self.max_detections], dtype=torch.int64),
            torch.tensor([self.iou_threshold], dtype=torch.float32),
            torch.tensor([self.confidence], dtype=torch.float32),
        )
        survives = torch.zeros_like(scores).index_put((kept[:, 0], kept[:, 2]), torch.ones_like(kept[:, 0]).to(raw))
        rows = torch.cat((boxes, scores.unsqueeze(2), ids.unsqueeze(2).to(raw), *extras), 2)
        # Empty rows at the end, so that there are always enough to choose from.
        rows = nn.functional.pad(rows * survives.unsqueeze(2), (0, 0, 0, self.max_detections))
        best = nn.functional.pad(scores * survives, (0, self.max_detections)).topk(self.max_detections, 1).indices
        return rows.gather(1, best.unsqueeze(2).expand(-1, -1, 6 + extra))
