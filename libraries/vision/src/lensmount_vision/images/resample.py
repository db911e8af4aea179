"""Resampling: OpenCV's where no antialias is asked for, and Pillow's antialiased kernels without Pillow.

The antialiased kernels follow Pillow's `Resample.c` as a specification: kernel widened by the shrink factor, weights
in fixed point with 22 bits, a horizontal pass rounded to uint8, then a vertical one. uint8 results equal Pillow's bit
for bit. (Pillow 13 takes the vertical pass first where a picture loses much more height than width, older ones never;
there single grey values differ.) Float results equal `torch.nn.functional.interpolate(antialias=True)`, which has the
same weights.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensmount_vision.images.decoding import import_cv2
from lensmount_vision.images.resample_gaussian import gaussian_weights

Window = tuple[int, int, int, int]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos", "gaussian-bilinear"]

PRECISION_BITS = 32 - 8 - 2
# Fixed-point weights are split at this bit into two float32 matrices whose sums stay below 2**24, hence exact:
# 255 * 1.3 * 2**(22-7) for the high part, 255 * 2**(7-1) * taps for the low one.
SPLIT_BITS = 7
MAX_EXACT_TAPS = 2**24 // (255 * 2 ** (SPLIT_BITS - 1))
_BLOCK = 16
# How many times the wanted pixels OpenCV may compute before the windowed kernels take over: a 1x20000 picture whose
# short side is scaled to 224 would otherwise become one of 224x4480000.
_WASTE = 16
# OpenBLAS runs a product on the calling thread when M * N * K is at most 4 * 65536.
_SINGLE_THREAD_PRODUCT = 4 * 65536


def resize(
    pixels: NDArray[Any],
    size: tuple[int, int],
    interpolation: Interpolation = "bilinear",
    *,
    antialias: bool = False,
    window: Window | None = None,
) -> NDArray[Any]:
    """Resizes a picture.

    Args:
        pixels: `(H, W)` or `(H, W, C)`, uint8 or float32; rows may be strided, pixels contiguous.
        size: New `(height, width)`.
        interpolation: Kernel. Without antialias: OpenCV's (`bilinear` of float32 equals torch's interpolate with
            `align_corners=False`; uint8 has 11-bit weights). With antialias: Pillow's (`area` is its BOX).
            `gaussian-bilinear`: see `gaussian_weights`, whatever `antialias` says.
        antialias: Widens the kernel when shrinking.
        window: `(top, bottom, left, right)` of the new picture that is wanted; the rest is not computed where that
            saves much. None for all.

    Returns:
        An array of the same dtype and channel count: the window of the resized picture. It shares the input's memory
        when the size is already right.
    """
    top, bottom, left, right = window or (0, size[0], 0, size[1])
    if pixels.shape[:2] == tuple(size):
        return pixels[top:bottom, left:right]
    wasteful = is_wasteful(size, (top, bottom, left, right))
    if interpolation == "gaussian-bilinear" or (interpolation != "nearest" and (antialias or wasteful)):
        return _resize_banded(pixels, size, (top, bottom, left, right), interpolation, antialias)
    cv2 = import_cv2()
    if wasteful:
        return pixels[nearest_indices(size[0], pixels.shape[0], top, bottom)][
            :, nearest_indices(size[1], pixels.shape[1], left, right)
        ]
    code = {
        "nearest": cv2.INTER_NEAREST,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "lanczos": cv2.INTER_LANCZOS4,
    }[interpolation]
    result: NDArray[Any] = cv2.resize(pixels, (size[1], size[0]), interpolation=code)
    result = result if result.ndim == pixels.ndim else result[..., None]
    return result[top:bottom, left:right]


def is_wasteful(size: tuple[int, int], window: Window) -> bool:
    """Whether a window is so small a part of the new picture that the rest had better not be computed."""
    top, bottom, left, right = window
    return size[0] * size[1] > _WASTE * (bottom - top) * (right - left)


def nearest_indices(new: int, old: int, begin: int, end: int) -> NDArray[np.int64]:
    """Old pixel of each new one in `begin..end`, as OpenCV's INTER_NEAREST chooses it."""
    # One over the quotient, not `old / new`: they differ in the last bit, and that decides whole pixels.
    return np.minimum((np.arange(begin, end) * (1 / (new / old))).astype(np.int64), old - 1)


# --- Pillow's kernels -------------------------------------------------------------------------------------------------


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _bicubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3.0), 0.0)


