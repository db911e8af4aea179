"""What a file is and holds, found without running or trusting it: what `lensmount inspect` prints and plugins go by."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount_reading.text import listing, printable

if TYPE_CHECKING:
    from lensmount.errors import ModelFileError
    from lensmount_reading.checkpoint import Checkpoint
    from lensmount_reading.onnx_file import OnnxFacts

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
        metadata: Texts along with the data: ONNX `metadata_props`, safetensors' metadata, TorchScript's extra files.
        globals: Classes and functions that pickles in the file name.
        refused_globals: Those that no reading allows; a file that has any cannot be loaded.
        error: Why the file cannot be read for use (cut, damaged, refused, of no known kind), or None;
            `require_usable` raises it.
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
    error: ModelFileError | None = None
    onnx: OnnxFacts | None = None

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
        """What a graph computes in, or what a checkpoint's weights are stored in: see `lensmount_reading.precision`."""
        from lensmount_reading.precision import graph_precision, stored_precision

        if self.onnx is None:
            return stored_precision(self.tensors)
        edges = tuple(value.dtype for value in (*self.inputs, *self.outputs))
        return graph_precision(self.tensors, self.onnx.operators, edges)

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


def inspect_file(path: str | os.PathLike[str]) -> FileFacts:
    """Find out what a file is and holds.

    A file that asks for dangerous things is described all the same, with `refused_globals` and `error`; only
    reading it for use raises. The extension is not looked at.

    Args:
        path: A file, or what else `read_checkpoint` takes.

    Raises:
        ModelFileError: There is nothing to look at: the file is missing, empty, unreadable or no regular file.
    """
    from lensmount_reading.inspection import inspect

    return inspect(Path(path))


def require_usable(facts: FileFacts) -> FileFacts:
    """Return the facts, or raise the `ModelFileError` that they hold."""
    if facts.error is not None:
        raise facts.error
    return facts


def _shown(value: GraphValue) -> str:
    sizes = "x".join("?" if size is None else printable(size, 20) for size in value.shape)
    return f"{printable(value.name, 60)} {value.dtype} {sizes if value.ranked else 'of any shape'}".rstrip()


_KIND_NAMES = {
    "onnx": "an ONNX model",
    "torch": "a torch checkpoint",
    "torch-legacy": "a torch checkpoint from before 1.6",
    "torchscript": "a TorchScript archive",
    "safetensors": "safetensors",
    "engine": "a TensorRT engine",
    "pickle": "a bare pickle",
    "zip": "a zip archive that is not torch's",
    "unknown": "a file of unknown kind",
}
_PRECISIONS = {"float32": "fp32", "float64": "fp32", "float16": "fp16", "bfloat16": "bf16"}
