"""Whole masks at image resolution from small logit maps: upsampled, thresholded and packed on the device.

A mask that no box cuts can lie anywhere, but its size is known before the device has computed anything. So all masks,
eight pixels to the byte, and whatever else is wanted of the same call come to the host in one download, each mask with
the box around its pixels: only what lies in there is unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensmount.backend import settled
from lensmount.errors import InputError
from lensmount_vision.images.torch_streams import fetch, put
from lensmount_vision.results.mask_sampling import Axis, GeometryLike, axes
from lensmount_vision.results.masks import Crop, Masks

#: Values sampled at once, each with some twenty bytes of intermediate results.
VALUES = 32 * 2**20


@settled()
def resize_whole(
    logits: Sequence[Tensor],
    geometries: Sequence[GeometryLike],
    *,
    threshold: float = 0.0,
    beside: Sequence[Tensor] = (),
) -> tuple[list[Masks], list[NDArray[Any]]]:
    """Masks of a batch, in one download; see `lensmount_vision.results.resize_logits_in_boxes` without boxes.

    Args:
        logits: `(n, h, w)` of each picture, on one device.
        geometries: How the pictures lie in the network's frame.
        threshold: Logit above which a pixel is mask.
        beside: What comes to the host along with the masks.

    Returns:
        n masks of each picture, cropped to their pixels, which are those of the host's arithmetic; and `beside` as
        arrays, of which the masks share no memory.

    Raises:
        InputError: Logits are not finite.
    """
    if not beside and not any(map(len, logits)):
        return [Masks.empty(geometry.original_size) for geometry in geometries], []
    level = float(np.float32(threshold))
    parts = [_pack(part.float(), geometry, level) for part, geometry in zip(logits, geometries, strict=True)]
    finite = torch.stack([torch.isfinite(part).all() for part in logits]).all()
    arrays = fetch(finite, *beside, *(tensor for part in parts for tensor in part))
    if not arrays[0]:
        raise InputError("mask logits are not finite", found="NaN or infinity", expected="finite numbers")
    others, packed = arrays[1 : 1 + len(beside)], iter(arrays[1 + len(beside) :])
    made = [
        Masks.from_crops(
            [_crop(rows, box) for rows, box in zip(bits, boxes.tolist(), strict=True)], geometry.original_size
        )
        for bits, boxes, geometry in zip(packed, packed, geometries, strict=True)
    ]
    return made, others


def _pack(logits: Tensor, geometry: GeometryLike, level: float) -> tuple[Tensor, Tensor]:
    """uint8 `(n, H, ceil(W / 8))`, the leftmost pixel in the highest bit, and int32 `(n, 4)` xyxy of what is set."""
    height, width = geometry.original_size
    count, device = len(logits), logits.device
    rows, columns = (_Table(axis, device) for axis in axes(geometry, (logits.shape[1], logits.shape[2])))
    bits = torch.empty((count, height, -(-width // 8)), dtype=torch.uint8, device=device)
    boxes = torch.empty((count, 4), dtype=torch.int32, device=device)
    step = max(1, VALUES // (height * width))
    for start in range(0, count, step):
        part = slice(start, start + step)
        # In the host's order: along the row, then between rows.
        across = columns.between(logits[part], 2)
        masks = rows.between(across, 1) > level
        bits[part] = _bits(masks)
        boxes[part] = _bounds(masks)
    return bits, boxes


class _Table:
    """An axis on the device: `lensmount_vision.results.mask_sampling.Axis`."""

    def __init__(self, axis: Axis, device: torch.device) -> None:
        whole = np.stack((axis.low, np.minimum(axis.low + 1, axis.pixels - 1)))
        self.low, self.high = put(whole, device)
        self.weight = put(axis.weight, device)

    def between(self, values: Tensor, dim: int) -> Tensor:
        """Values at every image pixel along one axis."""
        low = values.index_select(dim, self.low)
        weight = self.weight.view([-1 if axis == dim else 1 for axis in range(values.ndim)])
        return values.index_select(dim, self.high).sub_(low).mul_(weight).add_(low)


def _bits(masks: Tensor) -> Tensor:
    """Masks `(n, H, W)` to uint8 `(n, H, ceil(W / 8))`, as `numpy.packbits` has it."""
    width = masks.shape[2]
    if width % 8:
        masks = torch.nn.functional.pad(masks, (0, 8 - width % 8))
    made = torch.zeros((*masks.shape[:2], masks.shape[2] // 8), dtype=torch.uint8, device=masks.device)
    values = masks.view(torch.uint8)
    for place in range(8):
        made |= values[:, :, place::8] << (7 - place)
    return made


def _bounds(masks: Tensor) -> Tensor:
    """Masks `(n, H, W)` to int32 `(n, 4)`: the half-open box around the pixels that are set, noughts where none is."""
    sides = []
    for dim in (1, 2):  # over rows for x, over columns for y
        used = masks.any(dim).to(torch.uint8)
        sides.append((used.argmax(1), used.shape[1] - used.flip(1).argmax(1)))
    (x0, x1), (y0, y1) = sides
    return torch.stack((x0, y0, x1, y1), 1).to(torch.int32) * masks.any(2).any(1)[:, None]


def _crop(bits: NDArray[np.uint8], box: list[int]) -> Crop:
    """The pixels of a box, unpacked."""
    x0, y0, x1, y1 = box
    if x0 == x1:
        return np.zeros((0, 0), np.bool_), (0, 0)
    first = x0 // 8
    pixels = np.unpackbits(bits[y0:y1, first : -(-x1 // 8)], axis=1)
    return pixels[:, x0 - 8 * first : x1 - 8 * first].view(np.bool_), (x0, y0)
