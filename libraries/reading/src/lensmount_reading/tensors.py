"""Tensors of a file, described but not read until asked for."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from mmap import mmap
from typing import TYPE_CHECKING

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.dtypes import DTYPES, decode
from lensmount_reading.mapped import FileReads
from lensmount_reading.text import printable

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


class Storage:
    """A run of equal elements in a file: what torch calls a storage.

    Attributes:
        key: Its name in the file.
        dtype: A key of `DTYPES`.
        numel: Number of elements.
        buffer: The file, mapped or not, bytes that were inside a pickle, or what unpacks compressed ones, called when
            a tensor is first used; None until a legacy file's data is found.
        start: Offset in bytes into `buffer`.
        big_endian: Whether the elements are stored most significant byte first.
    """

    __slots__ = ("big_endian", "buffer", "dtype", "key", "numel", "start")

    def __init__(
        self,
        key: str,
        dtype: str,
        numel: int,
        buffer: mmap | FileReads | bytes | bytearray | Callable[[], bytes] | None = None,
        start: int = 0,
        big_endian: bool = False,
    ) -> None:
        self.key = key
        self.dtype = dtype
        self.numel = numel
        self.buffer = buffer
        self.start = start
        self.big_endian = big_endian

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * DTYPES[self.dtype].itemsize

    def __repr__(self) -> str:
        return f"Storage({printable(self.key)!r}, {self.dtype}, {self.numel})"


class TensorRef:
    """A tensor in a file: shape and dtype at hand, values on request.

    Attributes:
        storage: Where the elements lie; tied tensors share one.
        dtype: torch's name of the element type, without `torch.` (`"float16"`, `"bfloat16"`).
        offset: First element, counted in elements of `dtype` from the start of the storage.
        shape: Sizes.
        stride: Steps in elements; any layout that stays inside the storage.
        requires_grad: As saved.
    """

    __slots__ = ("dtype", "offset", "requires_grad", "shape", "storage", "stride")

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool

    def __init__(
        self,
        storage: Storage,
        dtype: str,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        requires_grad: bool = False,
    ) -> None:
        check_layout(storage, dtype, offset, shape, stride)
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.shape = shape
        self.stride = stride
        self.requires_grad = requires_grad

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements when packed."""
        return self.size * DTYPES[self.dtype].itemsize

    def raw(self) -> NDArray[Any]:
        """Return the stored bits in native byte order: `uint16` for bfloat16, `uint8` for float8 and bool.

        Returns:
            Array of `shape`: a private, writable view of a mapped file (a blob of the store) where the layout
            allows, else a copy. Writing to a view changes every tensor that shares the storage, in this process only.

        Raises:
            ModelFileError: The file holds no data for this tensor, or was changed since it was opened.
        """
        import numpy as np

        row = DTYPES[self.dtype]
        storage = self.storage
        if self.size == 0:
            return np.zeros(self.shape, dtype=row.raw)
        if callable(storage.buffer):
            storage.buffer = storage.buffer()
        if storage.buffer is None:
            raise ModelFileError(f"storage {printable(storage.key)} has no data in the file", fix="download it again")
        code = np.dtype(row.raw).newbyteorder(">" if storage.big_endian else "<")
        steps = tuple(step * row.itemsize for step in self.stride)
        start = storage.start + self.offset * row.itemsize
        native = storage.big_endian == (sys.byteorder == "big")
        if native and start % row.itemsize == 0 and isinstance(storage.buffer, mmap):
            view: NDArray[Any] = np.ndarray(self.shape, code, storage.buffer, start, steps)
            return view
        # Legacy files do not align their data; other libraries may assume that arrays are. The run of elements that
        # the tensor spans is copied, not its elements: an expanded tensor stays as small as its storage.
        span = 1 + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))
        if isinstance(storage.buffer, FileReads):
            flat: NDArray[Any] = storage.buffer.array(start, span * row.itemsize).view(code).astype(row.raw, copy=False)
        else:
            flat = np.frombuffer(storage.buffer, code, span, start).astype(row.raw)
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps)

    def numpy(self) -> NDArray[Any]:
        """Return the values.

        Returns:
            Read-only array of `shape`. Its dtype is the tensor's own where numpy has it (then a view of the mapped
            file where possible); bfloat16 and float8 come as float32, half-precision complex as complex64, exactly.

        Raises:
            ModelFileError: The file holds no data for this tensor.
        """
        values = decode(self.raw(), self.dtype)
        values.flags.writeable = False
        return values

    def __repr__(self) -> str:
        return f"TensorRef(shape={self.shape}, dtype={self.dtype})"


def check_layout(storage: Storage, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
    """Raise `UnsafeFileError` unless every element of the described tensor lies inside its storage."""
    problem = None
    if len(shape) != len(stride) or len(shape) > limits.MAX_DIMENSIONS:
        problem = "sizes and strides do not go together"
    else:
        for number in (offset, *shape, *stride):
            if type(number) is not int or not 0 <= number < 1 << 48:
                problem = "a size, stride or offset is not a non-negative 48-bit integer"
                break
    if problem is None:
        span, count = 1, 1
        for length, step in zip(shape, stride, strict=True):
            span += (length - 1) * step
            count *= max(length, 1)
        itemsize = DTYPES[dtype].itemsize
        if count >= 1 << 48:
            problem = "it has absurdly many elements"
        elif 0 not in shape and (offset + span) * itemsize > storage.nbytes:
            problem = f"it reaches beyond its storage of {storage.nbytes} bytes"
    if problem is not None:
        raise UnsafeFileError(
            f"a tensor in storage {printable(storage.key)} is not possible: {problem}",
            found=f"offset {printable(offset, 40)}, sizes {printable(shape, 80)}, "
            f"strides {printable(stride, 80)}, {dtype}",
            expected="every element inside the storage",
            fix="download the file again; if it stays so, do not use it",
        )
