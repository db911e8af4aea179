"""In which precision weights are stored, from their element types and a graph's operators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lensmount_reading.facts import TensorFact

#: Operators that only quantised graphs have.
QUANTISED = frozenset(
    (
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    )
)
_NAMES = {"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}


def stored_precision(tensors: Mapping[str, TensorFact], operators: Mapping[str, int] | None = None) -> str:
    """The precision that most of the weights are stored in.

    Args:
        tensors: Stored tensors.
        operators: How often each operator occurs, for a graph.

    Returns:
        `fp32`, `fp16`, `bf16`, `int8` or `fp64`; `fp32` where there are no weights.
    """
    if operators is not None and any(name.rpartition("::")[2] in QUANTISED for name in operators):
        return "int8"
    counts: dict[str, int] = {}
    for fact in tensors.values():
        name = _NAMES.get(fact.dtype)
        if name is not None and not (name == "int8" and operators is None):
            counts[name] = counts.get(name, 0) + math.prod(fact.shape)
    return max(counts, key=lambda name: counts[name]) if counts else "fp32"


def graph_precision(tensors: Mapping[str, TensorFact], operators: Mapping[str, int], edges: tuple[str, ...]) -> str:
    """The precision that a graph computes in.

    Args:
        tensors: Its initializers.
        operators: How often each operator occurs.
        edges: Element types of its inputs and outputs.

    Returns:
        `int8` for quantised graphs; `fp32` for one that takes and gives float32, casts, and only stores its weights
        as float16; else the precision of its weights.
    """
    stored = stored_precision(tensors, operators)
    if stored == "fp16" and "Cast" in operators and "float16" not in edges:
        half = sum(1 for fact in tensors.values() if fact.dtype == "float16")
        return "fp32" if operators["Cast"] >= half else "fp16"
    return stored
