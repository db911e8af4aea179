"""ONNX files as bytes, written without the onnx package: the few messages of onnx.proto (IR version 8) that are needed.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the wire format is protobuf's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts import TensorSpec

IR_VERSION = 8
OPSET = 17
"""The newest that onnxruntime 1.18, OpenVINO 2024 and TensorRT 8.6 all read in full; LayerNormalization begins here."""

TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
"""onnx's TensorProto.DataType by numpy's name."""

_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7  # AttributeProto.AttributeType

Attribute = int | float | str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator.

    Attributes:
        operator: `Mul`, `Conv`, …
        inputs: Names of what goes in; an empty one for an optional input that is left out.
        outputs: Names of what comes out.
        attributes: Numbers, texts, or sequences of whole numbers.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def model_bytes(
    nodes: Sequence[Node],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """An ONNX file, its constants in it; the arguments are those of `model_chunks`."""
    return b"".join(model_chunks(nodes, inputs, outputs, tensors, metadata))


def model_chunks(
    nodes: Sequence[Node],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    *,
    external: Mapping[str, tuple[str, int]] | None = None,
) -> list[bytes | memoryview]:
    """An ONNX file in pieces, one behind the other: the constants' values are not copied.

    Args:
        nodes: Operators, in an order in which they can run.
        inputs: Inputs; axes named by words are dynamic.
        outputs: Outputs.
        tensors: Constants by name.
        metadata: Texts to embed.
        external: Of tensors whose values lie elsewhere, by name: the file, relative to the graph's folder, and the
            offset in it in bytes.
    """
    elsewhere = external or {}
    chunks: list[bytes | memoryview] = [b"".join([*(_message(1, _node(node)) for node in nodes), _text(2, "network")])]
    for name, array in tensors.items():
        chunks += _tensor(name, array, elsewhere.get(name))
    chunks += [*(_message(11, _value(spec)) for spec in inputs), *(_message(12, _value(spec)) for spec in outputs)]
    size = sum(len(chunk) for chunk in chunks)
    head = _number(1, IR_VERSION) + _text(2, "lensmount") + _varint(7 << 3 | 2) + _varint(size)
    entries = (_message(14, _text(1, key) + _text(2, value)) for key, value in (metadata or {}).items())
    tail = _message(8, _text(1, "") + _number(2, OPSET)) + b"".join(entries)
    return [head, *chunks, tail]


def _node(node: Node) -> bytes:
    attributes = (_message(5, _attribute(name, value)) for name, value in node.attributes.items())
    names = [*(_text(1, name) for name in node.inputs), *(_text(2, name) for name in node.outputs)]
    return b"".join([*names, _text(3, "_".join(node.outputs) + "_node"), _text(4, node.operator), *attributes])


def _attribute(name: str, value: Attribute) -> bytes:
    head = _text(1, name)
    if isinstance(value, float):
        return head + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, _FLOAT)
    if isinstance(value, int):
        return head + _number(3, value) + _number(20, _INT)
    if isinstance(value, str):
        return head + _text(4, value) + _number(20, _STRING)
    return head + b"".join(_number(8, item) for item in value) + _number(20, _INTS)


def _tensor(name: str, array: NDArray[Any], place: tuple[str, int] | None) -> list[bytes | memoryview]:
    said = b"".join(_number(1, size) for size in array.shape) + _number(2, TYPES[str(array.dtype)]) + _text(8, name)
    if place is not None:
        entries = {"location": place[0], "offset": str(place[1]), "length": str(array.nbytes)}
        said += b"".join(_message(13, _text(1, key) + _text(2, value)) for key, value in entries.items())
        return [_message(5, said + _number(14, 1))]
    data = little_endian(array).reshape(-1).view("uint8").data
    said += _varint(9 << 3 | 2) + _varint(len(data))
    return [_varint(5 << 3 | 2) + _varint(len(said) + len(data)) + said, data]


def little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """The array contiguous and least significant byte first, as files hold it; itself where it is so already."""
    import numpy as np

    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)


def _value(spec: TensorSpec) -> bytes:
    axes = b"".join(
        _message(1, _number(1, size) if isinstance(size, int) else _text(2, str(size))) for size in spec.shape
    )
    tensor_type = _number(1, TYPES[spec.dtype]) + _message(2, axes)
    return _text(1, spec.name) + _message(2, _message(1, tensor_type))


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value)


def _text(tag: int, value: str) -> bytes:
    return _message(tag, value.encode())


def _message(tag: int, content: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
