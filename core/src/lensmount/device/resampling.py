"""Resizing on the device: the same kernels as `lensmount.resample`, by torch's interpolation or by weight matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lensmount.caches.memory import MemoryCache
from lensmount.device.runtime import Runtime
from lensmount.device.taps import dense, taps
from lensmount.resample import Window, is_wasteful

#: Weights kept on the device: a pair of matrices for each pair of sizes, megabytes each.
WEIGHT_ENTRIES, WEIGHT_BYTES = 64, 128 * 2**20

_HALF = 0.5 + 2**-12


class Resampler:
    """Resizes `(N, C, H, W)` float32 tensors. Thread-safe.

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
            pixels: `(N, C, H, W)` float32, 0..255.
            size: New `(height, width)`.
            kernel: As in `lensmount.resample.resize`.
            antialias: Likewise.
            rounded: Whole grey values, as resampling of uint8 gives them.
            window: `(top, bottom, left, right)` of the new picture.

        Returns:
            `(N, C, bottom - top, right - left)` float32; shares memory when the size is already right.
        """
        top, bottom, left, right = window
        height, width = pixels.shape[2:]
        if (height, width) == tuple(size):
            return pixels[:, :, top:bottom, left:right]
        # A window of a vast picture: only the window is computed, by kernels that can (as on the host).
        wasteful = is_wasteful(size, window)
        if kernel in ("bilinear", "bicubic") and not antialias and not wasteful:
            mode = "bilinear" if kernel == "bilinear" else "bicubic"
            result = F.interpolate(pixels, size=size, mode=mode, align_corners=False, antialias=False)
            result = result[:, :, top:bottom, left:right]
            return _whole(result) if rounded else result
        enlarges = size[0] > height or size[1] > width
        if kernel == "nearest":
            columns = self._index(width, size[1], (left, right))
            rows = self._index(height, size[0], (top, bottom))
            return pixels.index_select(3, columns).index_select(2, rows)
        banded = antialias or wasteful or kernel == "gaussian-bilinear"
        # Pillow rounds between its two passes, OpenCV does not; and a pass that changes nothing is left out.
        if width != size[1]:
            pixels = pixels @ self._matrix(width, size[1], (left, right), kernel, antialias, enlarges, wasteful)
            pixels = _whole(pixels) if rounded and banded else pixels
        else:
            pixels = pixels[..., left:right]
        if height != size[0]:
            down = self._matrix(height, size[0], (top, bottom), kernel, antialias, enlarges, wasteful)
            pixels = down.T @ pixels
        else:
            pixels = pixels[:, :, top:bottom]
        return _whole(pixels) if rounded else pixels

    def _matrix(
        self,
        old: int,
        new: int,
        window: tuple[int, int],
        kernel: str,
        antialias: bool,
        enlarges: bool,
        clipped: bool,
    ) -> Tensor:
        """`(old, outputs)` weights."""
        key = f"{old} {new} {window} {kernel} {antialias} {clipped} {enlarges and kernel == 'area'}"
        found: Tensor | None = self._kept.get(key)
        if found is None:
            index, weights = taps(old, new, window, kernel, antialias=antialias, enlarges=enlarges, clipped=clipped)
            found = torch.from_numpy(dense(index, weights, old)).to(self._runtime.device)
            self._kept.put(key, found)
        self._runtime.claim(found)
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


def _whole(values: Tensor) -> Tensor:
    """The nearest of 0..255. Halves go up, as in fixed point, also those that float32 leaves a hair below."""
    return torch.floor(values + _HALF).clamp_(0, 255)
