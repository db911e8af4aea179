"""Masks of prompts on the device: what `on_host` does in numpy, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lensmount.backend import settled
from lensmount_sam2.on_host import CLAMP, STABILITY_DELTA, STABILITY_THRESHOLD
from lensmount_vision.device.whole_masks import resize_whole
from lensmount_vision.images.torch_streams import fetch, put

if TYPE_CHECKING:
    from lensmount_sam2.on_host import Check, Floats
    from lensmount_sam2.options import GenerateOptions
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.masks import Masks


@settled()
def choose_one(logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """`lensmount_sam2.selecting.choose` for one mask per prompt: `(P, 4, h, w)` to `(P, 1, h, w)`."""
    steady = stability(logits[:, 0], 0.0, STABILITY_DELTA) >= STABILITY_THRESHOLD
    index = torch.where(steady, 0, 1 + scores[:, 1:].argmax(1))[:, None]
    places = index[..., None, None].expand(-1, -1, *logits.shape[2:])
    return logits.gather(1, places), scores.gather(1, index)


def stability(logits: Tensor, threshold: float, delta: float) -> Tensor:
    """`lensmount_sam2.on_host.stability`: float32 `(…,)` of `(…, h, w)`."""
    inner = (logits > threshold + delta).sum((-2, -1)).float()
    outer = (logits > threshold - delta).sum((-2, -1)).float()
    return torch.where(outer > 0, inner / outer, 1.0)


@settled()
def finish(logits: Tensor, scores: Tensor, geometry: Geometry, threshold: float) -> tuple[Masks, Floats, Floats]:
    """See `lensmount_sam2.selecting.finish`."""
    beside = (scores, logits.clamp(-CLAMP, CLAMP))
    (masks,), (rated, clamped) = resize_whole([logits], [geometry], threshold=threshold, beside=beside)
    # Copies: the packed masks, which lie in the same memory, may go.
    return masks, rated.copy(), clamped.copy()


@settled()
def good_masks(
    logits: Tensor,
    scores: Tensor,
    geometry: Geometry,
    options: GenerateOptions,
    check: Check,
) -> tuple[Masks, Floats]:
    """`lensmount_sam2.selecting.good_masks` for chosen logits `(N, h, w)` and scores `(N,)`."""
    finite = torch.where(logits.isfinite().flatten(1).all(1), 0.0, torch.nan)
    rated, steady, marked = fetch(
        scores, stability(logits, options.mask_threshold, options.stability_offset), finite.to(torch.float32)
    )
    check({"logits": marked, "scores": rated})
    good = np.flatnonzero((rated > options.predicted_iou_threshold) & (steady >= options.stability_threshold))
    chosen = logits.index_select(0, put(good, logits.device))
    (masks,), _ = resize_whole([chosen], [geometry], threshold=options.mask_threshold)
    return masks, rated[good]
