"""Which of the decoder's four masks answer a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.tensors import is_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98
CLAMP = 32.0
"""Logits that are handed out, and fed back, lie within this of 0."""


def choose(logits: Any, scores: Any, several: bool) -> tuple[Any, Any]:
    """Chooses masks as the reference does; of tensors on their device, without waiting for it.

    Args:
        logits: float32 `(P, 4, h, w)`: the mask for a prompt without doubt, then the three for one with.
        scores: `(P, 4)` estimated IoU.
        several: All three; else the first, or, where that changes with the threshold, the best of the three.

    Returns:
        Logits `(P, M, h, w)` and scores `(P, M)`, M = 3 or 1.
    """
    if several:
        return logits[:, 1:], scores[:, 1:]
    if is_tensor(logits):
        from lensmount_sam2 import on_device

        return on_device.choose_one(logits, scores)
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
