"""Reference boxes to reference embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lensmount.errors import InputError
from lensmount.specs.options import fraction, one_of
from lensmount_owlv2.options import max_detections as limit
from lensmount_owlv2.proposals import Proposals
from lensmount_owlv2.scoring import Bank
from lensmount_owlv2.training import TrainBox, TrainingImage, class_names
from lensmount_vision.results.boxes import iou_matrix

POLICIES = ("warn", "nearest", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How references are matched and pictures searched.

    Attributes:
        confidence: Lowest score, or one per class.
        iou_threshold: Overlap of reference boxes with proposals, and of found boxes with each other.
        max_detections: Proposals that compete.
        on_unmatched: What becomes of a reference box that matches nothing.
    """

    confidence: float | Mapping[str | int, float]
    iou_threshold: float
    max_detections: int
    on_unmatched: str

    @classmethod
    def of(cls, confidence: Any, iou_threshold: Any, max_detections: int | None, on_unmatched: Any) -> Parameters:
        """Checks what a caller or a file says.

        Raises:
            OptionError: A value is out of range.
        """
        return cls(
            confidence=confidence if isinstance(confidence, Mapping) else fraction("confidence", confidence),
            iou_threshold=fraction("iou_threshold", iou_threshold),
            max_detections=limit(max_detections),
            on_unmatched=one_of("on_unmatched", on_unmatched, POLICIES),
        )


class UnmatchedBoxWarning(UserWarning):
    """A reference box matches nothing that the network proposes, and was left out or replaced."""


@dataclass(frozen=True, slots=True)
class UnmatchedBox:
    """A reference box that no proposal overlaps enough.

    Attributes:
        image: Number of its picture in the training data.
        box: The box.
        iou: Overlap of the best proposal.
        replaced: Whether the nearest proposal stands in for it.
    """

    image: int
    box: TrainBox
    iou: float
    replaced: bool

    def __str__(self) -> str:
        what = "the nearest proposal stands in" if self.replaced else "left out"
        kind = "negative " if self.box.negative else ""
        x, y, w, h = self.box.x, self.box.y, self.box.w, self.box.h
        return (
            f"picture {self.image}: {kind}{self.box.cls!r} at {x:g},{y:g} {w:g}x{h:g} (best IoU {self.iou:.2f}, {what})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What example boxes gave: all that a detector needs besides the network.

    Attributes:
        bank: Reference embeddings.
        parameters: Defaults of a call.
        unmatched: Reference boxes that matched nothing.
    """

    bank: Bank
    parameters: Parameters
    unmatched: tuple[UnmatchedBox, ...] = ()


def make_bank(
    images: Sequence[TrainingImage],
    proposals: Sequence[Proposals],
    *,
    iou_threshold: float,
    on_unmatched: str,
) -> tuple[Bank, tuple[UnmatchedBox, ...]]:
    """Takes the embedding of each reference box: that of the proposal with the highest IoU.

    Args:
        images: Reference data, checked.
        proposals: Of each picture.
        iou_threshold: A proposal counts when its IoU is above this.
        on_unmatched: `warn` leaves a box without such a proposal out; `nearest` takes the proposal with the
            highest IoU, or, where none overlaps, the one whose centre is nearest; `error` raises.

    Returns:
        The embeddings, and the boxes that matched nothing.

    Raises:
        InputError: A box lies outside its picture; nothing is left of a class; or, with `error`, a box matches nothing.
    """
    names = class_names(images)
    vectors, ids, negatives = [], [], []
    unmatched = []
    for number, (image, seen) in enumerate(zip(images, proposals, strict=True)):
        for box in image.boxes:
            row, iou = _match(box, seen, number)
            if not iou > np.float32(iou_threshold):
                unmatched.append(UnmatchedBox(number, box, iou, on_unmatched == "nearest"))
                if on_unmatched != "nearest":
                    continue
            vectors.append(seen.embeddings[row])
            ids.append(names.index(box.cls))
            negatives.append(box.negative)
    if unmatched and on_unmatched == "error":
        raise InputError("reference boxes match nothing", found="; ".join(map(str, unmatched)), fix=_FIX)
    shown = {class_id for class_id, negative in zip(ids, negatives, strict=True) if not negative}
    lost = [name for i, name in enumerate(names) if i not in shown]
    if lost:
        raise InputError(
            f"no positive reference box of {', '.join(map(repr, lost))} matches anything that the network proposes",
            found="; ".join(str(item) for item in unmatched if item.box.cls in lost),
            expected=f"an overlap above iou_threshold={iou_threshold:g}",
            fix=_FIX,
        )
    return Bank.of(np.stack(vectors), ids, negatives, names), tuple(unmatched)


def report(unmatched: Sequence[UnmatchedBox]) -> None:
    """Warns of boxes that matched nothing, on behalf of the caller of the model's method that calls this."""
    if unmatched:
        listed = "; ".join(map(str, unmatched[:10])) + ("; …" if len(unmatched) > 10 else "")
        warnings.warn(f"{len(unmatched)} reference boxes match nothing: {listed}", UnmatchedBoxWarning, stacklevel=3)


_FIX = "draw the boxes tightly around whole objects, lower iou_threshold, or pass on_unmatched='nearest'"


def _match(box: TrainBox, seen: Proposals, number: int) -> tuple[int, float]:
    """The best proposal for a box, and their IoU; without any overlap the nearest, and 0."""
    height, width = seen.image_size
    x1, y1, x2, y2 = box.xyxy
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise InputError(
            f"a reference box of {box.cls!r} lies outside its picture (number {number})",
            found=f"x={box.x:g}, y={box.y:g} (centre), w={box.w:g}, h={box.h:g}",
            expected=f"pixels of a picture of {width}x{height}",
        )
    side = max(height, width)
    target = np.array([[x1, y1, x2, y2]], np.float64) / side
    ious = iou_matrix(target.astype(np.float32), seen.boxes)[0]
    best = int(ious.argmax())
    if ious[best] > 0:
        return best, float(ious[best])
    centers = (seen.boxes[:, :2] + seen.boxes[:, 2:]) / 2
    distances = np.linalg.norm(centers - np.array((box.x / side, box.y / side), np.float32), axis=1)
    return int(distances.argmin()), 0.0
