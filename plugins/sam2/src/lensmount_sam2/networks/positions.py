"""Position encodings: sines over a grid, sines over time, rotations, random Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_THETA = 10000.0


def sine_grid(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of a grid's rows, then columns, each scaled to 0..2 pi (DETR, arXiv 2005.12872).

    Returns:
        float32 `(channels, height, width)`.
    """
    half = channels // 2
    wavelength = _THETA ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def axis(length: int) -> Tensor:
        turn = torch.arange(1, length + 1, dtype=torch.float32) / (length + 1e-6) * 2 * math.pi
        angle = turn[:, None] / wavelength
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    rows = axis(height)[:, None].expand(height, width, half)
    columns = axis(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), dim=2).permute(2, 0, 1).contiguous()


def sine_time(times: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of times `(N,)`: `(N, channels)`."""
    half = channels // 2
    wavelength = _THETA ** (2 * torch.div(torch.arange(half, device=times.device), 2, rounding_mode="floor") / half)
    angle = times[:, None] / wavelength
    return torch.cat((angle.sin(), angle.cos()), dim=1)


def rotations(height: int, width: int, channels: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary encoding along columns, then rows (RoPE in two axes, arXiv 2403.13298).

    Returns:
        float32 `(height * width, channels / 2)` twice: one angle per pair of features.
    """
    frequency = 1.0 / (_THETA ** (torch.arange(0, channels, 4).float() / channels))
    place = torch.arange(height * width)
    columns = torch.outer((place % width).float(), frequency)
    rows = torch.outer(torch.div(place, width, rounding_mode="floor").float(), frequency)
    angle = torch.cat((columns, rows), dim=1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns each pair of neighbouring features of `(…, L, C)` by its angle."""
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1).flatten(-2)


def fourier(places: Tensor, matrix: Tensor) -> Tensor:
    """Random Fourier features of places x, y in 0..1 (arXiv 2006.10739).

    Args:
        places: `(…, 2)`.
        matrix: `(2, C / 2)`.

    Returns:
        `(…, C)`.
    """
    angle = 2 * math.pi * ((2 * places - 1) @ matrix)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)
