"""What an evaluation found: plain values, and text for people."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensmount_bench.confusion import Confusion

COLUMNS = ("AP", "AP50", "AP75", "AR100")


@dataclass(slots=True)
class EvalRow:
    """Numbers of one combination of backend and precision; all in 0..1, NaN where there is nothing to judge.

    Attributes:
        label: Which combination.
        error: Why it could not be evaluated; None when it was.
        effective: `backend`, `device`, `precision` as they turned out.
        images: Number of pictures.
        failed: Pictures that could not be used, and why; they count as pictures without detections.
        boxes: COCO's numbers for boxes: `AP` (0.50 to 0.95) `AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl`.
        masks: The same for masks.
        accuracy: `top-1` and `top-5`.
        tracking: `HOTA DetA AssA IDF1 IDP IDR MOTA`, and `switches`, which is a count.
        classes: AP of boxes, or accuracy, by class.
        mask_classes: AP of masks by class.
        confusion: What is taken for what, at a confidence of 0.25 and an overlap of 0.5.
        warnings: What a reader should know.
        seconds: Wall clock of all pictures, decoding and post-processing at the low threshold included.
    """

    label: str
    error: str | None = None
    effective: dict[str, str] = field(default_factory=dict)
    images: int = 0
    failed: list[str] = field(default_factory=list)
    boxes: dict[str, float] = field(default_factory=dict)
    masks: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    tracking: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)
    mask_classes: dict[str, float] = field(default_factory=dict)
    confusion: Confusion | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Pictures by the wall clock."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def scores(self) -> dict[str, float]:
        """The numbers of the table: COCO's for boxes and masks, accuracy, or those of tracks."""
        made = {f"box {name}": self.boxes[name] for name in COLUMNS if name in self.boxes}
        made |= {f"mask {name}": self.masks[name] for name in COLUMNS if name in self.masks}
        return made | self.accuracy | self.tracking

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; NaN becomes None."""
        return {
            "label": self.label,
            "error": self.error,
            **self.effective,
            "images": self.images,
            "failed": self.failed,
            "boxes": _plain(self.boxes),
            "masks": _plain(self.masks),
            "accuracy": _plain(self.accuracy),
            "tracking": _plain(self.tracking),
            "classes": _plain(self.classes),
            "mask_classes": _plain(self.mask_classes),
            "confusion": None
            if self.confusion is None
            else {"names": [*self.confusion.names, None], "counts": self.confusion.counts.tolist()},
            "warnings": self.warnings,
            "seconds": self.seconds,
        }


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class EvalReport:
    """What `lensmount_bench.accuracy.evaluate` found.

    Attributes:
        rows: One per combination of backend and precision.
        source: The annotations, or the folder of classes.
    """

    rows: tuple[EvalRow, ...]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"source": self.source, "rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        lines = []
        for row in self.rows:
            if row.error is not None:
                lines.append(f"{row.label}: not evaluated: {row.error}")
                continue
            scores = "  ".join(f"{name} {shown(value)}" for name, value in row.scores.items())
            lines.append(f"{row.label}: {scores}  ({row.images} images, {row.images_per_second:.1f} images/s)")
            lines += [f"  warning: {text}" for text in row.warnings]
        return "\n".join(lines)


def shown(value: float) -> str:
    """A score for people."""
    return "-" if math.isnan(value) else f"{value:.4f}"
