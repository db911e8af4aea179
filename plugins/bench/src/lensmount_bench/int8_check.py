"""How far an int8 model's detections are from the float model's, on pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lensmount.errors import BackendError, InputError
from lensmount_vision.results.boxes import iou_matrix

#: Key of the graph's metadata that holds the figures, as JSON.
KEY = "lensmount.int8"

#: Objects from CONFIDENCE on are matched; those from SURE on must have a partner. Between them one model may see an
#: object and the other not, since scores move by some hundredths.
CONFIDENCE, SURE = 0.25, 0.35
#: Overlap, with the same class, that makes two detections one object.
SAME = 0.5
#: What is kept: share of objects that both find, mean overlap of their boxes, and of their masks.
LOWEST_AGREEMENT, LOWEST_BOX_IOU, LOWEST_MASK_IOU = 0.9, 0.85, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What a comparison of float and int8 gave.

    Attributes:
        calibration: Pictures that gave the ranges.
        pictures: Pictures compared.
        held_out: Whether these are others than those of the calibration.
        objects: Objects that the float model is sure of (score of at least 0.35).
        lost: Of these, how many the int8 model lacks.
        added: Objects that the int8 model is sure of and the float model lacks.
        agreement: 1 - (lost + added) / all sure objects of both.
        box_iou: Mean overlap of the boxes of matched objects.
        mask_iou: The same of masks; None without masks.
        score_difference: Mean absolute difference of their scores.
    """

    calibration: int
    pictures: int
    held_out: bool
    objects: int
    lost: int
    added: int
    agreement: float
    box_iou: float
    mask_iou: float | None
    score_difference: float

    def __str__(self) -> str:
        masks = "" if self.mask_iou is None else f", masks {self.mask_iou:.3f}"
        other = "other pictures" if self.held_out else "of the calibration pictures"
        return (
            f"int8 against float32 on {self.pictures} {other}: {self.objects} objects, {self.lost} lost, "
            f"{self.added} added (agreement {self.agreement:.3f}); IoU of boxes {self.box_iou:.3f}{masks}; "
            f"scores differ by {self.score_difference:.3f}"
        )

    def to_metadata(self) -> dict[str, str]:
        """The graph's metadata entry."""
        return {KEY: json.dumps(asdict(self))}


def read_agreement(path: Path) -> Agreement | None:
    """The figures that an int8 graph written by `export` bears, or None."""
    from lensmount_reading import read_onnx

    text = read_onnx(path).metadata.get(KEY)
    try:
        return None if text is None else Agreement(**json.loads(text))
    except (TypeError, ValueError):  # another tool's, or a later version's
        return None


def compare(exact: Any, small: Any, pictures: Iterable[str], *, calibration: int, held_out: bool) -> Agreement:
    """Runs both models on pictures and matches what they find.

    Args:
        exact: The float model: a call gives `Detections` or `InstanceSegmentation`.
        small: The int8 model.
        pictures: Paths.
        calibration: For the record: number of calibration pictures.
        held_out: For the record: whether `pictures` are others.

    Returns:
        The figures.

    Raises:
        ImageError: A picture cannot be read.
        InputError: The float model is sure of nothing in these pictures: there is nothing to judge by.
    """
    count = lost = added = sure_small = sure_exact = 0
    boxes: list[float] = []
    masks: list[float] = []
    scores: list[float] = []
    for picture in pictures:
        (a,), (b,) = exact(picture, confidence=CONFIDENCE), small(picture, confidence=CONFIDENCE)
        overlaps = iou_matrix(a.xyxy, b.xyxy)
        pairs = _match(np.where(a.class_id[:, None] == b.class_id[None], overlaps, 0))
        mine, theirs = np.array(pairs, np.int64).reshape(-1, 2).T
        lost += int((np.delete(a.confidence, mine) >= SURE).sum())
        added += int((np.delete(b.confidence, theirs) >= SURE).sum())
        sure_exact += int((a.confidence >= SURE).sum())
        sure_small += int((b.confidence >= SURE).sum())
        boxes += [float(overlaps[i, j]) for i, j in pairs]
        scores += np.abs(a.confidence[mine] - b.confidence[theirs]).tolist()
        if hasattr(a, "masks"):
            masks += [float(a.masks[[i]].iou(b.masks[[j]])[0, 0]) for i, j in pairs]
        count += 1
    if not sure_exact:
        raise InputError(
            "int8 cannot be judged: the float model finds nothing in the pictures that it would be judged by",
            found=f"no object of a score of {SURE} or more in {count} pictures",
            expected="pictures of what the model is for",
            fix="--calibration a folder of such pictures",
        )
    return Agreement(
        calibration=calibration,
        pictures=count,
        held_out=held_out,
        objects=sure_exact,
        lost=lost,
        added=added,
        agreement=round(1 - (lost + added) / (sure_exact + sure_small), 4),
        box_iou=round(float(np.mean(boxes)), 4) if boxes else 0.0,
        mask_iou=round(float(np.mean(masks)), 4) if masks else None,
        score_difference=round(float(np.mean(scores)), 4) if scores else 0.0,
    )


def require_agreement(figures: Agreement) -> None:
    """Refuses an int8 model that finds other things.

    Raises:
        BackendError: With the figures.
    """
    fine = figures.agreement >= LOWEST_AGREEMENT and figures.box_iou >= LOWEST_BOX_IOU
    if not (fine and (figures.mask_iou is None or figures.mask_iou >= LOWEST_MASK_IOU)):
        raise BackendError(
            "the int8 graph finds other objects than the float graph; it was not kept",
            found=str(figures),
            expected=f"agreement from {LOWEST_AGREEMENT} on, IoU of boxes {LOWEST_BOX_IOU}, of masks {LOWEST_MASK_IOU}",
            fix="calibrate with more pictures, of the kind that the model will see; or stay with fp32",
        )


def _match(overlaps: Any) -> list[tuple[int, int]]:
    """Pairs, one to one: each of the first, best score first, with the free one of the second that it overlaps most."""
    pairs, free = [], np.ones(overlaps.shape[1], bool)
    for i, row in enumerate(overlaps):
        if not free.any():
            break
        j = int(np.where(free, row, -1).argmax())
        if row[j] >= SAME:
            pairs.append((i, j))
            free[j] = False
    return pairs