def _bicubic_cv2(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return _bicubic(x, -0.75)


_KERNELS = {"bilinear": (_bilinear, 1.0), "bicubic": (_bicubic, 2.0), "area": (_box, 0.5), "lanczos": (_lanczos, 3.0)}


class _Block(NamedTuple):
    """Weights of some consecutive outputs: inputs `start:stop` times `weights` `(stop - start, outputs)`."""

    start: int
    stop: int
    outputs: int
    weights: NDArray[np.float32]


def axis_weights(
    old: int, new: int, window: tuple[int, int], interpolation: str, antialias: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First input of each output in the window, and its normalised weights `(outputs, taps)`, zero-padded.

    Pillow's kernels, whose windows end at the picture's edge; `antialias` widens them when shrinking.
    """
    if interpolation == "gaussian-bilinear":
        return gaussian_weights(old, new, window)
    kernel, support = _KERNELS[interpolation]
    if interpolation == "bicubic" and not antialias:
        kernel = _bicubic_cv2
    scale = old / new
    widened = max(scale, 1.0) if antialias else 1.0
    support *= widened
    centers = (np.arange(*window) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), old)
    taps = np.arange(int((last - first).max()))
    weights = kernel((taps + first[:, None] - centers[:, None] + 0.5) / widened)
    weights[taps >= (last - first)[:, None]] = 0.0
    # Summed one by one, as the reference does, so that ties round the same way.
    total = np.cumsum(weights, axis=1)[:, -1:]
    return first, weights / total


def fixed_parts(weights: NDArray[np.float64]) -> list[NDArray[Any]]:
    """High and low part of weights in fixed point: their products with grey values are exact in float32.

    `(high << SPLIT_BITS) + low + (1 << (PRECISION_BITS - 1))`, shifted down by `PRECISION_BITS`, is the grey value.
    """
    fixed = np.trunc(weights * (1 << PRECISION_BITS) + np.copysign(0.5, weights)).astype(np.int64)
    high = (fixed + (1 << (SPLIT_BITS - 1))) >> SPLIT_BITS
    return [high, fixed - (high << SPLIT_BITS)]


@lru_cache(maxsize=64)
def _blocks(
    old: int, new: int, window: tuple[int, int], interpolation: str, antialias: bool, rounded: bool
) -> tuple[_Block, ...]:
    """Banded weight matrix of the window's outputs as dense blocks."""
    first, weights = axis_weights(old, new, window, interpolation, antialias)
    outputs, taps = weights.shape
    parts = fixed_parts(weights) if rounded and taps <= MAX_EXACT_TAPS else [weights]
    blocks = []
    for begin in range(0, outputs, _BLOCK):
        end = min(begin + _BLOCK, outputs)
        start = int(first[begin])
        stop = min(int(first[end - 1]) + taps, old)
        matrix = np.zeros((stop - start, len(parts) * (end - begin)), np.float32)
        for part, values in enumerate(parts):
            for output in range(begin, end):
                row = int(first[output]) - start
                length = min(taps, stop - start - row)
                matrix[row : row + length, part * (end - begin) + output - begin] = values[output, :length]
        matrix.flags.writeable = False
        blocks.append(_Block(start, stop, end - begin, matrix))
    return tuple(blocks)


def _resize_banded(
    pixels: NDArray[Any], size: tuple[int, int], window: Window, interpolation: str, antialias: bool
) -> NDArray[Any]:
    rounded = pixels.dtype == np.uint8
    top, bottom, left, right = window
    (height, width), (new_height, new_width) = pixels.shape[:2], size
    # A pass whose length does not change is left out; only its window is cut.
    across = down = None
    if new_width != width:
        across = _blocks(width, new_width, (left, right), interpolation, antialias, rounded)
        left, right = across[0].start, max(block.stop for block in across)
    if new_height != height:
        down = _blocks(height, new_height, (top, bottom), interpolation, antialias, rounded)
        top, bottom = down[0].start, max(block.stop for block in down)
    pixels = pixels[top:bottom, left:right]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    planes = np.empty((channels, *pixels.shape[:2]), np.float32)
    for channel in range(channels):
        planes[channel] = pixels if pixels.ndim == 2 else import_cv2().extractChannel(pixels, channel)
    if across is not None:
        planes = _pass(planes, across, rounded)
    planes = planes.transpose(0, 2, 1)
    if down is not None:
        # The vertical pass is the horizontal one of the transposed picture.
        planes = _pass(np.ascontiguousarray(planes), down, rounded)
    result: NDArray[Any] = planes.transpose(2, 1, 0).astype(pixels.dtype, order="C")
    return result[..., 0] if pixels.ndim == 2 else result


def _pass(planes: NDArray[np.float32], blocks: tuple[_Block, ...], rounded: bool) -> NDArray[np.float32]:
    """Resamples the last axis of contiguous planes `(C, rows, length)`, whose first column is that of `blocks[0]`.

    `rounded` results are whole values 0..255, kept as float32.
    """
    channels, rows, length = planes.shape
    values = planes.reshape(channels * rows, length)
    out = np.empty((channels * rows, sum(block.outputs for block in blocks)), np.float32)
    begin, origin = 0, blocks[0].start
    for block in blocks:
        product = matmul_single_threaded(values[:, block.start - origin : block.stop - origin], block.weights)
        outputs = block.outputs
        if block.weights.shape[1] == 2 * outputs:
            # high * 2**7 + low + 2**21, then >> 22: whole numbers beyond float32, so int32 has the last word.
            total = product[:, :outputs].astype(np.int32)
            total <<= SPLIT_BITS
            total += product[:, outputs:].astype(np.int32)
            total += 1 << (PRECISION_BITS - 1)
            total >>= PRECISION_BITS
            out[:, begin : begin + outputs] = total
        else:
            out[:, begin : begin + outputs] = np.floor(product + 0.5) if rounded else product
        begin += outputs
    if rounded:
        np.clip(out, 0, 255, out=out)
    return out.reshape(channels, rows, -1)


def matmul_single_threaded(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """`left @ right` in pieces so small that OpenBLAS keeps them on this thread.

    Its thread pool, on a machine busy with a network's own threads, makes these products 40 times slower.
    """
    rows, (inner, columns) = left.shape[0], right.shape
    out = np.empty((rows, columns), np.float32)
    step = max(1, _SINGLE_THREAD_PRODUCT // (inner * columns))
    whole = rows - rows % step
    shape, strides = (whole // step, step, inner), (left.strides[0] * step, *left.strides)
    pieces = np.lib.stride_tricks.as_strided(left, shape, strides, writeable=False)
    np.matmul(pieces, right, out=out[:whole].reshape(whole // step, step, columns))
    if whole < rows:
        np.matmul(left[whole:], right, out=out[whole:])
    return out
