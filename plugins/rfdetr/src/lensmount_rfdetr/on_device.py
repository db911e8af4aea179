"""The best (query, class) pairs on the device, for all pictures of a batch at once: the pairs of `postprocess`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lensmount.backend import settled
from lensmount_rfdetr.postprocess import Filter, Kept
from lensmount_vision.device.masks import resize_logits
from lensmount_vision.device.ordering import top_k
from lensmount_vision.device.whole_masks import resize_whole
from lensmount_vision.images.torch_streams import fetch, put

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.masks import Masks


@settled()
def keep_pairs(boxes: Tensor, logits: Tensor, wanted: Filter, classes: int) -> list[Kept]:
    """A flat top-K over sigmoid scores; one download of a few kilobytes for each picture.

    Args:
        boxes: `(B, Q, 4)` cxcywh as fractions of the input, on the device.
        logits: `(B, Q, C)`.
        wanted: What the call asks for; filters come before the top-K.
        classes: Columns that are classes; those beyond are background.

    Returns:
        The pairs of each picture, as `lensmount_rfdetr.postprocess.keep_pairs` gives them.
    """
    device, (_, queries, columns) = logits.device, logits.shape
    scores = 1 / (1 + torch.exp(-logits.float()))
    allowed = scores >= float(np.float32(wanted.confidence))
    ids = torch.arange(columns, device=device)
    admitted = ids < classes
    if wanted.classes is not None:
        admitted &= torch.isin(ids, put(wanted.classes, device))
    if wanted.per_class is not None:
        table = put(wanted.per_class, device)
        allowed &= scores >= table[ids.clamp(max=len(table) - 1)]
    # A network that overflowed in half precision has boxes that are no numbers; they are no objects either.
    allowed &= admitted & torch.isfinite(boxes).all(2)[..., None]
    upright = allowed & (boxes[..., 2:] >= 0).all(2)[..., None]  # see `postprocess`
    allowed = torch.where(upright.flatten(1).any(1)[:, None, None], upright, allowed)
    limit = queries if wanted.max_detections is None else wanted.max_detections
    index, real = top_k(scores.flatten(1), min(limit, queries * columns), allowed.flatten(1))
    query, label = torch.div(index, columns, rounding_mode="floor"), index % columns
    chosen = boxes.float().gather(1, query[..., None].expand(-1, -1, 4))
    centre, half = chosen[..., :2], chosen[..., 2:] / 2
    numbers = [scores.flatten(1).gather(1, index), label.float(), query.float(), real.float()]
    (pairs,) = fetch(torch.cat((centre - half, centre + half, torch.stack(numbers, 2)), 2))
    return [_kept(rows[rows[:, 7] > 0]) for rows in pairs]


def _kept(rows: NDArray[np.float32]) -> Kept:
    return Kept(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.int64), rows[:, 6].astype(np.int64))


@settled()
def masks(
    maps: Tensor, kept: Sequence[Kept], boxes: Sequence[NDArray[np.float32]] | None, geometries: Sequence[Geometry]
) -> list[Masks]:
    """Masks of the chosen queries of every picture.

    Args:
        maps: `(B, Q, h, w)` logits on the device.
        kept: What `keep_pairs` gave.
        boxes: `(n, 4)` xyxy in image pixels, of each picture, that masks are cut to; None leaves them whole.
        geometries: How the pictures lie in the network's frame.
    """
    rows = [put(part.queries, maps.device) for part in kept]
    chosen = [maps[i].index_select(0, row) for i, row in enumerate(rows)]
    return resize_whole(chosen, geometries)[0] if boxes is None else resize_logits(torch.cat(chosen), boxes, geometries)
