"""Position encodings: sines over a grid, sines over time, rotations, random Fourier features, resampled tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount_networks import ops
from lensmount_networks.layers import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_THETA = 10000.0


def _wavelengths(channels: int) -> NDArray[np.float64]:
    made: NDArray[np.float64] = _THETA ** (2 * (np.arange(channels) // 2) / channels)
    return made


def sine_grid(height: int, width: int, channels: int) -> Floats:
    """Sines and cosines of a grid's rows, then columns, each scaled to 0..2 pi (DETR, arXiv 2005.12872).

    Returns:
        float32 `(height * width, channels)`.
    """
    half = channels // 2

    def axis(length: int) -> Any:
        turn = np.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
        angle = turn[:, None] / _wavelengths(half)
        return np.stack((np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2])), 2).reshape(length, half)

    rows = np.broadcast_to(axis(height)[:, None], (height, width, half))
    columns = np.broadcast_to(axis(width)[None], (height, width, half))
    made: Floats = np.concatenate((rows, columns), 2).reshape(-1, channels).astype(np.float32)
    return made


def sine_time(times: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of times `(N,)`, in torch: `(N, channels)`."""
    import torch

    lengths = torch.from_numpy(_wavelengths(channels // 2)).to(device=times.device, dtype=torch.float32)
    angle = times[:, None] / lengths
    return torch.cat((angle.sin(), angle.cos()), dim=1)


def rotations(height: int, width: int, channels: int) -> tuple[Floats, Floats]:
    """Cosines and sines of the rotary encoding along columns, then rows (RoPE in two axes, arXiv 2403.13298).

    Returns:
        float32 `(height * width, channels / 2)` twice: one angle per pair of features.
    """
    frequency = 1.0 / (_THETA ** (np.arange(0, channels, 4) / channels))
    rows, columns = np.divmod(np.arange(height * width), width)
    angle = np.concatenate((np.outer(columns, frequency), np.outer(rows, frequency)), 1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns each pair of neighbouring features of `(…, L, C)` by its angle."""
    first, second = x[..., 0::2], x[..., 1::2]
    return ops.stack((first * cosine - second * sine, first * sine + second * cosine), -1).flatten(-2)


def fourier(places: Tensor, matrix: Tensor) -> Tensor:
    """Random Fourier features of places x, y in 0..1 (arXiv 2006.10739).

    Args:
        places: `(…, 2)`.
        matrix: `(2, C / 2)`.

    Returns:
        `(…, C)`.
    """
    angle = 2 * math.pi * ((2 * places - 1) @ matrix)
    return ops.concat((ops.sin(angle), ops.cos(angle)), -1)


def fourier_grid(cells: int, matrix: Floats) -> Floats:
    """`fourier` of the centres of `cells` times `cells` cells: float32 `(1, cells * cells, C)`."""
    steps = (np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells)
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    places = np.stack((columns, rows), 2).reshape(1, -1, 2)
    angle = np.float32(2 * math.pi) * ((2 * places - 1) @ matrix)
    made: Floats = np.concatenate((np.sin(angle), np.cos(angle)), -1)
    return made


def bicubic(count: int, wanted: int) -> Floats:
    """Bicubic resampling along one axis, as torch's `interpolate`, as a matrix `(wanted, count)`."""
    centres = (np.arange(wanted) + 0.5) * (count / wanted) - 0.5
    first, made, a = np.floor(centres).astype(np.int64), np.zeros((wanted, count)), -0.75
    for step in range(-1, 3):
        x = np.abs(centres - (first + step))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        np.add.at(made, (np.arange(wanted), np.clip(first + step, 0, count - 1)), np.where(x <= 1, near, far))
    return made.astype(np.float32)
