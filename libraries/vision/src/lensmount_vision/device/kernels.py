"""Resampling kernels as numbers: for each new pixel of an axis, which old ones count and how much. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lensmount_vision.images.resample import axis_weights, fixed_parts, nearest_indices

Floats = NDArray[np.float32]
Taps = tuple[NDArray[np.int64], NDArray[np.float64]]

# From here on Pillow's widened kernels or a Gaussian; below, OpenCV's kernels of fixed width.
_FIXED = {"bilinear": 2, "bicubic": 4, "lanczos": 8}


def taps(
    old: int, new: int, window: tuple[int, int], kernel: str, *, antialias: bool, enlarges: bool, clipped: bool = False
) -> Taps:
    """Neighbours and weights of each new pixel along one axis.

    Args:
        old: Pixels before.
        new: Pixels after.
        window: New pixels that are wanted, `(begin, end)`.
        kernel: As in `lensmount_vision.images.resample.resize`.
        antialias: Widens the kernel when shrinking (Pillow's kernels), else OpenCV's.
        enlarges: Whether either axis of the picture grows: OpenCV's `area` interpolates then instead of averaging.
        clipped: Takes Pillow's kernels, which end at the picture's edge, unwidened where `antialias` is off.

    Returns:
        int64 `(outputs, taps)` indices in `0..old-1`, edges repeated, and float64 weights of the same shape, each row
        of which adds up to 1.
    """
    if kernel == "nearest":
        index = nearest_indices(new, old, *window)[:, None]
        return index, np.ones(index.shape)
    if kernel == "gaussian-bilinear" or antialias or clipped:
        first, weights = axis_weights(old, new, window, kernel, antialias)
        index = first[:, None] + np.arange(weights.shape[1])
        return np.minimum(index, old - 1), weights
    if kernel == "area":
        return _area_enlarged(old, new, window) if enlarges else _area(old, new, window)
    position = (np.arange(*window) + 0.5) * (old / new) - 0.5
    near = np.floor(position).astype(np.int64)
    count = _FIXED[kernel]
    offsets = np.arange(1 - count // 2, count // 2 + 1)
    weights = _WEIGHTS[kernel]((position - near)[:, None] - offsets)
    weights /= weights.sum(1, keepdims=True)
    return np.clip(near[:, None] + offsets, 0, old - 1), weights


def _linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: NDArray[np.float64], a: float = -0.75) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos4(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sinc(x) * np.sinc(x / 4.0)


_WEIGHTS = {"bilinear": _linear, "bicubic": _cubic, "lanczos": _lanczos4}


def _area(old: int, new: int, window: tuple[int, int]) -> Taps:
    """Means over the old pixels that a new one covers, by the share that it covers of each."""
    scale = old / new
    begin = np.arange(*window) * scale
    end = np.minimum(begin + scale, old)
    # A hair's breadth over the next pixel is rounding.
    first = np.minimum(np.floor(begin + 1e-9).astype(np.int64), old - 1)
    last = np.maximum(np.ceil(end - 1e-9).astype(np.int64), first + 1)
    index = first[:, None] + np.arange(int((last - first).max()))
    cover = np.minimum(index + 1, end[:, None]) - np.maximum(index, begin[:, None])
    weights = np.where(index < last[:, None], np.maximum(cover, 0.0), 0.0)
    weights /= weights.sum(1, keepdims=True)
    return np.minimum(index, old - 1), weights


def _area_enlarged(old: int, new: int, window: tuple[int, int]) -> Taps:
    """OpenCV's INTER_AREA where an axis grows: old pixels stay flat, and meet within one new pixel."""
    place = np.arange(*window)
    low = np.floor(place * (1 / (new / old))).astype(np.int64)  # the last bit as OpenCV has it
    share = (place + 1) - (low + 1) * (new / old)
    share = np.where(share <= 0, 0.0, share - np.floor(share))
    index = np.clip(np.stack((low, low + 1), 1), 0, old - 1)
    return index, np.stack((1.0 - share, share), 1)


def dense(index: NDArray[np.int64], weights: NDArray[np.float64], old: int, *, fixed: bool = False) -> Floats:
    """`taps` as a float32 matrix: pixels times it are the resampled axis.

    Returns:
        `(old, outputs)`; with `fixed`, `(old, 2 * outputs)`: the high parts of fixed-point weights, then the low ones
        (`lensmount_vision.images.resample.fixed_parts`).
    """
    parts = fixed_parts(weights) if fixed else [weights]
    matrix = np.zeros((old, len(parts), len(index)), np.float32)
    outputs = np.arange(len(index))[:, None]
    for part, values in enumerate(parts):
        np.add.at(matrix[:, part], (index, outputs), values)
    return matrix.reshape(old, -1)
