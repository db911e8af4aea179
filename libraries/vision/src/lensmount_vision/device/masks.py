"""Instance masks at image resolution from tensors: `lensmount_vision.results.mask_decoding` on the device.

Every mask of a batch is sampled in one pass over the pixels of all boxes, laid end to end (large ones in several); the
masks then come to the host in one download, of which each crop is a view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensmount.backend import settled
from lensmount.errors import InputError
from lensmount_vision.images.checks import as_array, as_boxes
from lensmount_vision.images.geometry import Geometry
from lensmount_vision.images.torch_streams import fetch, put
from lensmount_vision.results.mask_sampling import Axis, axes, pixel_ranges
from lensmount_vision.results.masks import Crop, Masks

#: Pixels sampled at once, each with some hundred bytes of intermediate results.
PIXELS = 4 * 2**20
#: Logits made of prototypes at once, in numbers.
LOGITS = 64 * 2**20

Floats = NDArray[np.float32]
Axes = tuple[Axis, Axis]


@settled()
def decode_prototypes(
    coefficients: Sequence[Floats], prototypes: Tensor, boxes: Sequence[Floats], geometries: Sequence[Geometry]
) -> list[Masks]:
    """Masks of a batch, cut to their boxes; see `lensmount_vision.results.mask_decoding.decode_prototypes`.

    Args:
        coefficients: `(n, K)` of each picture, on the host.
        prototypes: `(B, K, h, w)`.
        boxes: `(n, 4)` xyxy in image pixels, of each picture.
        geometries: How the pictures lie in the network's frame.

    Returns:
        n masks of each picture: a pixel is mask where its probability is more than a half.

    Raises:
        InputError: Coefficients or logits are not finite.
    """
    _, k, height, width = prototypes.shape
    queued: list[_Queued] = []
    for group in _groups([len(part) * height * width for part in boxes]):
        every = as_array(np.concatenate([coefficients[i] for i in group]), "mask coefficients")
        weights = put(every, prototypes.device)
        bases = prototypes[group[0] : group[-1] + 1].float().reshape(len(group), k, height * width)
        counts = [len(boxes[i]) for i in group]
        parts = [part @ bases[row] for row, part in enumerate(torch.split(weights, counts))]
        logits = torch.cat(parts).view(-1, height, width)
        queued.append(_queue(logits, [boxes[i] for i in group], [geometries[i] for i in group], 0.0))
    return _collect(queued)


@settled()
def resize_logits(
    logits: Tensor, boxes: Sequence[Floats], geometries: Sequence[Geometry], *, threshold: float = 0.0
) -> list[Masks]:
    """Masks of a batch from one logit map each, cut to their boxes; see `lensmount_vision.results.mask_decoding`.

    Args:
        logits: `(N, h, w)` of all pictures, one after the other.
        boxes: `(n, 4)` xyxy in image pixels, of each picture.
        geometries: How the pictures lie in the network's frame.
        threshold: Logit above which a pixel is mask.

    Raises:
        InputError: Logits are not finite.
    """
    return _collect([_queue(logits.float().contiguous(), boxes, geometries, threshold)])


def _groups(costs: Sequence[int]) -> Iterator[list[int]]:
    """Neighbouring pictures whose logits fit into memory together."""
    group: list[int] = []
    total = 0
    for index, cost in enumerate(costs):
        if group and total + cost > LOGITS:
            yield group
            group, total = [], 0
        group.append(index)
        total += cost
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class _Queued:
    """Masks that the device works on.

    Attributes:
        pixels: bool, the pixels of some boxes end to end, in each tensor.
        finite: bool, whether the logits are.
        ranges: `(n, 4)` pixel ranges of each picture's boxes.
        geometries: Of each picture.
    """

    pixels: list[Tensor]
    finite: Tensor
    ranges: list[NDArray[np.int64]]
    geometries: Sequence[Geometry]


def _queue(logits: Tensor, boxes: Sequence[Floats], geometries: Sequence[Geometry], threshold: float) -> _Queued:
    """Has every mask sampled in its box; float32 logits `(N, h, w)`, contiguous."""
    ranges = [
        pixel_ranges(as_boxes(part), geometry.original_size) for part, geometry in zip(boxes, geometries, strict=True)
    ]
    every = np.concatenate(ranges) if ranges else np.zeros((0, 4), np.int64)
    owners = np.repeat(np.arange(len(ranges)), [len(part) for part in ranges])
    pixels: list[Tensor] = []
    if len(every):
        lines = _Lines([axes(geometry, (logits.shape[1], logits.shape[2])) for geometry in geometries], logits.device)
        for part in _passes(_areas(every)):
            pixels.append(_pixels(logits[part], every[part], owners[part], lines, threshold))
    return _Queued(pixels, torch.isfinite(logits).all(), ranges, geometries)


def _passes(areas: NDArray[np.int64]) -> Iterator[slice]:
    """Neighbouring boxes that are sampled at once: one at least, however large."""
    ends, start = np.cumsum(areas), 0
    while start < len(areas):
        most = (ends[start - 1] if start else 0) + PIXELS
        stop = max(start + 1, int(np.searchsorted(ends, most, side="right")))
        yield slice(start, stop)
        start = stop


def _areas(ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    areas: NDArray[np.int64] = np.maximum(ranges[:, 2:] - ranges[:, :2], 0).prod(1)
    return areas


def _collect(queued: Sequence[_Queued]) -> list[Masks]:
    """Brings masks to the host in one download; without masks there is none."""
    waiting = [pixels for part in queued for pixels in part.pixels]
    here: list[NDArray[Any]] = []
    if waiting:
        finite, *here = fetch(torch.stack([part.finite for part in queued]).all(), *waiting)
        if not finite:
            raise InputError("mask logits are not finite", found="NaN or infinity", expected="finite numbers")
    arrays = iter(here)
    made: list[Masks] = []
    for part in queued:
        every = np.concatenate(part.ranges)
        crops = iter([crop for rows in _passes(_areas(every)) for crop in _cut(next(arrays), every[rows])])
        made += [
            Masks.from_crops([next(crops) for _ in ranges], geometry.original_size)
            for ranges, geometry in zip(part.ranges, part.geometries, strict=True)
        ]
    return made


def _cut(flat: NDArray[np.bool_], ranges: NDArray[np.int64]) -> Iterator[Crop]:
    """The crop of each box out of pixels that lie end to end."""
    offset = 0
    for x0, y0, x1, y1 in ranges.tolist():
        width, height = max(x1 - x0, 0), max(y1 - y0, 0)
        size = width * height
        if size:
            yield flat[offset : offset + size].reshape(height, width), (x0, y0)
        else:
            yield np.zeros((0, 0), np.bool_), (0, 0)
        offset += size


class _Lines:
    """The tables of all pictures' rows and columns end to end, on the device."""

    def __init__(self, tables: Sequence[Axes], device: torch.device) -> None:
        every = [axis for pair in tables for axis in pair]
        lengths = np.cumsum([0, *(len(axis.low) for axis in every)])
        self.rows, self.columns = lengths[:-1:2], lengths[1:-1:2]
        # Steps to the next logit, none at the last.
        steps = [np.minimum(axis.low + 1, axis.pixels - 1) - axis.low for axis in every]
        whole = np.stack((np.concatenate([axis.low for axis in every]), np.concatenate(steps)))
        self.low, self.step = put(whole.astype(np.int32), device)
        self.weight = put(np.concatenate([axis.weight for axis in every]), device)


