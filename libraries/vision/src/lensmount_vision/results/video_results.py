"""What trackers answer: one mask per object and frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lensmount.errors import InputError
from lensmount_vision.images.checks import Indices
from lensmount_vision.results.image_results import PromptedMasks
from lensmount_vision.results.rows import store
from lensmount_vision.results.shapes import Shapes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class VideoMasks(PromptedMasks):
    """The tracked objects in one frame of a video, one mask each; an object that is not in sight has an empty mask.

    Attributes:
        object_ids: int64 `(N,)`: the caller's numbers of the objects.
        frame: The frame's number, counted from 0 by the tracker.
        scores: float32 `(N,)`: probability that the object is in sight.
        logits: float32 `(N, h, w)` low-resolution logits, or None.
    """

    row_fields: ClassVar[tuple[str, ...]] = (*PromptedMasks.row_fields, "object_ids")
    kind: ClassVar[str] = "video-masks"
    whole_fields: ClassVar[tuple[str, ...]] = (*PromptedMasks.whole_fields, "frame")
    object_fields: ClassVar[Mapping[str, str]] = {**PromptedMasks.object_fields, "object_id": "object_ids"}

    object_ids: Indices
    frame: int = 0

    def __post_init__(self) -> None:
        PromptedMasks.__post_init__(self)
        ids = np.asarray(self.object_ids)
        if ids.shape != (len(self.masks),) or (ids.size and ids.dtype.kind not in "iu"):
            raise InputError(
                "object_ids do not fit",
                found=f"{ids.dtype} {ids.shape}",
                expected=f"({len(self.masks)},) whole numbers",
            )
        store(self, "object_ids", ids.astype(np.int64))
        store(self, "frame", int(self.frame))

    def shapes(self) -> Shapes:
        """What is drawn: an object keeps its number, and with it its colour, from frame to frame."""
        numbers = self.object_ids.tolist()
        return replace(super().shapes(), numbers=numbers, names=[f"#{number}" for number in numbers])
