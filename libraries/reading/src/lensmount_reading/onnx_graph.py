"""What must be known of an ONNX file before a runtime opens it: its precision, and that its data lie in its folder."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount.specs.descriptors import ModelPackage
from lensmount_reading import limits
from lensmount_reading.external_data import check_external_data
from lensmount_reading.facts import FileFacts, GraphValue
from lensmount_reading.mapped import is_blob
from lensmount_reading.onnx_file import read_onnx
from lensmount_reading.text import printable


@dataclass(frozen=True, slots=True)
class GraphFile:
    """What was found out.

    Attributes:
        facts: What the file says of itself: inputs, outputs, metadata, precision, operators.
        data: Files that its tensors' data lie in, by the name that the graph gives them (relative to its folder, with
            forward slashes), each resolved and checked.
    """

    facts: FileFacts
    data: tuple[tuple[str, Path], ...] = ()

    @property
    def precision(self) -> str:
        """What the graph computes in: `fp32`, `fp16`, `bf16`, `int8`, `fp64`."""
        return self.facts.precision

    @property
    def supplied(self) -> tuple[tuple[str, Path], ...]:
        """Those of `data` that onnxruntime had better be handed.

        They do not lie where the graph itself lies, once links are followed; or somebody may shorten or rewrite them
        while onnxruntime has them mapped, which would end the process.
        """
        home = self.facts.path.resolve().parent
        return tuple((name, real) for name, real in self.data if not real.is_relative_to(home) or not is_blob(real))


def inspect_graph(path: Path, package: ModelPackage) -> GraphFile:
    """Reads a graph's description, and refuses external data outside the package's folder.

    onnxruntime before 1.24 reads any path that a graph names. Files that the package declares were verified by the
    store, wherever its links lead; any other must lie in the graph's own folder.

    Raises:
        ModelFileError: The file is empty or not ONNX, or a data file is missing.
        UnsafeFileError: A tensor's data lies outside the folder, or an input is absurdly large.
    """
    facts = read_onnx(path)
    _check_sizes(path, facts.inputs)
    declared = _declared(path, package)
    others = tuple(entry for entry in facts.external_data if entry.location not in declared)
    check_external_data(replace(facts, external_data=others), path.parent)
    data = {}
    for name in sorted({entry.location for entry in facts.external_data}):
        data[name] = declared.get(name, path.parent / name).resolve()
        if not data[name].is_file():
            raise ModelFileError(
                f"data file {printable(name)!r} of graph {path.name!r} is missing",
                found=str(data[name]),
                fix="bring the data files into the graph's folder; they were written together with it",
            )
    described = FileFacts(path, "onnx", 0, facts.inputs, facts.outputs, facts.initializers, facts.metadata, onnx=facts)
    return GraphFile(described, tuple(data.items()))


def _check_sizes(path: Path, inputs: tuple[GraphValue, ...]) -> None:
    for value in inputs:
        sizes = [size for size in value.shape if isinstance(size, int)]
        if math.prod(size for size in sizes if size > 0) > limits.MAX_INPUT_ELEMENTS:
            raise UnsafeFileError(
                f"graph {path.name!r} asks for an absurdly large input {printable(value.name)!r}",
                found="x".join(printable(size) for size in value.shape[:32]),
                expected=f"at most {limits.MAX_INPUT_ELEMENTS:,} elements",
                fix="export the model again with the size of the pictures that it is for",
            )


def _declared(path: Path, package: ModelPackage) -> dict[str, Path]:
    """The package's files by the name that a graph in this place would give them."""
    for artifact in package.artifacts:
        parts = tuple(artifact.name.split("/"))
        if path.parts[-len(parts) :] == parts:
            base = path.parents[len(parts) - 1]
            files = [base / other.name for other in package.artifacts if other.name != artifact.name]
            return {f.relative_to(path.parent).as_posix(): f for f in files if f.is_relative_to(path.parent)}
    return {}


@contextlib.contextmanager
def supply_data(options: Any, supplied: tuple[tuple[str, Path], ...]) -> Iterator[None]:
    """Hands data files to `onnxruntime.SessionOptions`, which follows no links out of the graph's folder.

    Blobs of the store are mapped, any other file is read whole; onnxruntime copies what it keeps, and the memory is
    free again when the session is there. Versions that cannot be handed any open the files themselves.

    Raises:
        ModelFileError: A file cannot be read.
    """
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        supplied = ()
    with contextlib.ExitStack() as stack:
        contents: list[Any] = []
        for name, path in supplied:
            try:
                file = stack.enter_context(path.open("rb"))
                if is_blob(path):
                    contents.append(stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
                else:
                    contents.append(file.read())
            except (OSError, ValueError) as error:
                raise ModelFileError(f"data file {printable(name)!r} cannot be read", found=str(error)) from error
        if contents:
            names = [name for name, _ in supplied]
            options.add_external_initializers_from_files_in_memory(names, contents, [len(c) for c in contents])
        yield
