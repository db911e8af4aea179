"""Low-resolution mask logits, sampled bilinearly at image pixels, inside boxes only.

The map from image to logit pixels is affine and separable (half-pixel centres, edges repeated; `align_corners=False` in
torch's words), so each axis has one table of neighbours and weights for the whole image, and a box takes slices of it:
a few hundred columns are interpolated between logit rows, then rows between those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lensmount_vision.results.masks import Crop

Floats = NDArray[np.float32]
Ranges = NDArray[np.int64]


class GeometryLike(Protocol):
    """What is needed of a `lensmount_vision.images.Geometry`: `network = (image - crop_origin) * scale + offset`."""

    @property
    def original_size(self) -> tuple[int, int]:
        """`(height, width)` of the picture."""

    @property
    def network_size(self) -> tuple[int, int]:
        """`(height, width)` of the network's frame."""

    @property
    def scale(self) -> tuple[float, float]:
        """`(x, y)`."""

    @property
    def offset(self) -> tuple[float, float]:
        """`(x, y)`."""

    @property
    def crop_origin(self) -> tuple[int, int]:
        """`(x, y)`."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The geometry of a picture squashed into the network's frame, or equal to it."""

    original_size: tuple[int, int]
    network_size: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)
    crop_origin: tuple[int, int] = (0, 0)

    @property
    def scale(self) -> tuple[float, float]:
        """`(x, y)`: network size over image size."""
        (height, width), (rows, columns) = self.original_size, self.network_size
        return columns / width, rows / height


@dataclass(frozen=True, slots=True)
class Axis:
    """Where each image pixel of one axis lies between two logit pixels.

    Attributes:
        low: int64 `(L,)` index of the logit pixel before it.
        weight: float32 `(L,)` share of the next one, 0..1.
        pixels: Number of logit pixels.
    """

    low: NDArray[np.int64]
    weight: Floats
    pixels: int

    @classmethod
    def plan(cls, length: int, pixels: int, per_image_pixel: float, start: float) -> Axis:
        """Tables for `length` image pixels, of which pixel 0 begins at logit coordinate `start`."""
        position = (np.arange(length) + 0.5) * per_image_pixel + start - 0.5
        low = np.clip(np.floor(position).astype(np.int64), 0, max(pixels - 2, 0))
        weight = np.clip(position - low, 0, 1 if pixels > 1 else 0).astype(np.float32)
        return cls(low, weight, pixels)

    def reach(self, first: int, stop: int) -> tuple[int, int]:
        """Half-open range of logit pixels that the image pixels `first..stop` lie between."""
        return int(self.low[first]), min(int(self.low[stop - 1]) + 2, self.pixels)

    def support(self, used: NDArray[np.bool_]) -> tuple[int, int]:
        """Half-open range of image pixels with a neighbour among the `used` logit pixels."""
        indices = np.flatnonzero(used)
        first = int(np.searchsorted(self.low, int(indices[0]) - 1, side="left"))
        return first, int(np.searchsorted(self.low, int(indices[-1]), side="right"))


def axes(geometry: GeometryLike, logits_size: tuple[int, int]) -> tuple[Axis, Axis]:
    """Tables of the vertical and the horizontal axis.

    Args:
        geometry: From image to network pixels.
        logits_size: `(h, w)` of the logits, which cover the whole network frame.
    """
    planned = []
    for image_axis, pair_axis in ((0, 1), (1, 0)):
        pixels = logits_size[image_axis]
        ratio = pixels / geometry.network_size[image_axis]
        per_pixel = geometry.scale[pair_axis] * ratio
        start = geometry.offset[pair_axis] * ratio - geometry.crop_origin[pair_axis] * per_pixel
        planned.append(Axis.plan(geometry.original_size[image_axis], pixels, per_pixel, start))
    return planned[0], planned[1]


def pixel_ranges(boxes: Floats, image_size: tuple[int, int]) -> Ranges:
    """Half-open pixel ranges x0, y0, x1, y1 of boxes: pixel `i` belongs to a box when `low <= i < high`.

    That is the field's rule for cutting masks to boxes. Ranges are clipped to the image; an empty one has `x1 == x0`.
    """
    height, width = image_size
    ranges = np.ceil(boxes.astype(np.float64)).clip(0, (width, height, width, height)).astype(np.int64)
    ranges[:, 2:] = np.maximum(ranges[:, 2:], ranges[:, :2])
    return ranges


def sample(logits: Floats, rows: Axis, columns: Axis, box: Iterable[int], at: tuple[int, int], level: float) -> Crop:
    """The mask inside one box.

    Args:
        logits: `(h, w)`, the part of the logits that the box reaches.
        rows: Vertical table.
        columns: Horizontal table.
        box: Pixel range x0, y0, x1, y1.
        at: `(x, y)` of `logits` within the whole logits.
        level: What lies above it is mask.
    """
    x0, y0, x1, y1 = box
    low, weight = columns.low[x0:x1] - at[0], columns.weight[x0:x1]
    across = logits.take(low, axis=1)
    step = logits.take(np.minimum(low + 1, logits.shape[1] - 1), axis=1)
    step -= across
    step *= weight
    across += step
    low, weight = rows.low[y0:y1] - at[1], rows.weight[y0:y1, None]
    difference = np.zeros_like(across)
    np.subtract(across[1:], across[:-1], out=difference[:-1])
    values = difference.take(low, axis=0)
    values *= weight
    values += across.take(low, axis=0)
    return values > np.float32(level), (x0, y0)
