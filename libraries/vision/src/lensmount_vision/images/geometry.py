"""Where a picture lies in the network's frame, and the exact way back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import OptionError

if TYPE_CHECKING:
    from lensmount.specs import Preprocess

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The map between original pixels and network pixels: `network = (original - crop_origin) * scale + offset`.

    Coordinates are continuous: pixel `i` covers `[i, i + 1)`, as in the `xyxy` boxes of every detector.

    Attributes:
        original_size: `(height, width)` of the picture.
        network_size: `(height, width)` of the network's frame.
        scale: `(x, y)`: effective, that is new size over old after rounding, for each axis.
        offset: `(x, y)` of the picture's corner in the frame; negative where a crop cut it off.
        crop_origin: `(x, y)` of the static crop's corner in the picture; negative where the pixels of a picture decoded
            at reduced size reach beyond it (`lensmount_vision.images.reduced_decode`).
        crop_size: `(height, width)` of the static crop; the whole picture when there is none, or what reduced pixels
            cover.
    """

    original_size: tuple[int, int]
    network_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    crop_origin: tuple[int, int] = (0, 0)
    crop_size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.crop_size == (0, 0):
            object.__setattr__(self, "crop_size", self.original_size)

    @property
    def resized_size(self) -> tuple[int, int]:
        """`(height, width)` of the picture after scaling, before padding and cutting."""
        height, width = self.crop_size
        return max(1, round(height * self.scale[1])), max(1, round(width * self.scale[0]))

    @property
    def padded_size(self) -> tuple[int, int]:
        """`(height, width)` of the picture after padding it square at right and bottom, and scaling."""
        side = max(self.crop_size)
        return max(1, round(side * self.scale[1])), max(1, round(side * self.scale[0]))

    @property
    def content_box(self) -> tuple[float, float, float, float]:
        """`xyxy` of the part of the network's frame that shows the picture; the rest is padding."""
        (height, width), (sx, sy), (ox, oy) = self.crop_size, self.scale, self.offset
        frame_height, frame_width = self.network_size
        return (
            max(0.0, ox),
            max(0.0, oy),
            min(float(frame_width), ox + width * sx),
            min(float(frame_height), oy + height * sy),
        )

    def points_to_network(self, points: Floats) -> Floats:
        """Maps `(…, 2)` points x, y from original to network pixels. Floating dtypes are kept."""
        points = _floating(points)
        return (points - _like(self.crop_origin, points)) * _like(self.scale, points) + _like(self.offset, points)

    def points_to_image(self, points: Floats, *, clip: bool = False) -> Floats:
        """Maps `(…, 2)` points x, y from network to original pixels; `clip` keeps them inside the picture."""
        points = _floating(points)
        mapped = (points - _like(self.offset, points)) / _like(self.scale, points) + _like(self.crop_origin, points)
        if clip:
            (left, top), (height, width) = self.crop_origin, self.crop_size
            right, bottom = min(left + width, self.original_size[1]), min(top + height, self.original_size[0])
            low, high = (max(left, 0), max(top, 0)), (right, bottom)
            np.clip(mapped, _like(low, points), _like(high, points), out=mapped)
        return mapped

    def boxes_to_network(self, boxes: Floats) -> Floats:
        """Maps `(…, 4)` boxes xyxy from original to network pixels."""
        boxes = _floating(boxes)
        return self.points_to_network(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)

    def boxes_to_image(self, boxes: Floats, *, clip: bool = True) -> Floats:
        """Maps `(…, 4)` boxes xyxy from network to original pixels.

        Args:
            boxes: Boxes in the network's frame; not changed.
            clip: Clips to the picture (to its static crop, where there is one: nothing else was seen).

        Returns:
            Boxes of the same shape and floating dtype.
        """
        boxes = _floating(boxes)
        return self.points_to_image(boxes.reshape(*boxes.shape[:-1], 2, 2), clip=clip).reshape(boxes.shape)

    def inside(self, boxes: Floats) -> NDArray[np.bool_]:
        """`(…,)` mask of the network boxes `(…, 4)` that touch the picture: False for those wholly in padding."""
        boxes = _floating(boxes)
        left, top, right, bottom = self.content_box
        result: NDArray[np.bool_] = (
            (boxes[..., 0] < right) & (boxes[..., 1] < bottom) & (boxes[..., 2] > left) & (boxes[..., 3] > top)
        )
        return result


def _floating(values: Floats) -> Floats:
    values = np.asarray(values)
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _like(pair: tuple[float, float], values: Floats) -> Floats:
    return np.asarray(pair, dtype=values.dtype)


