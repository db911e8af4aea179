"""Everything in a picture: a grid of points, and the masks that are good and differ (SAM's automatic mode)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import InputError, OptionError
from lensmount.specs.options import flag, fraction, positive
from lensmount_sam2.prompts import Prompts
from lensmount_sam2.selecting import choose, stability
from lensmount_vision.results.boxes import nms
from lensmount_vision.results.kinds import Masks, PromptedMasks
from lensmount_vision.results.mask_decoding import resize_logits_in_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_sam2.embedding import ImageEmbedding
    from lensmount_sam2.model import Sam2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `Sam2.generate` takes.

    Attributes:
        points_per_side: The grid has this many points along each side.
        points_per_batch: Points decoded at once; fewer take less memory.
        predicted_iou_threshold: Masks whose estimated IoU is lower are dropped.
        stability_threshold: Masks that change more than this with the threshold are dropped: IoU of the masks at
            `mask_threshold` plus and minus `stability_offset`. Measured on the low-resolution logits.
        stability_offset: See above.
        mask_threshold: Logit above which a pixel is mask.
        box_iou_threshold: Of two masks whose boxes overlap more, the worse is dropped.
        min_region_area: Islands and holes of fewer pixels are removed; 0 leaves them.
        multi_mask_output: Three masks per point, else one.
        use_embeddings_cache: As in `embed_images`.
        color: Channel order of an array or tensor.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    predicted_iou_threshold: float = 0.8
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    mask_threshold: float = 0.0
    box_iou_threshold: float = 0.7
    min_region_area: int = 0
    multi_mask_output: bool = True
    use_embeddings_cache: bool = True
    color: Any = None

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch"):
            positive(name, getattr(self, name))
        for name in ("predicted_iou_threshold", "stability_threshold", "box_iou_threshold"):
            fraction(name, getattr(self, name))
        for name in ("multi_mask_output", "use_embeddings_cache"):
            flag(name, getattr(self, name))
        for name in ("stability_offset", "mask_threshold", "min_region_area"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
            if not number or (name != "mask_threshold" and value < 0):
                raise OptionError(f"{name} is not valid", found=repr(value), expected="a number from 0")


def generate(model: Sam2, image: Any, settings: Settings) -> PromptedMasks:
    """See `Sam2.generate`."""
    embeddings = model.embed_images(image, settings.use_embeddings_cache, color=settings.color)
    if len(embeddings) != 1:
        raise InputError("generate takes one picture at a time", found=f"{len(embeddings)} pictures")
    (embedding,) = embeddings
    kept: list[tuple[Masks, NDArray[np.float32]]] = []
    points = grid(settings.points_per_side, embedding.image_size)
    for start in range(0, len(points), settings.points_per_batch):
        part = _batch(model, embedding, points[start : start + settings.points_per_batch], settings)
        if len(part[1]):
            kept.append(part)
    masks = _join([masks for masks, _ in kept], embedding.image_size)
    scores = np.concatenate([scores for _, scores in kept]) if kept else np.zeros(0, np.float32)
    filled = masks.area > 0
    masks, scores = masks[filled], scores[filled]
    chosen = nms(masks.boxes, scores, iou_threshold=settings.box_iou_threshold)
    masks, scores = masks[chosen], scores[chosen]
    if settings.min_region_area and len(masks):
        masks, changed = _without_specks(masks, settings.min_region_area)
        # Untouched masks go first, as in the reference: a repaired one is a copy of a good one at best.
        chosen = nms(masks.boxes, 1.0 - changed, iou_threshold=settings.box_iou_threshold)
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
    model: Sam2, embedding: ImageEmbedding, points: NDArray[np.float32], settings: Settings
) -> tuple[Masks, NDArray[np.float32]]:
    prompts = Prompts(points=points[:, None], labels=np.ones((len(points), 1), np.int64), several=True)
    places, labels = prompts.encode(embedding.geometry)
    if model.runner.on_device:
        from lensmount_sam2 import on_device

        there = model.runner.decode_there(embedding.maps, places, labels, None, None)
        return on_device.good_masks(*there, embedding.geometry, settings)
    logits, scores, _ = model.runner.decode(embedding.maps, places, labels, None, None)
    logits, scores = choose(logits, scores, settings.multi_mask_output)
    flat, rated = logits.reshape(-1, *logits.shape[2:]), scores.reshape(-1)
    good = np.flatnonzero(rated > settings.predicted_iou_threshold)
    flat, rated = flat[good], rated[good]
    steady = stability(flat, settings.mask_threshold, settings.stability_offset) >= settings.stability_threshold
    masks = resize_logits_in_boxes(flat[steady], None, embedding.geometry, threshold=settings.mask_threshold)
    return masks, rated[steady]


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
