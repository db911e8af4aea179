"""Pictures to network input on the device: `lensmount_vision.images.transforms.prepare` in torch operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lensmount.backend import settled
from lensmount.specs import Preprocess
from lensmount_vision.device.resampling import Resampler
from lensmount_vision.device.staging import Staging
from lensmount_vision.images.contrast import adjust_contrast
from lensmount_vision.images.decoding import check_size, pixel_limit
from lensmount_vision.images.geometry import Geometry
from lensmount_vision.images.image import Image
from lensmount_vision.images.on_device import DeviceImage
from lensmount_vision.images.torch_streams import Runtime, put
from lensmount_vision.images.transforms import DType, check_spec, cropped, placed, plan_batch, value_tables

#: Pixels, times channels, that are resized at once: a quarter of a gibibyte as float32.
_AT_ONCE = 64 * 2**20
_LUMA = (9798, 19235, 3735)  # ITU-R BT.601 in 15 bits, as OpenCV has it for uint8
_HALF = 1 << 14


class DevicePreparer:
    """Makes batches on a device. Thread-safe.

    Each picture's pixels go up once, as uint8 and cut to the static crop; pictures that lie on the device already stay
    there. Pictures of one size are resized together. Contrast normalisation alone is the host's: such pictures are
    adjusted there before they go up, and a picture on the device is brought to the host for it.

    Args:
        spec: How the network wants its input.
        runtime: The device.
        dtype: `float32` or `float16` values after scale, mean and std; `uint8` pixels as they are.
        channels_last: Memory layout of the batch.

    Raises:
        OptionError: The spec cannot be carried out.
    """

    @settled()
    def __init__(self, spec: Preprocess, runtime: Runtime, dtype: DType, *, channels_last: bool = False) -> None:
        check_spec(spec, dtype)
        self.spec = spec
        self._runtime = runtime
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._staging = Staging(runtime)
        self._resample = Resampler(runtime)
        count = spec.channels
        mean, std = (np.resize(np.array(values), count) for values in (spec.mean or (0.0,), spec.std or (1.0,)))
        self._factor = self._column(spec.scale / std)
        self._bias = self._column(-mean / std)
        padding = value_tables(spec, dtype)[:, spec.padding_value].astype(np.float64)
        self._padding: float | Tensor = float(padding[0])
        if len(set(padding.tolist())) > 1:
            self._padding = self._column(padding).to(self._dtype)

    def _column(self, values: Any) -> Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float32).view(1, -1, 1, 1).to(self._runtime.device)

    def __call__(self, pictures: Sequence[Image]) -> tuple[Tensor, list[Geometry]]:
        """The batch and the geometries of pictures that share a network size.

        Returns:
            `(N, C, H, W)` on the device, made on the current stream, and one geometry per picture.

        Raises:
            InputError: No pictures, or pictures whose network sizes differ.
            ImageTooLargeError: `pad-square` would make a picture beyond the limit on pixels.
        """
        with self._runtime.current(), settled():
            return self._prepare(pictures)

    def _prepare(self, pictures: Sequence[Image]) -> tuple[Tensor, list[Geometry]]:
        geometries, (height, width) = plan_batch(pictures, self.spec)
        shape = (len(pictures), self.spec.channels, height, width)
        batch = torch.empty(shape, dtype=self._dtype, device=self._runtime.device, memory_format=self._layout)
        for indices in _alike(pictures, geometries):
            geometry = geometries[indices[0]]
            content = self._content([pictures[i] for i in indices], geometry)
            if indices[-1] - indices[0] + 1 == len(indices):
                self._place(content, geometry, batch[indices[0] : indices[-1] + 1])
            else:
                for row, index in enumerate(indices):
                    self._place(content[row : row + 1], geometry, batch[index : index + 1])
        return batch, geometries

    def _content(self, pictures: Sequence[Image], geometry: Geometry) -> Tensor:
        """The resized part of alike pictures that falls into the frame: `(N, C or 1, h, w)` float32 in 0..255."""
        spec = self.spec
        pixels = self._pixels(pictures, geometry)
        color = pictures[0].color
        if spec.grayscale or spec.channels == 1:
            pixels = _grey(pixels, color)
        height, width = pixels.shape[1:3]
        if spec.resize == "pad-square" and height != width:
            side = max(height, width)
            check_size((side, side), f"the square around a picture of {width}x{height}", pixel_limit())
            pixels = F.pad(pixels, (0, 0, 0, side - width, 0, side - height), value=spec.padding_value)
        size, _, window = placed(geometry, spec)
        planes = self._resample(
            pixels,
            size,
            spec.interpolation,
            antialias=spec.antialias,
            rounded=spec.resample_dtype == "uint8",
            window=window,
        )
        return planes.flip(1) if planes.shape[1] == 3 and color != spec.color else planes

    def _pixels(self, pictures: Sequence[Image], geometry: Geometry) -> Tensor:
        """`(N, h, w, 3)` uint8 of the pictures' crops, on the device."""
        contrast = self.spec.contrast
        if contrast is None and isinstance(pictures[0], DeviceImage):
            crops = [cropped(self._taken(picture), picture, geometry) for picture in pictures]
            return crops[0][None] if len(crops) == 1 else torch.stack(crops)
        arrays = [cropped(picture.pixels, picture, geometry) for picture in pictures]
        if contrast is not None:
            arrays = [adjust_contrast(a, picture.color, contrast) for a, picture in zip(arrays, pictures, strict=True)]
        return self._staging.upload(arrays)

    def _taken(self, picture: Image) -> Tensor:
        """A picture's tensor, behind what made it; one of another device comes over without visiting the host."""
        assert isinstance(picture, DeviceImage)
        self._runtime.after(picture.ready)
        if picture.tensor.device == self._runtime.device:
            self._runtime.claim(picture.tensor)
        return picture.tensor.to(self._runtime.device, non_blocking=True)

    def _place(self, content: Tensor, geometry: Geometry, target: Tensor) -> None:
        """Writes content into its rows of the batch, normalised, and fills what is left of the frame."""
        _, (x0, y0, x1, y1), _ = placed(geometry, self.spec)
        height, width = geometry.network_size
        if (x0, y0, x1, y1) != (0, 0, width, height):
            if self.spec.resize == "letterbox-reflect":
                for axis, begin, end, length in ((2, y0, y1, height), (3, x0, x1, width)):
                    mirrored = put(_reflected(begin, end, length), content.device)
                    content = content.index_select(axis, mirrored)
                x0, y0, x1, y1 = 0, 0, width, height
            elif isinstance(self._padding, float):
                target.fill_(self._padding)
            else:
                target.copy_(self._padding.expand_as(target))
        region = target[:, :, y0:y1, x0:x1]
        if target.dtype == torch.uint8:
            region.copy_(content.round().clamp_(0, 255).expand_as(region))
        else:
            region.copy_(torch.addcmul(self._bias, content, self._factor))