@lru_cache(maxsize=256)
def plan(image_size: tuple[int, int], spec: Preprocess, size: tuple[int, int] | None = None) -> Geometry:
    """Works out where a picture goes, without touching pixels.

    Args:
        image_size: `(height, width)` of the picture.
        spec: How the package wants its input.
        size: `(height, width)` that overrides `spec.size`, for graphs of dynamic size.

    Returns:
        The geometry.

    Raises:
        OptionError: The mode needs a size and there is none, or a size or crop is not valid.
    """
    x0, y0, x1, y1 = _crop(image_size, spec)
    height, width = y1 - y0, x1 - x0
    target = size or spec.size
    if target is None and spec.resize != "none":
        raise OptionError(
            f"resize mode {spec.resize!r} needs a size", found="size=None", fix="pass size=(height, width)"
        )
    if target is not None and min(target) < 1:
        raise OptionError("the network's size is not valid", found=str(target), expected="two positive integers")
    frame, scale, offset = _layout(height, width, target or (height, width), spec)
    if spec.divisible_by:
        step = spec.divisible_by
        frame = (-(-frame[0] // step) * step, -(-frame[1] // step) * step)
    return Geometry(image_size, frame, scale, offset, (x0, y0), (height, width))


def _crop(image_size: tuple[int, int], spec: Preprocess) -> tuple[int, int, int, int]:
    height, width = image_size
    if spec.static_crop is None:
        return 0, 0, width, height
    left, top, right, bottom = spec.static_crop
    if not (0 <= left < right <= 100 and 0 <= top < bottom <= 100):
        raise OptionError(
            "the static crop is not valid",
            found=str(spec.static_crop),
            expected="x_min < x_max, y_min < y_max in 0..100",
        )
    x0, y0 = int(left / 100 * width), int(top / 100 * height)
    # At least one pixel, however small the picture.
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return x0, y0, max(x0 + 1, int(right / 100 * width)), max(y0 + 1, int(bottom / 100 * height))


_Layout = tuple[tuple[int, int], tuple[float, float], tuple[float, float]]


def _layout(height: int, width: int, target: tuple[int, int], spec: Preprocess) -> _Layout:
    """Frame size, scale and offset of a mode."""
    rows, columns = target
    mode = spec.resize
    if mode == "none":
        return (height, width), (1.0, 1.0), (0.0, 0.0)
    if mode == "stretch":
        return target, (columns / width, rows / height), (0.0, 0.0)
    if mode == "pad-square":
        side = max(height, width)
        return target, (columns / side, rows / side), (0.0, 0.0)
    if mode == "center-crop":
        return target, (1.0, 1.0), (_center(columns, width), _center(rows, height))
    if mode == "short-side-crop":
        # torchvision's Resize(int) truncates the long side; for a square target this is `int(size * long / short)`.
        if columns * height >= rows * width:
            new_height, new_width = int(columns * height / width), columns
        else:
            new_height, new_width = rows, int(rows * width / height)
        offset = (_center(columns, new_width), _center(rows, new_height))
        if (
            spec.rounding == "truncate"
        ):  # transformers cuts an odd pixel off at the end; torchvision rounds half to even
            offset = (-float((new_width - columns) // 2), -float((new_height - rows) // 2))
        return target, (new_width / width, new_height / height), offset
    ratio = min(rows / height, columns / width)
    whole = int if spec.rounding == "truncate" else round
    new_height, new_width = max(1, whole(height * ratio)), max(1, whole(width * ratio))
    scale = (new_width / width, new_height / height)
    if mode == "fit":
        return (new_height, new_width), scale, (0.0, 0.0)
    if mode not in ("letterbox", "letterbox-reflect"):
        raise OptionError("the resize mode is not known", found=repr(mode))
    if spec.rectangular:
        step = spec.divisible_by or 1
        rows, columns = -(-new_height // step) * step, -(-new_width // step) * step
    return (rows, columns), scale, _letterbox_offset(columns - new_width, rows - new_height, spec)


def _letterbox_offset(spare_x: int, spare_y: int, spec: Preprocess) -> tuple[float, float]:
    if spec.position == "top-left":
        return 0.0, 0.0
    if spec.rounding == "truncate":
        return float(spare_x // 2), float(spare_y // 2)
    # An odd spare pixel goes to the right and bottom, as ultralytics splits it.
    return float(round(spare_x / 2 - 0.1)), float(round(spare_y / 2 - 0.1))


def _center(frame: int, length: int) -> float:
    """Offset of a centred picture (torchvision's center_crop): half to even when cutting, floor when padding."""
    return float((frame - length) // 2) if frame > length else -float(round((length - frame) / 2))
