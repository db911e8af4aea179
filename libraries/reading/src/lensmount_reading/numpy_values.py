"""numpy arrays and scalars inside pickles, as `ndarray.__reduce__` writes them; read without numpy."""

from __future__ import annotations

import struct

from lensmount_reading import limits
from lensmount_reading.dtypes import DTYPES
from lensmount_reading.records import Record, describe
from lensmount_reading.tensors import Storage, TensorRef
from lensmount_reading.text import printable

_CODES = {
    "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128", "b1": "bool",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
}  # fmt: skip
_SCALAR_FORMATS = {
    "float16": "e", "float32": "f", "float64": "d", "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip


class ArrayRef(TensorRef):
    """A numpy array of a pickle, which makes the array empty before it says what is in it."""

    __slots__ = ("filled",)

    def __init__(self) -> None:
        super().__init__(Storage("numpy", "uint8", 0, b""), "uint8", 0, (0,), (1,))
        self.filled = False

    def fill(self, state: object) -> None:
        """Take on what `ndarray.__setstate__` would: (version, shape, dtype, Fortran order, data).

        Raises:
            ValueError: The state is not that, or of a dtype that is not a number's.
            UnsafeFileError: The shape needs more than the data.
        """
        if self.filled or type(state) is not tuple:
            raise ValueError("a state twice, or no tuple")
        _version, shape, dtype, fortran, data = state
        name, big_endian = element_type(dtype)
        if type(shape) is not tuple or len(shape) > limits.MAX_DIMENSIONS or type(data) is not bytes:
            raise ValueError("shape or data of the wrong type")
        if any(type(length) is not int or not 0 <= length < 1 << 48 for length in shape):
            raise ValueError("a size that is no small non-negative integer")
        steps, step = [0] * len(shape), 1
        for axis in range(len(shape)) if fortran is True else range(len(shape) - 1, -1, -1):
            steps[axis] = step
            step *= max(shape[axis], 1)
        storage = Storage("numpy", name, len(data) // DTYPES[name].itemsize, data, 0, big_endian)
        TensorRef.__init__(self, storage, name, 0, shape, tuple(steps))
        self.filled = True


def scalar(dtype: object, data: object) -> object:
    """Return the number that a numpy scalar holds.

    Raises:
        ValueError: Not a number, or not its bytes.
    """
    name, big_endian = element_type(dtype)
    if type(data) is not bytes or name not in _SCALAR_FORMATS:
        raise ValueError("a scalar without usable data")
    return struct.unpack((">" if big_endian else "<") + _SCALAR_FORMATS[name], data)[0]


def element_type(dtype: object) -> tuple[str, bool]:
    """Name in `DTYPES` of a pickled numpy dtype, and whether its bytes are in big-endian order."""
    if type(dtype) is not Record or (dtype.module, dtype.name) != ("numpy", "dtype"):
        raise ValueError(f"the dtype {describe(dtype)}")
    code = dtype.args[0]
    bare = code.lstrip("<>|=") if type(code) is str else ""
    if bare not in _CODES:
        raise ValueError(f"values of the dtype {printable(code)}, which are not supported")
    state = dtype.state
    order = state[1] if type(state) is tuple and len(state) > 1 else "<"
    return _CODES[bare], order == ">"
