"""Element types between graphs and numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensmount.contracts.session import Array, TensorSpec

ONNXRUNTIME_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "object",
}
"""numpy's name by onnxruntime's `tensor(…)`."""


def host_array(value: Any) -> Array:
    """A host array of an array (itself) or of a tensor on any device; bfloat16 becomes float32.

    torch is not imported to find out.
    """
    from lensmount.backend.tensors import is_tensor

    if not is_tensor(value):
        array: Array = value
        return array
    value = value.detach().cpu()
    copied: Array = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return copied


def as_input_dtype(array: Array, spec: TensorSpec) -> Array:
    """Casts an array to an input's dtype and makes it contiguous; the array itself where nothing is to do.

    Floating types are cast to one another (a float32 batch for an fp16 graph). Integer batches for floating inputs
    and the reverse are refused: what 0..255 means in a float is the caller's to say.

    Raises:
        BackendError: The cast would change what the values mean, or numpy has no such dtype.
    """
    import numpy as np

    from lensmount.errors import BackendError

    if str(array.dtype) == spec.dtype:
        return np.ascontiguousarray(array)
    try:
        wanted = np.dtype(spec.dtype)
    except TypeError:
        wanted = None
    if wanted is None or wanted.kind != "f" or array.dtype.kind != "f":
        raise BackendError(
            f"input {spec.name!r} cannot take a {array.dtype} array", found=str(array.dtype), expected=spec.dtype
        )
    return np.ascontiguousarray(array, dtype=wanted)