def _alike(pictures: Sequence[Image], geometries: Sequence[Geometry]) -> Iterator[list[int]]:
    """Indices of pictures that go through everything together, never more than memory bears."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, (picture, geometry) in enumerate(zip(pictures, geometries, strict=True)):
        groups.setdefault((geometry, picture.color, isinstance(picture, DeviceImage), picture.reduced), []).append(
            index
        )
    for indices in groups.values():
        height, width = geometries[indices[0]].crop_size
        step = max(1, _AT_ONCE // (3 * height * width))
        for start in range(0, len(indices), step):
            yield indices[start : start + step]


def _grey(pixels: Tensor, color: str) -> Tensor:
    """Luma of `(N, H, W, 3)` uint8 as `(N, H, W, 1)` uint8; exact, as all stays below 2**24."""
    weights = _LUMA if color == "rgb" else _LUMA[::-1]
    first, second, third = (pixels[..., channel].float() * weight for channel, weight in enumerate(weights))
    total = first + second + third
    return torch.floor((total + _HALF) / (2 * _HALF)).to(torch.uint8)[..., None]


def _reflected(begin: int, end: int, length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which of the `end - begin` pixels each of `length` shows, mirrored about the edge pixels as often as it takes."""
    count = end - begin
    period = max(2 * (count - 1), 1)
    place = np.abs(np.arange(length) - begin) % period
    return np.where(place >= count, period - place, place).astype(np.int64) if count > 1 else np.zeros(length, np.int64)
