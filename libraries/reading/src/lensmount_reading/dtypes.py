"""Element types: what each file format calls them, how wide they are, and how they become numpy arrays.

One table for torch, safetensors, ONNX and numpy. numpy has no `bfloat16`, `float8_*` or half-precision complex; those
are decoded to `float32` (`complex64`), which holds every one of their values exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes:
        name: Its name in torch (without `torch.`), and in numpy where numpy has it.
        itemsize: Bytes of one element.
        raw: numpy code of the stored bits, without byte order (`"f4"`, `"u2"`).
        decoded: Name of the dtype that `TensorRef.numpy()` returns; equal to `name` where numpy has it.
        safetensors: Its name in a safetensors header, or an empty string.
        onnx: Its number in ONNX's `TensorProto.DataType`, or 0.
        storage: Prefix of its legacy torch storage class (`"Float"` for `FloatStorage`), or an empty string.
    """

    name: str
    itemsize: int
    raw: str
    decoded: str
    safetensors: str
    onnx: int
    storage: str


_ROWS = (
    DType("float32", 4, "f4", "float32", "F32", 1, "Float"),
    DType("float16", 2, "f2", "float16", "F16", 10, "Half"),
    DType("float64", 8, "f8", "float64", "F64", 11, "Double"),
    DType("bfloat16", 2, "u2", "float32", "BF16", 16, "BFloat16"),
    DType("uint8", 1, "u1", "uint8", "U8", 2, "Byte"),
    DType("int8", 1, "i1", "int8", "I8", 3, "Char"),
    DType("uint16", 2, "u2", "uint16", "U16", 4, ""),
    DType("int16", 2, "i2", "int16", "I16", 5, "Short"),
    DType("int32", 4, "i4", "int32", "I32", 6, "Int"),
    DType("int64", 8, "i8", "int64", "I64", 7, "Long"),
    DType("uint32", 4, "u4", "uint32", "U32", 12, ""),
    DType("uint64", 8, "u8", "uint64", "U64", 13, ""),
    DType("bool", 1, "u1", "bool", "BOOL", 9, "Bool"),
    DType("complex64", 8, "c8", "complex64", "C64", 14, "ComplexFloat"),
    DType("complex128", 16, "c16", "complex128", "", 15, "ComplexDouble"),
    DType("complex32", 4, "u4", "complex64", "", 0, "ComplexHalf"),
    DType("float8_e4m3fn", 1, "u1", "float32", "F8_E4M3", 17, ""),
    DType("float8_e4m3fnuz", 1, "u1", "float32", "F8_E4M3FNUZ", 18, ""),
    DType("float8_e5m2", 1, "u1", "float32", "F8_E5M2", 19, ""),
    DType("float8_e5m2fnuz", 1, "u1", "float32", "F8_E5M2FNUZ", 20, ""),
    DType("float8_e8m0fnu", 1, "u1", "float32", "F8_E8M0", 24, ""),
)

DTYPES: dict[str, DType] = {row.name: row for row in _ROWS}
BY_SAFETENSORS: dict[str, DType] = {row.safetensors: row for row in _ROWS if row.safetensors}
BY_STORAGE: dict[str, DType] = {row.storage + "Storage": row for row in _ROWS if row.storage}

ONNX_NAMES: dict[int, str] = {row.onnx: row.name for row in _ROWS if row.onnx} | {
    8: "string",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1",
    25: "uint2",
    26: "int2",
    27: "float6_e2m3",
    28: "float6_e3m2",
}

TORCH_ALIASES = {"float": "float32", "half": "float16", "double": "float64", "long": "int64", "int": "int32"}


def decode(raw: NDArray[Any], name: str) -> NDArray[Any]:
    """Turn stored bits into the values they stand for.

    Args:
        raw: Array of the dtype's `raw` code in native byte order, any shape.
        name: A key of `DTYPES`.

    Returns:
        `raw` itself where numpy has the type; otherwise a new array of the `decoded` dtype, exact, of the same shape.
        Booleans are normalised: any byte but 0 is True.
    """
    import numpy as np

    values = raw
    if name == "bool":
        values = np.not_equal(raw, 0)
    elif name == "bfloat16":
        values = np.left_shift(raw.astype(np.uint32), 16).view(np.float32)
    elif name == "complex32":
        halves = np.ascontiguousarray(raw).view(np.float16).astype(np.float32)
        values = halves.view(np.complex64).reshape(raw.shape)
    elif name.startswith("float8_"):
        values = _float8_values(name)[raw]
    return np.asarray(values)  # numpy answers with a scalar for an array without dimensions


def _float8_values(name: str) -> NDArray[np.float32]:
    """All 256 values of an 8-bit float, by its bit pattern (OCP OFP8 and MX specifications; `fnuz`: Graphcore/AMD)."""
    import numpy as np

    code = np.arange(256, dtype=np.int64)
    if name == "float8_e8m0fnu":
        values = np.exp2(code.astype(np.float64) - 127)
        values[255] = np.nan
        return values.astype(np.float32)
    mantissa_bits = 3 if "e4m3" in name else 2
    exponent_bits = 7 - mantissa_bits
    bias = (1 << (exponent_bits - 1)) - (0 if name.endswith("fnuz") else 1)
    exponent = (code & 0x7F) >> mantissa_bits
    fraction = (code & ((1 << mantissa_bits) - 1)) / float(1 << mantissa_bits)
    sign = np.where(code & 0x80, -1.0, 1.0)
    magnitude = np.where(
        exponent == 0, np.exp2(1.0 - bias) * fraction, np.exp2(exponent - float(bias)) * (1 + fraction)
    )
    values = sign * magnitude
    if name.endswith("fnuz"):
        values[0x80] = np.nan
    elif name == "float8_e4m3fn":
        values[[0x7F, 0xFF]] = np.nan
    else:
        infinite = exponent == (1 << exponent_bits) - 1
        values = np.where(infinite, np.where(fraction == 0, sign * np.inf, np.nan), values)
    return values.astype(np.float32)
