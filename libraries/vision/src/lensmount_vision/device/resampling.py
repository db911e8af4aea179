"""Resizing on the device, with the kernels of `images.resample`: by torch's interpolation or by weight matrices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lensmount.caches.memory import MemoryCache
from lensmount_vision.device import bilinear
from lensmount_vision.device.kernels import dense, taps
from lensmount_vision.images.resample import MAX_EXACT_TAPS, PRECISION_BITS, SPLIT_BITS, Window, is_wasteful
from lensmount_vision.images.torch_streams import Runtime

#: Weights kept on the device: a pair of matrices for each pair of sizes, megabytes each.
WEIGHT_ENTRIES, WEIGHT_BYTES = 64, 128 * 2**20

_HALF = 0.5 + 2**-12


class Resampler:
    """Resizes pictures to planes. Thread-safe.

    Args:
        runtime: Where they lie.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._kept = MemoryCache(WEIGHT_ENTRIES, WEIGHT_BYTES)

    def __call__(
        self,
        pixels: Tensor,
        size: tuple[int, int],
        kernel: str,
        *,
        antialias: bool,
        rounded: bool,
        window: Window,
    ) -> Tensor:
        """The window of the resized picture.

        Args:
            pixels: `(N, H, W, C)` uint8.
            size: New `(height, width)`.
            kernel: As in `lensmount_vision.images.resample.resize`.
            antialias: Likewise.
            rounded: Whole grey values, as resampling of uint8 gives them.
            window: `(top, bottom, left, right)` of the new picture.

        Returns:
            `(N, C, bottom - top, right - left)` float32 in 0..255.
        """
        top, bottom, left, right = window
        height, width = pixels.shape[1:3]
        if (height, width) == tuple(size):
            return _planes(pixels[:, top:bottom, left:right])
        # A window of a vast picture: only the window is computed, by kernels that can (as on the host).
        wasteful = is_wasteful(size, window)
        if kernel == "nearest":
            rows = self._index(height, size[0], (top, bottom))
            columns = self._index(width, size[1], (left, right))
            return _planes(pixels.index_select(1, rows).index_select(2, columns))
        if kernel == "bilinear" and rounded and not antialias and not wasteful:
            down = self._axis(height, size[0], (top, bottom), vertical=True)
            across = self._axis(width, size[1], (left, right), vertical=False)
            return _planes(bilinear.resize(pixels, down, across))
        planes = _planes(pixels)
        if kernel in ("bilinear", "bicubic") and not antialias and not wasteful:
            mode = "bilinear" if kernel == "bilinear" else "bicubic"
            result = F.interpolate(planes, size=size, mode=mode, align_corners=False, antialias=False)
            result = result[:, :, top:bottom, left:right]
            return _whole(result) if rounded else result
        banded = antialias or wasteful or kernel == "gaussian-bilinear"
        enlarges = kernel == "area" and (size[0] > height or size[1] > width)
        how = _How(kernel, antialias, enlarges, wasteful, rounded and banded)
        # A pass that changes nothing is left out. Pillow's kernels round after each pass, OpenCV's at the end.
        if width != size[1]:
            weights, exact = self._matrix(width, size[1], (left, right), how)
            planes = _finish(planes @ weights, 3, exact, how.fixed)
        else:
            planes = planes[..., left:right]
        if height != size[0]:
            weights, exact = self._matrix(height, size[0], (top, bottom), how)
            planes = _finish(weights.T @ planes, 2, exact, how.fixed)
        else:
            planes = planes[:, :, top:bottom]
        return _whole(planes) if rounded and not banded else planes

    def _matrix(self, old: int, new: int, window: tuple[int, int], how: _How) -> tuple[Tensor, bool]:
        """Weights `(old, outputs)`, or twice as many columns of parts, and whether they are parts."""
        key = f"{old} {new} {window} {how}"
        found: tuple[Tensor, bool] | None = self._kept.get(key)
        if found is None:
            index, weights = taps(
                old, new, window, how.kernel, antialias=how.antialias, enlarges=how.enlarges, clipped=how.clipped
            )
            exact = how.fixed and index.shape[1] <= MAX_EXACT_TAPS
            found = torch.from_numpy(dense(index, weights, old, fixed=exact)).to(self._runtime.device), exact
            self._kept.put(key, found)
        self._runtime.claim(found[0])
        return found

    def _axis(self, old: int, new: int, window: tuple[int, int], *, vertical: bool) -> bilinear.Axis:
        """Tables of OpenCV's bilinear resize."""
        key = f"{old} {new} {window} {vertical}"
        found: bilinear.Axis | None = self._kept.get(key)
        if found is None:
            tables = (torch.from_numpy(table) for table in bilinear.axis(old, new, window, vertical=vertical))
            low, high, *weights = (table.to(self._runtime.device) for table in tables)
            shape = (-1, 1, 1) if vertical else (-1, 1)
            found = bilinear.Axis(low, high, *(weight.view(shape) for weight in weights))
            self._kept.put(key, found)
        for table in found:
            self._runtime.claim(table)
        return found

    def _index(self, old: int, new: int, window: tuple[int, int]) -> Tensor:
        key = f"{old} {new} {window}"
        found: Tensor | None = self._kept.get(key)
        if found is None:
            index, _ = taps(old, new, window, "nearest", antialias=False, enlarges=False)
            found = torch.from_numpy(index[:, 0]).to(self._runtime.device)
            self._kept.put(key, found)
        self._runtime.claim(found)
        return found


def _planes(pixels: Tensor) -> Tensor:
    """`(N, H, W, C)` to `(N, C, H, W)` float32, contiguous."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


class _How(NamedTuple):
    """All that decides weights apart from sizes; `fixed`: whole grey values after each pass, in fixed point."""

    kernel: str
    antialias: bool
    enlarges: bool
    clipped: bool
    fixed: bool


def _finish(product: Tensor, axis: int, exact: bool, rounded: bool) -> Tensor:
    """What a product with weights stands for: whole grey values from parts, or values that may be rounded."""
    if not exact:
        return _whole(product) if rounded else product
    high, low = product.chunk(2, axis)
    # Whole numbers beyond float32, so int32 has the last word, as on the host.
    total = (high.to(torch.int32) << SPLIT_BITS).add_(low.to(torch.int32)).add_(1 << (PRECISION_BITS - 1))
    return (total >> PRECISION_BITS).clamp_(0, 255).float()


def _whole(values: Tensor) -> Tensor:
    """The nearest of 0..255. Halves go up, as in OpenCV's fixed point, also those that float32 leaves a hair below."""
    return torch.floor(values + _HALF).clamp_(0, 255)
