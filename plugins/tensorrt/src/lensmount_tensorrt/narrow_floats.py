"""Floating types that numpy lacks, to and from float32: bfloat16, and float8 E4M3 (finite values only)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 to the bits of bfloat16, rounded to nearest, ties to even; NaN stays NaN."""
    import numpy as np

    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    # In 64 bits: rounding up the largest finite value must become infinity, not wrap around.
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, quiet, rounded).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The bits of bfloat16 as float32; exact."""
    import numpy as np

    return (np.ascontiguousarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


@functools.cache
def _float8_values() -> NDArray[np.float32]:
    """The value of each of the 256 patterns of E4M3FN (OFP8): bias 7, no infinities, NaN where all bits are set."""
    import numpy as np

    patterns = np.arange(256)
    exponent, fraction = (patterns >> 3) & 15, patterns & 7
    magnitude = np.where(exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7.0))
    magnitude = np.where((patterns & 0x7F) == 0x7F, np.nan, magnitude)
    return np.where(patterns & 0x80, -magnitude, magnitude).astype(np.float32)


def from_float8(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The bits of float8 E4M3 as float32; exact."""
    return _float8_values()[bits]


def to_float8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 to the bits of float8 E4M3, rounded to nearest, ties to even; beyond ±448 it becomes ±448, NaN stays NaN.

    Saturation is what TensorRT's and ONNX's casts do by default.
    """
    import numpy as np

    values = np.ascontiguousarray(values, np.float32)
    magnitude = np.minimum(np.abs(values), np.float32(448))
    table = _float8_values()[:0x7F].astype(np.float64)  # ascending, up to 448
    middles = (table[:-1] + table[1:]) / 2
    low = np.searchsorted(middles, magnitude, side="left")
    high = np.searchsorted(middles, magnitude, side="right")
    nearest = np.where(low % 2 == 0, low, high)  # of two equally near, the one whose last bit is 0
    signed = nearest | np.where(np.signbit(values), 0x80, 0)
    bits: NDArray[np.uint8] = np.where(np.isnan(values), 0x7F | (signed & 0x80), signed).astype(np.uint8)
    return bits