def _pixels(
    logits: Tensor, ranges: NDArray[np.int64], owners: NDArray[np.int64], lines: _Lines, threshold: float
) -> Tensor:
    """The pixels of some maps' boxes, one box after the other: which of them are mask."""
    widths = np.maximum(ranges[:, 2] - ranges[:, 0], 0)
    sizes = widths * np.maximum(ranges[:, 3] - ranges[:, 1], 0)
    count, stride = int(sizes.sum()), logits.shape[1] * logits.shape[2]
    table = np.stack(
        (
            sizes,
            np.cumsum(sizes) - sizes,
            np.maximum(widths, 1),
            lines.rows[owners] + ranges[:, 1],
            lines.columns[owners] + ranges[:, 0],
            np.arange(len(ranges)) * stride,
        )
    )
    sizes_there, *numbers = put(table, logits.device)
    of = torch.repeat_interleave(sizes_there, output_size=count)
    starts, width, row, column, base = (number.index_select(0, of) for number in numbers)
    local = torch.arange(count, device=logits.device).sub_(starts)
    y = torch.div(local, width, rounding_mode="floor")
    row = row.add_(y)
    column = column.add_(local.sub_(y.mul_(width)))
    across, down = lines.weight.index_select(0, column), lines.weight.index_select(0, row)
    right, below = lines.step.index_select(0, column), lines.step.index_select(0, row) * logits.shape[2]
    base = base + lines.low.index_select(0, row) * logits.shape[2] + lines.low.index_select(0, column)
    flat = logits.reshape(-1)
    # In the host's order: along the row, then between rows.
    upper = flat.index_select(0, base)
    upper = upper + (flat.index_select(0, base + right) - upper) * across
    base = base.add_(below)
    lower = flat.index_select(0, base)
    lower = lower + (flat.index_select(0, base + right) - lower) * across
    values = (lower - upper) * down + upper
    return values > threshold
