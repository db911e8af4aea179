"""Which of a graph's outputs is which: ours, those of rfdetr's exporter, and of other exporters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lensmount.errors import ModelFileError

_BOXES = ("dets", "pred_boxes", "boxes")
_LOGITS = ("labels", "pred_logits", "logits", "scores")
_MASKS = ("masks", "pred_masks")

Shape = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Head:
    """Names of the outputs.

    Attributes:
        boxes: `(B, Q, 4)` cxcywh as fractions of the input.
        logits: `(B, Q, C)` class logits.
        masks: `(B, Q, h, w)` mask logits, or None.
        queries: Q, where the graph says.
        columns: C, where the graph says.
    """

    boxes: str
    logits: str
    masks: str | None
    queries: int | None
    columns: int | None


def read_head(outputs: Sequence[tuple[str, Shape]]) -> Head:
    """Finds boxes, logits and masks among a graph's outputs, by name, else by shape.

    Args:
        outputs: Names and shapes in the graph's order.

    Raises:
        ModelFileError: They are not those of an RF-DETR.
    """
    flat = {name: shape for name, shape in outputs if len(shape) == 3}
    deep = {name: shape for name, shape in outputs if len(shape) == 4}
    boxes = _named(flat, _BOXES) or next((name for name, shape in flat.items() if shape[2] == 4), None)
    rest = {name: shape for name, shape in flat.items() if name != boxes}
    logits = _named(rest, _LOGITS) or next(iter(rest), None)
    if boxes is None or logits is None or (flat[boxes][2] not in (4, None) and not isinstance(flat[boxes][2], str)):
        raise ModelFileError(
            "the graph's outputs are not those of an RF-DETR",
            found=", ".join(f"{name} {tuple(shape)}" for name, shape in outputs) or "none",
            expected="dets (batch, queries, 4), labels (batch, queries, classes) and, for segmentation, masks",
        )
    return Head(
        boxes=boxes,
        logits=logits,
        masks=_named(deep, _MASKS) or next(iter(deep), None),
        queries=_size(flat[boxes][1]) or _size(flat[logits][1]),
        columns=_size(flat[logits][2]),
    )


def _named(found: dict[str, Shape], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in found), None)


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) else None
