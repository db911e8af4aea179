"""What a file is and holds, found without running or trusting it: what `lensmount inspect` prints and plugins go by."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import ModelFileError

if TYPE_CHECKING:
    from lensmount.reading.checkpoint import Checkpoint
    from lensmount.reading.onnx_file import OnnxFacts

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
        shape: Sizes; None where the graph does not say how many dimensions there are.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file by its content alone.

    Attributes:
        path: The file.
        kind: `"onnx"`, `"torch"`, `"torchscript"`, `"torch-legacy"`, `"safetensors"`, `"engine"` (TensorRT),
            `"pickle"` (bare), `"tar"`, `"hdf5"`, `"gguf"`, `"zip"` (not torch's) or `"unknown"`.
        size: Bytes of the file; for shards of all of them.
        inputs: Graph inputs (ONNX).
        outputs: Graph outputs (ONNX).
        tensors: Stored tensors by dotted key; an ONNX model's initializers.
        metadata: Texts beside the data: ONNX `metadata_props`, safetensors' metadata, TorchScript's extra files.
        globals: Classes and functions that pickles in the file name.
        refused_globals: Those that no reading allows; a file that has any cannot be loaded.
        problem: Why the file cannot be read for use, or None.
        onnx: More about an ONNX model.
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
    problem: str | None = None
    onnx: OnnxFacts | None = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The file read by `read_checkpoint(modules="records")`.

        Raises:
            ModelFileError: The file is no checkpoint, or is refused.
        """
        from lensmount.reading.checkpoint import read_checkpoint

        return read_checkpoint(self.path, modules="records")

    @property
    def tree(self) -> object:
        """The checkpoint's tree, read on first use."""
        return self.checkpoint.tree

    @property
    def precision(self) -> str:
        """What a graph computes in, or what a checkpoint's weights are stored in (`fp32`, `fp16`, `int8`, …)."""
        from lensmount.reading.precision import graph_precision, stored_precision

        if self.onnx is None:
            return stored_precision(self.tensors)
        inputs = tuple(value.dtype for value in self.inputs)
        return graph_precision(self.tensors, self.onnx.operators, inputs, tuple(v.dtype for v in self.outputs))

    def summary(self) -> str:
        """One line for messages."""
        if self.onnx is not None:
            inputs = ", ".join(f"{value.name} {value.shape}" for value in self.inputs[:4])
            outputs = ", ".join(f"{value.name} {value.shape}" for value in self.outputs[:6])
            return f"onnx graph with inputs {inputs}; outputs {outputs}"
        names = ", ".join(list(self.tensors)[:3])
        return f"{self.kind} file of {self.size} bytes with {len(self.tensors)} tensors ({names}, …)"


def inspect_file(path: str | os.PathLike[str]) -> FileFacts:
    """Find out what a file is and holds.

    A file that asks for dangerous things is described all the same, with `refused_globals` and `problem`; only
    reading it for use raises. The extension is not looked at.

    Args:
        path: A file, or what else `read_checkpoint` takes.

    Raises:
        ModelFileError: The file is missing, empty, or not even its kind can be made out because it is cut or damaged.
    """
    from lensmount.reading.inspection import inspect

    return inspect(Path(path))


def require_usable(facts: FileFacts) -> FileFacts:
    """Return the facts, or raise `ModelFileError` with the problem that they state."""
    if facts.problem is not None:
        raise ModelFileError(facts.problem)
    return facts
