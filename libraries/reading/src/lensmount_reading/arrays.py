"""Handing tensors to numpy, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lensmount_reading.checkpoint import Checkpoint
from lensmount_reading.dtypes import decode
from lensmount_reading.tensors import TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_arrays(source: Checkpoint | Mapping[str, TensorRef], dtype: str | None = None) -> dict[str, NDArray[Any]]:
    """Make numpy arrays.

    Args:
        source: A checkpoint (all its tensors under dotted keys) or a mapping such as `module_state_dict` returns.
        dtype: Convert floating-point tensors to this type; None keeps each in numpy's type of the same values.

    Returns:
        Arrays by key. Without conversion they are views of the mapped file, private and writable: writing to one
        changes this process's pages alone (and tensors tied to it), never the file.

    Raises:
        ModelFileError: The file holds no data for a tensor.
    """
    made: dict[str, NDArray[Any]] = {}
    for key, reference in (source.tensors if isinstance(source, Checkpoint) else source).items():
        array = decode(reference.raw(), reference.dtype)
        made[key] = array.astype(dtype, copy=False) if dtype is not None and array.dtype.kind == "f" else array
    return made
