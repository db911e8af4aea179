"""A Gaussian and a bilinear resize as one weight matrix per axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gaussian_weights(old: int, new: int, window: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Weights of a Gaussian and a bilinear resize in one, for OWLv2.

    The Gaussian has standard deviation `(old / new - 1) / 2`, is cut at three of them and mirrored about the edge pixel
    (torchvision's `gaussian_blur`, which transformers' processor runs); the resize is torch's bilinear with
    `align_corners=False`. Both are linear along an axis, hence one matrix.

    Args:
        old: Pixels before.
        new: Pixels after.
        window: Outputs wanted, `(begin, end)`.

    Returns:
        First input of each output, and weights `(outputs, taps)` from there, zero-padded.
    """
    factor = old / new
    sigma = max(0.0, (factor - 1) / 2)
    radius = min(int(np.ceil(3 * sigma)), old - 1)
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if radius else np.ones(1)
    bell /= bell.sum()
    centers = np.maximum((np.arange(*window) + 0.5) * factor - 0.5, 0.0)
    near = np.minimum(centers.astype(np.int64), old - 1)
    share = centers - near
    first = np.maximum(near - radius, 0)
    weights = np.zeros((len(near), 2 * radius + 2))
    rows = np.arange(len(near))[:, None]
    for middle, part in ((near, 1.0 - share), (np.minimum(near + 1, old - 1), share)):
        taps = np.abs(middle[:, None] + np.arange(-radius, radius + 1))
        taps = np.where(taps >= old, 2 * (old - 1) - taps, taps)
        np.add.at(weights, (rows, taps - first[:, None]), part[:, None] * bell)
    return first, weights
