"""Which of the decoder's four masks answer a prompt, and those masks in pixels: on the device where they lie there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lensmount.backend.tensors import is_tensor
from lensmount_sam2 import on_host

if TYPE_CHECKING:
    from lensmount_sam2.on_host import Check, Floats
    from lensmount_sam2.options import GenerateOptions
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.masks import Masks


def _where(logits: Any) -> Any:
    """The module that works where the logits lie; torch is imported for tensors alone."""
    if is_tensor(logits):
        from lensmount_sam2 import on_device

        return on_device
    return on_host


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
    chosen: tuple[Any, Any] = _where(logits).choose_one(logits, scores)
    return chosen


def finish(logits: Any, scores: Any, geometry: Geometry, threshold: float) -> tuple[Masks, Floats, Floats]:
    """Masks at the picture's size, scores, and logits `(N, h, w)` clamped to ±32; of tensors in one download.

    Args:
        logits: float32 `(N, h, w)`.
        scores: float32, N of them.
        geometry: How the picture lies in the network's input.
        threshold: Logit above which a pixel is mask.

    Raises:
        InputError: Logits are not finite.
    """
    finished: tuple[Masks, Floats, Floats] = _where(logits).finish(logits, scores, geometry, threshold)
    return finished


def good_masks(
    logits: Any,
    scores: Any,
    geometry: Geometry,
    options: GenerateOptions,
    check: Check,
) -> tuple[Masks, Floats]:
    """The masks of a grid's points that are good and steady, and their scores; two downloads, none of logits.

    Args:
        logits: float32 `(P, 4, h, w)`.
        scores: float32 `(P, 4)`.
        geometry: How the picture lies in the network's input.
        options: What `Sam2.generate` was asked for.
        check: Is given logits (or NaN for each mask whose logits are not finite) and scores by name, on the host, and
            raises where they are not finite.
    """
    logits, scores = choose(logits, scores, options.multi_mask_output)
    flat, rated = logits.reshape(-1, *logits.shape[2:]), scores.reshape(-1)
    good: tuple[Masks, Floats] = _where(logits).good_masks(flat, rated, geometry, options, check)
    return good
