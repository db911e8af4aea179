"""Writes small ONNX graphs without the onnx package: the few messages of onnx.proto (IR version 8) that they need.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the wire format is protobuf's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lensmount.contracts.session import TensorSpec

IR_VERSION = 8
OPSET = 17
TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
"""onnx's TensorProto.DataType by numpy's name."""

_INT, _INTS = 2, 7  # AttributeProto.AttributeType


@dataclass(frozen=True, slots=True)
class Node:
    """One operator.

    Attributes:
        operator: `Mul`, `Conv`, …
        inputs: Names of what goes in.
        outputs: Names of what comes out.
        attributes: Whole numbers, or sequences of them.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int | Sequence[int]] = field(default_factory=dict)


def model_bytes(
    nodes: Sequence[Node],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    tensors: Mapping[str, np.ndarray[Any, Any]],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """An ONNX file.

    Args:
        nodes: Operators, in an order in which they can run.
        inputs: Inputs; axes named by words are dynamic.
        outputs: Outputs.
        tensors: Constants by name.
        metadata: Texts to embed.
    """
    graph = b"".join(
        [
            *(_message(1, _node(node)) for node in nodes),
            _text(2, "kit"),
            *(_message(5, _tensor(name, array)) for name, array in tensors.items()),
            *(_message(11, _value(spec)) for spec in inputs),
            *(_message(12, _value(spec)) for spec in outputs),
        ]
    )
    entries = (_message(14, _text(1, key) + _text(2, value)) for key, value in (metadata or {}).items())
    opset = _text(1, "") + _number(2, OPSET)
    head = _number(1, IR_VERSION) + _text(2, "lensmount_testing")
    return head + _message(7, graph) + _message(8, opset) + b"".join(entries)


def _node(node: Node) -> bytes:
    attributes = (_message(5, _attribute(name, value)) for name, value in node.attributes.items())
    names = [*(_text(1, name) for name in node.inputs), *(_text(2, name) for name in node.outputs)]
    return b"".join([*names, _text(3, "_".join(node.outputs) + "_node"), _text(4, node.operator), *attributes])


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, _INT)
    return _text(1, name) + b"".join(_number(8, item) for item in value) + _number(20, _INTS)


def _tensor(name: str, array: np.ndarray[Any, Any]) -> bytes:
    dimensions = b"".join(_number(1, size) for size in array.shape)
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return dimensions + _number(2, TYPES[str(array.dtype)]) + _text(8, name) + _message(9, little.tobytes())


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
