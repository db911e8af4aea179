"""What a file is and holds, found without running or trusting it: what `lensmount inspect` prints and plugins go by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount_reading.text import listing, printable

if TYPE_CHECKING:
    from lensmount.errors import ModelFileError
    from lensmount_reading.checkpoint import Checkpoint
    from lensmount_reading.tflite_file import TfliteModel

Dimension = int | str | None
"""A size; a name for a size that is free; or None for one that is free and has no name."""


@dataclass(frozen=True)
class TensorFact:
    """Shape and element type of a stored tensor.

    Attributes:
        shape: Sizes.
        dtype: torch's or numpy's name of the element type (`"float16"`, `"bfloat16"`).
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GraphValue:
    """An input or output of a graph.

    Attributes:
        name: Its name.
        dtype: As in `TensorFact`; `"sequence"`, `"map"`, `"optional"` or `"unknown"` for what is no plain tensor.
        shape: Sizes; empty for a scalar, and where `ranked` is False.
        ranked: Whether the graph says how many dimensions there are.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]
    ranked: bool = True


@dataclass(frozen=True)
class ExternalData:
    """A tensor whose data lie in another file.

    Attributes:
        tensor: Its name.
        location: File name as written, relative to the model's folder.
        offset: First byte.
        length: Bytes as written; None where the file does not say.
        nbytes: Bytes that sizes and element type ask for.
    """

    tensor: str
    location: str
    offset: int
    length: int | None
    nbytes: int


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX model says of itself.

    Attributes:
        ir_version: Version of the format.
        opsets: Operator-set version by domain; the default domain is `""`.
        producer: Name and version of what wrote it.
        metadata: `metadata_props`.
        inputs: Graph inputs without those that are initializers.
        outputs: Graph outputs.
        initializers: Stored tensors of the main graph.
        operators: How often each operator occurs, subgraphs and functions included; outside the default domain as
            `domain::operator`.
        custom_domains: Domains of operators or opsets that are not ONNX's own (`com.microsoft`, …).
        functions: Names of the model's own functions.
        external_data: Tensors whose data lie in other files, wherever they occur.
        activations: What the values of each output went through last: `softmax`, `log-softmax`, `sigmoid`, `none`; None
            where the graph does not tell.
    """

    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    metadata: Mapping[str, str]
    inputs: tuple[GraphValue, ...]
    outputs: tuple[GraphValue, ...]
    initializers: Mapping[str, TensorFact]
    operators: Mapping[str, int]
    custom_domains: tuple[str, ...]
    functions: tuple[str, ...]
    external_data: tuple[ExternalData, ...]
    activations: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file by its content alone.

    Attributes:
        path: The file.
        kind: `"onnx"`, `"tflite"`, `"torch"`, `"torchscript"`, `"torch-legacy"`, `"safetensors"`, `"engine"`
            (TensorRT), `"pickle"` (bare), `"tar"`, `"hdf5"`, `"gguf"`, `"zip"` (not torch's) or `"unknown"`.
        size: Bytes of the file; for shards of all of them.
        inputs: Graph inputs (ONNX, TFLite).
        outputs: Graph outputs (ONNX, TFLite).
        tensors: Stored tensors by dotted key, without the parts that wrappers of training add (`module.`,
            `_orig_mod.`); an ONNX model's initializers, a TFLite model's constants.
        metadata: Texts stored with the data: ONNX `metadata_props`, safetensors' metadata, TorchScript's extra files.
        globals: Classes and functions that pickles in the file name.
        refused_globals: Those that no reading allows; a file that has any cannot be loaded.
        error: Why the file cannot be read for use (cut, damaged, refused, of no known kind), or None;
            `require_usable` raises it.
        onnx: More about an ONNX model.
        tflite: More about a TFLite model.
    """

    path: Path
    kind: str
    size: int
    inputs: tuple[GraphValue, ...] = ()
    outputs: tuple[GraphValue, ...] = ()
    tensors: Mapping[str, TensorFact] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    globals: tuple[str, ...] = ()
    refused_globals: tuple[str, ...] = ()
    error: ModelFileError | None = None
    onnx: OnnxFacts | None = None
    tflite: TfliteModel | None = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The file read by `read_checkpoint(modules="records")`.

        Raises:
            ModelFileError: The file is no checkpoint, or is refused.
        """
        from lensmount_reading.checkpoint import read_checkpoint

        return read_checkpoint(self.path, modules="records")

    @property
    def tree(self) -> object:
        """The checkpoint's tree, read on first use."""
        return self.checkpoint.tree

    @property
    def precision(self) -> str:
        """What a graph computes in, or what most of a checkpoint's weights are stored in.

        `fp32`, `fp16`, `bf16`, `int8` or `fp64`; `fp32` where there are no weights.
        """
        if self.tflite is not None and any(tensor.quantisation for tensor in self.tflite.tensors):
            return "int8"
        if self.onnx is None:
            return _stored_precision(self.tensors)
        edges = tuple(value.dtype for value in (*self.inputs, *self.outputs))
        return _graph_precision(self.tensors, self.onnx.operators, edges)

    def summary(self) -> str:
        """One line for people: kind, size, contents, and what is wrong with it."""
        parts = [_KIND_NAMES.get(self.kind, self.kind), f"{self.size:,} bytes"]
        if self.inputs or self.outputs:
            for label, values in (("inputs", self.inputs), ("outputs", self.outputs)):
                parts.append(f"{label} " + listing((_shown(value) for value in values), 4))
        elif self.tensors:
            keys = listing((printable(key, 60) for key in self.tensors), 3)
            parts.append(f"{len(self.tensors)} tensors: {keys}")
        if self.refused_globals:
            parts.append("refused: it asks for " + listing(self.refused_globals, 5))
        elif self.error is not None:
            parts.append(self.error.problem)
        return "; ".join(parts)


def _stored_precision(tensors: Mapping[str, TensorFact], operators: Mapping[str, int] | None = None) -> str:
    """The precision that most of the weights are stored in.

    Args:
        tensors: Stored tensors.
        operators: How often each operator occurs, for a graph.

    Returns:
        `fp32`, `fp16`, `bf16`, `int8` or `fp64`; `fp32` where there are no weights.
    """
    if operators is not None and any(name.rpartition("::")[2] in _QUANTISED for name in operators):
        return "int8"
    counts: dict[str, int] = {}
    for fact in tensors.values():
        name = _PRECISIONS.get(fact.dtype)
        if name is not None and not (name == "int8" and operators is None):
            counts[name] = counts.get(name, 0) + math.prod(fact.shape)
    return max(counts, key=lambda name: counts[name]) if counts else "fp32"


def _graph_precision(tensors: Mapping[str, TensorFact], operators: Mapping[str, int], edges: tuple[str, ...]) -> str:
    """The precision that a graph computes in.

    Args:
        tensors: Its initializers.
        operators: How often each operator occurs.
        edges: Element types of its inputs and outputs.

    Returns:
        `int8` for quantised graphs; `fp32` for one that takes and gives float32, casts, and only stores its weights
        as float16; else the precision of its weights.
    """
    stored = _stored_precision(tensors, operators)
    if stored == "fp16" and "Cast" in operators and "float16" not in edges:
        half = sum(1 for fact in tensors.values() if fact.dtype == "float16")
        return "fp32" if operators["Cast"] >= half else "fp16"
    return stored


def _shown(value: GraphValue) -> str:
    sizes = "x".join("?" if size is None else printable(size, 20) for size in value.shape[:32])
    return f"{printable(value.name, 60)} {value.dtype} {sizes if value.ranked else 'of any shape'}".rstrip()


_KIND_NAMES = {
    "onnx": "an ONNX model",
    "tflite": "a TFLite model",
    "torch": "a torch checkpoint",
    "torch-legacy": "a torch checkpoint from before 1.6",
    "torchscript": "a TorchScript archive",
    "safetensors": "safetensors",
    "engine": "a TensorRT engine",
    "pickle": "a bare pickle",
    "zip": "a zip archive that is not torch's",
    "unknown": "a file of unknown kind",
}
_QUANTISED = frozenset(
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
"""Operators that only quantised graphs have."""
_PRECISIONS = {
    "float32": "fp32",
    "float64": "fp64",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8",
    "uint8": "int8",
}
