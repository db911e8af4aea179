"""Masks of prompts on the device: `selecting` and the end of `Sam2.postprocess`, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lensmount.backend.torch_streams import fetch, put
from lensmount_sam2.selecting import CLAMP, STABILITY_DELTA, STABILITY_THRESHOLD, choose
from lensmount_vision.device.whole_masks import resize_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_sam2.everything import Settings
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.masks import Masks

    Floats = NDArray[np.float32]


@torch.inference_mode()
def choose_one(logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """`lensmount_sam2.selecting.choose` for one mask per prompt: `(P, 4, h, w)` to `(P, 1, h, w)`."""
    steady = stability(logits[:, 0], 0.0, STABILITY_DELTA) >= STABILITY_THRESHOLD
    index = torch.where(steady, 0, 1 + scores[:, 1:].argmax(1))[:, None]
    places = index[..., None, None].expand(-1, -1, *logits.shape[2:])
    return logits.gather(1, places), scores.gather(1, index)


def stability(logits: Tensor, threshold: float, delta: float) -> Tensor:
    """`lensmount_sam2.selecting.stability`: float32 `(…,)` of `(…, h, w)`."""
    inner = (logits > threshold + delta).sum((-2, -1)).float()
    outer = (logits > threshold - delta).sum((-2, -1)).float()
    return torch.where(outer > 0, inner / outer, 1.0)


@torch.inference_mode()
def finish(logits: Tensor, scores: Tensor, geometry: Geometry, threshold: float) -> tuple[Masks, Floats, Floats]:
    """Masks at the picture's size, scores, and logits `(N, h, w)` clamped to ±32, in one download.

    Args:
        logits: float32 `(N, h, w)`.
        scores: float32, N of them.
        geometry: How the picture lies in the network's input.
        threshold: Logit above which a pixel is mask.

    Raises:
        InputError: Logits are not finite.
    """
    beside = (scores, logits.clamp(-CLAMP, CLAMP))
    (masks,), (rated, clamped) = resize_whole([logits], [geometry], threshold=threshold, beside=beside)
    # Copies: the packed masks, which lie in the same memory, may go.
    return masks, rated.copy(), clamped.copy()


@torch.inference_mode()
def good_masks(logits: Tensor, scores: Tensor, geometry: Geometry, settings: Settings) -> tuple[Masks, Floats]:
    """The masks of a grid's points that are good and steady, and their scores; two downloads, none of logits.

    Args:
        logits: float32 `(P, 4, h, w)`.
        scores: float32 `(P, 4)`.
        geometry: How the picture lies in the network's input.
        settings: What `Sam2.generate` was asked for.
    """
    logits, scores = choose(logits, scores, settings.multi_mask_output)
    flat = logits.flatten(0, 1)
    rated, steady = fetch(scores.flatten(), stability(flat, settings.mask_threshold, settings.stability_offset))
    good = np.flatnonzero((rated > settings.predicted_iou_threshold) & (steady >= settings.stability_threshold))
    chosen = flat.index_select(0, put(good, flat.device))
    (masks,), _ = resize_whole([chosen], [geometry], threshold=settings.mask_threshold)
    return masks, rated[good]
