"""Checks of the arrays that callers and networks pass: shape, dtype, finite; each error names the array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensmount.errors import InputError, OptionError

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


def as_array(values: ArrayLike, name: str) -> Floats:
    """Checks and casts an array of any shape to float32.

    Raises:
        InputError: Not numeric, or not finite.
    """
    array = _numeric(values, name)
    if not np.isfinite(array).all():
        raise InputError(f"{name} are not finite", found="NaN or infinity", expected="finite numbers")
    return array.astype(np.float32, copy=False)


def as_boxes(boxes: ArrayLike, name: str = "boxes", columns: int = 4) -> Floats:
    """Checks and casts an array of boxes.

    Args:
        boxes: Anything that makes an `(N, columns)` array; an empty list stands for no boxes.
        name: What the error message calls it.
        columns: Numbers per box: 4, or 5 for rotated boxes.

    Returns:
        float32 `(N, columns)`; the same array where nothing had to be cast.

    Raises:
        InputError: Wrong shape, not numeric, or not finite.
    """
    array = _numeric(boxes, name)
    if array.size == 0 and array.ndim <= 2:
        return np.zeros((0, columns), np.float32)
    if array.ndim != 2 or array.shape[1] != columns:
        raise InputError(f"{name} have the wrong shape", found=str(array.shape), expected=f"(N, {columns})")
    if not np.isfinite(array).all():
        raise InputError(f"{name} are not finite", found="NaN or infinity", expected="finite numbers")
    return array.astype(np.float32, copy=False)


def as_scores(scores: ArrayLike, length: int | None = None, name: str = "scores") -> Floats:
    """Checks and casts one score per box to float32 `(N,)`.

    Raises:
        InputError: Wrong shape or length, not numeric, or not finite.
    """
    array = _numeric(scores, name)
    if array.size == 0 and array.ndim <= 2:
        array = array.reshape(0)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(N,)" if length is None else f"({length},), one per box"
        raise InputError(f"{name} have the wrong shape", found=str(array.shape), expected=expected)
    if not np.isfinite(array).all():
        raise InputError(f"{name} are not finite", found="NaN or infinity", expected="finite numbers")
    return array.astype(np.float32, copy=False)


def as_class_ids(class_ids: ArrayLike, length: int | None = None) -> Indices:
    """Checks and casts one class id per box to int64 `(N,)`; floats must hold whole numbers.

    Raises:
        InputError: Wrong shape or length, not numeric, or not whole.
    """
    array = _per_box(_numeric(class_ids, "class ids"), length)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.trunc(array)).all()):
        raise InputError("class ids are not whole numbers", found=str(array[:8]), expected="integers")
    return array.astype(np.int64, copy=False)


def _per_box(array: NDArray[Any], length: int | None) -> NDArray[Any]:
    """An `(N,)` view of class ids, or an error."""
    if array.size == 0 and array.ndim <= 2:
        array = array.reshape(0)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(N,)" if length is None else f"({length},), one per box"
        raise InputError("class ids have the wrong shape", found=str(array.shape), expected=expected)
    return array


def _numeric(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} are not an array", found=str(error), expected="rows of equal length") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} are not numeric", found=f"dtype {array.dtype}", expected="float32")
    return array


def check_fraction(value: float, name: str) -> float:
    """Returns a number in 0..1.

    Raises:
        OptionError: It is not one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise OptionError(f"{name} is not a number", found=repr(value), expected="a number in 0..1")
    if not 0 <= value <= 1 or math.isnan(value):
        raise OptionError(f"{name} is out of range", found=repr(value), expected="a number in 0..1")
    return float(value)
