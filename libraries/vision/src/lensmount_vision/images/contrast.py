"""Contrast normalisation that some packages were trained with, in the definitions of the Roboflow server.

Grey equalisations make the picture grey, since that is what the models saw. The results have not been compared with
that server's on the same picture; the definitions are these:

- `contrast-stretching`: 2nd and 98th percentiles over all pixels and channels together; values between them are spread
  over 0..255, those outside clipped, fractions cut off (scikit-image's `rescale_intensity` on uint8).
- `histogram-equalization`: luma (ITU-R BT.601), OpenCV's `equalizeHist`, three equal channels.
- `adaptive-equalization`: luma, OpenCV's CLAHE with clip limit 0.03 on 8x8 tiles, three equal channels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lensmount_vision.images.decoding import import_cv2

Contrast = Literal["adaptive-equalization", "contrast-stretching", "histogram-equalization"]


def adjust_contrast(pixels: NDArray[np.uint8], color: str, kind: Contrast) -> NDArray[np.uint8]:
    """Normalises contrast.

    Args:
        pixels: `(H, W, 3)` uint8; not changed.
        color: Channel order, `rgb` or `bgr`.
        kind: Which normalisation.

    Returns:
        `(H, W, 3)` uint8.
    """
    if kind == "contrast-stretching":
        return _stretch(pixels)
    cv2 = import_cv2()
    grey = to_grey(pixels, color)
    if kind == "histogram-equalization":
        grey = cv2.equalizeHist(grey)
    else:
        grey = cv2.createCLAHE(clipLimit=0.03, tileGridSize=(8, 8)).apply(grey)
    result: NDArray[np.uint8] = cv2.merge([grey, grey, grey])
    return result


def to_grey(pixels: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    """Luma (ITU-R BT.601) of `(H, W, 3)` uint8, as `(H, W)`."""
    cv2 = import_cv2()
    grey: NDArray[np.uint8] = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if color == "bgr" else cv2.COLOR_RGB2GRAY)
    return grey


def _stretch(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    low, high = _percentiles(pixels, (2.0, 98.0))
    values = np.arange(256, dtype=np.float64)
    table = (np.clip(values, low, high) - low) / (high - low) * 255.0 if high > low else values
    result: NDArray[np.uint8] = import_cv2().LUT(pixels, table.astype(np.uint8))
    return result


def _percentiles(pixels: NDArray[np.uint8], percents: tuple[float, ...]) -> list[float]:
    """`numpy.percentile` (linear interpolation) of uint8 values, from their histogram: much quicker than sorting."""
    cumulative = np.cumsum(np.bincount(pixels.reshape(-1), minlength=256))
    result = []
    for percent in percents:
        position = percent / 100 * (pixels.size - 1)
        below = int(np.searchsorted(cumulative, int(position), side="right"))
        above = int(np.searchsorted(cumulative, min(int(position) + 1, pixels.size - 1), side="right"))
        result.append(below + (above - below) * (position - int(position)))
    return result
