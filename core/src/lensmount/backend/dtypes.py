"""Element types between graphs and numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensmount.contracts.arrays import Array

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
