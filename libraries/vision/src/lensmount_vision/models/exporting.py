"""What every exporter does with a graph once it is made: describe it, check it, keep it whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lensmount.errors import MissingDependencyError, StoreError


def require_packages(*names: str, fix: str) -> None:
    """Refuses to start where a package is missing.

    Raises:
        MissingDependencyError: With the command that installs it.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"export needs {', '.join(missing)}, which is not installed", fix=fix)


def describe_graph(
    graph: bytes, metadata: Mapping[str, str], shapes: Mapping[str, Sequence[int | str]] | None = None
) -> bytes:
    """Embeds metadata in a serialised ONNX graph, removes what it says of the machine it was made on, and checks it.

    Args:
        graph: The serialised model.
        metadata: Texts by key.
        shapes: Shapes of outputs, where tracing lost sizes that are fixed; a text is a free size's name.

    Returns:
        The serialised model.
    """
    import onnx

    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.doc_string = ""  # else paths of source files
    for output in model.graph.output:
        for dimension, size in zip(
            output.type.tensor_type.shape.dim, (shapes or {}).get(output.name, ()), strict=False
        ):
            if isinstance(size, int):
                dimension.dim_value = size
            else:
                dimension.dim_param = size
    model.producer_name = "lensmount"
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


def write_checked(data: bytes | Callable[[Path], None], target: Path, check: Callable[[Path], None]) -> Path:
    """Keeps a file of given content, or what a function writes to its path, if `check` lets it; see `keep_checked`."""
    return keep_checked(target, data if callable(data) else lambda path: path.write_bytes(data), check)


def keep_checked(target: Path, write: Callable[[Path], object], check: Callable[[Path], None]) -> Path:
    """Writes in a folder next to the target, checks, moves: what is kept is complete and right, or not there.

    Args:
        target: Where the file goes.
        write: Writes it, and perhaps others beside it that it names, as a graph names the file of its weights.
        check: Looks at the written file; what it raises keeps all of them from being kept.

    Returns:
        The target.

    Raises:
        StoreError: It cannot be written.
    """
    folder = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    partial = folder / target.name
    try:
        folder.mkdir()
        write(partial)
        check(partial)
        for path in sorted(folder.iterdir(), key=lambda path: path == partial):  # what names the others comes last
            with path.open("r+b") as file:
                os.fsync(file.fileno())
            path.replace(target.parent / path.name)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{target} cannot be written: {error.strerror or error}", fix="check the folder") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def tail_nodes(model: Any, stop: Callable[[Any], bool]) -> frozenset[str]:
    """Names of the nodes between a graph's outputs and the first nodes above them that `stop` is true of.

    For an architecture's `float_nodes`: what turns a network's last maps into boxes and scores mixes pixels, fractions
    and logits in one tensor, for which no single scale is fine enough.

    Args:
        model: The graph (`onnx.ModelProto`), every node named.
        stop: Asked of each node; those that it is true of, and what lies above them, are left out.

    Returns:
        Names of nodes.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    waiting, found = [output.name for output in model.graph.output], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found and not stop(node):
            found.add(node.name)
            waiting += node.input
    return frozenset(found)
