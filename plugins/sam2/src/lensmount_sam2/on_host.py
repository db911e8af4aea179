"""Masks of prompts in numpy; `on_device` does the same in torch, and `selecting` says which of the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lensmount_vision.results.mask_decoding import resize_logits_in_boxes

if TYPE_CHECKING:
    from lensmount_sam2.options import GenerateOptions
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.masks import Masks

Floats = NDArray[np.float32]
Check = Callable[[Mapping[str, Floats]], None]

STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98
CLAMP = 32.0
"""Logits that are handed out, and fed back, lie within this of 0."""


def choose_one(logits: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """`lensmount_sam2.selecting.choose` for one mask per prompt: `(P, 4, h, w)` to `(P, 1, h, w)`."""
    steady = stability(logits[:, 0], 0.0, STABILITY_DELTA) >= np.float32(STABILITY_THRESHOLD)
    index = np.where(steady, 0, 1 + scores[:, 1:].argmax(axis=1))
    rows = np.arange(len(logits))
    return logits[rows, index][:, None], scores[rows, index][:, None]


def stability(logits: Floats, threshold: float, delta: float) -> Floats:
    """IoU of each mask at a higher and at a lower threshold: float32 `(…,)` of `(…, h, w)`; 1 where both are empty."""
    inner = np.count_nonzero(logits > threshold + delta, axis=(-2, -1)).astype(np.float32)
    outer = np.count_nonzero(logits > threshold - delta, axis=(-2, -1)).astype(np.float32)
    ones = np.ones_like(outer)
    result: Floats = np.divide(inner, outer, out=ones, where=outer > 0)
    return result


def finish(logits: Floats, scores: Floats, geometry: Geometry, threshold: float) -> tuple[Masks, Floats, Floats]:
    """See `lensmount_sam2.selecting.finish`."""
    masks = resize_logits_in_boxes(logits, None, geometry, threshold=threshold)
    return masks, scores, np.clip(logits, -CLAMP, CLAMP)


def good_masks(
    logits: Floats,
    scores: Floats,
    geometry: Geometry,
    options: GenerateOptions,
    check: Check,
) -> tuple[Masks, Floats]:
    """`lensmount_sam2.selecting.good_masks` for chosen logits `(N, h, w)` and scores `(N,)`."""
    check({"logits": logits, "scores": scores})
    good = np.flatnonzero(scores > options.predicted_iou_threshold)
    logits, scores = logits[good], scores[good]
    steady = stability(logits, options.mask_threshold, options.stability_offset) >= options.stability_threshold
    return resize_logits_in_boxes(logits[steady], None, geometry, threshold=options.mask_threshold), scores[steady]
