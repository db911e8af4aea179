"""Everything in a picture: a grid of points, and the masks that are good and differ (SAM's automatic mode)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_sam2.prompts import Prompts
from lensmount_sam2.selecting import good_masks
from lensmount_vision.results.boxes import nms
from lensmount_vision.results.kinds import Masks, PromptedMasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_sam2.embedding import ImageEmbedding
    from lensmount_sam2.options import GenerateOptions
    from lensmount_sam2.runner import Runner


def generate(
    runner: Runner, embedding: ImageEmbedding, options: GenerateOptions, check: Callable[[Any], None]
) -> PromptedMasks:
    """Masks of all that a grid of points finds in an encoded picture; see `lensmount_sam2.model.Sam2.generate`.

    `check` is given the chosen outputs by name, and refuses what is not finite: no mask would be good then.
    """
    kept: list[tuple[Masks, NDArray[np.float32]]] = []
    points = grid(options.points_per_side, embedding.image_size)
    for start in range(0, len(points), options.points_per_batch):
        part = _batch(runner, embedding, points[start : start + options.points_per_batch], options, check)
        if len(part[1]):
            kept.append(part)
    masks = _join([masks for masks, _ in kept], embedding.image_size)
    scores = np.concatenate([scores for _, scores in kept]) if kept else np.zeros(0, np.float32)
    filled = masks.area > 0
    masks, scores = masks[filled], scores[filled]
    chosen = nms(masks.boxes, scores, iou_threshold=options.box_iou_threshold)
    masks, scores = masks[chosen], scores[chosen]
    if options.min_region_area and len(masks):
        masks, changed = _without_specks(masks, options.min_region_area)
        # Untouched masks go first, as in the reference: a repaired one is a copy of a good one at best.
        chosen = nms(masks.boxes, 1.0 - changed, iou_threshold=options.box_iou_threshold)
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        masks, scores = masks[chosen], scores[chosen]
    return PromptedMasks(masks=masks, scores=scores, image_size=embedding.image_size, path=embedding.path)


def grid(side: int, image_size: tuple[int, int]) -> NDArray[np.float32]:
    """`(side * side, 2)` points x, y, evenly spread, in original pixels."""
    steps = (np.arange(side) + 0.5) / side
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    height, width = image_size
    return np.stack((columns.ravel() * width, rows.ravel() * height), axis=1).astype(np.float32)


def _batch(
    runner: Runner,
    embedding: ImageEmbedding,
    points: NDArray[np.float32],
    options: GenerateOptions,
    check: Callable[[Any], None],
) -> tuple[Masks, NDArray[np.float32]]:
    prompts = Prompts(points=points[:, None], labels=np.ones((len(points), 1), np.int64), several=True)
    logits, scores = runner.decode(embedding.maps, *prompts.encode(embedding.geometry), None, None)
    return good_masks(logits, scores, embedding.geometry, options, check)


def _join(parts: list[Masks], image_size: tuple[int, int]) -> Masks:
    crops = [part.crop(index) for part in parts for index in range(len(part))]
    if not crops:
        return Masks.empty(image_size)
    return Masks(crops, np.concatenate([part.origins for part in parts]), image_size)


def _without_specks(masks: Masks, area: int) -> tuple[Masks, NDArray[np.float32]]:
    """Masks without small holes and islands, and 1 for each that changed."""
    crops, changed = [], []
    for index, (x, y) in enumerate(masks.origins.tolist()):
        before = masks.crop(index)
        # A hole at the crop's edge is open to the rest of the picture: the frame of background says so.
        after = ~_without_islands(~np.pad(before, 1), area)
        after = _without_islands(after[1:-1, 1:-1], area, keep_largest=True)
        crops.append((after, (x, y)))
        changed.append(float((after != before).any()))
    return Masks.from_crops(crops, masks.image_size), np.array(changed, np.float32)


def _without_islands(mask: NDArray[np.bool_], area: int, *, keep_largest: bool = False) -> NDArray[np.bool_]:
    import cv2

    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    sizes = statistics[:, cv2.CC_STAT_AREA]
    keep = sizes >= area
    keep[0] = False
    if keep_largest and count > 1 and not keep.any():
        keep[1 + int(np.argmax(sizes[1:]))] = True
    result: NDArray[np.bool_] = keep[labels]
    return result
