"""What must be known of an ONNX file before onnxruntime opens it: its precision, and that its data lies beside it."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lensmount.errors import ModelFileError
from lensmount.specs import ModelPackage


@dataclass(frozen=True, slots=True)
class GraphFile:
    """What was found out.

    Attributes:
        precision: What the graph computes in.
        linked: Data files by the name that the graph gives them, which lie elsewhere through links of the store's.
    """

    precision: str
    linked: tuple[tuple[str, Path], ...]


def inspect(path: Path, package: ModelPackage) -> GraphFile:
    """Reads a graph's description, and refuses external data outside the package's folder.

    onnxruntime before 1.24 reads any path that a graph names. Files that the package declares were verified by the
    store, wherever its links lead; any other must lie in the graph's own folder.

    Raises:
        ModelFileError: The file is empty or not ONNX, or a data file is missing.
        UnsafeFileError: A tensor's data lies outside the folder.
    """
    from lensmount.reading import FileFacts, check_external_data, read_onnx

    facts = read_onnx(path)
    declared = _declared(path, package)
    named = {entry.location for entry in facts.external_data}
    check_external_data(
        replace(facts, external_data=tuple(e for e in facts.external_data if e.location not in declared)), path.parent
    )
    home = path.resolve().parent
    linked = []
    for name in sorted(named & declared.keys()):
        real = declared[name].resolve()
        if not real.is_file():
            raise ModelFileError(
                f"data file {name!r} of graph {path.name!r} is missing",
                found=str(declared[name]),
                fix="bring the data files into the graph's folder; they were written together with it",
            )
        if real.parent != home:
            linked.append((name, real))
    described = FileFacts(path, "onnx", 0, facts.inputs, facts.outputs, facts.initializers, facts.metadata, onnx=facts)
    return GraphFile(described.precision, tuple(linked))


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
def supply(options: Any, linked: tuple[tuple[str, Path], ...]) -> Iterator[None]:
    """Hands mapped data files to `onnxruntime.SessionOptions`: it follows no links out of the graph's folder.

    Versions that cannot be handed any follow the links themselves.
    """
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        linked = ()
    with contextlib.ExitStack() as stack:
        maps = []
        for _, path in linked:
            file = stack.enter_context(path.open("rb"))
            maps.append(stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        if maps:
            names = [name for name, _ in linked]
            options.add_external_initializers_from_files_in_memory(names, maps, [len(m) for m in maps])
        yield
