"""What every exporter does with a graph once it is made: describe it, check it, keep it whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
    """Writes next to the target, checks, renames: the file is complete and right, or not there.

    Args:
        data: The file's content, or what writes it to a path.
        target: Where it goes.
        check: Looks at the written file; what it raises keeps the file from being kept.

    Returns:
        The target.

    Raises:
        StoreError: It cannot be written.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        if callable(data):
            data(partial)
        with partial.open("rb+" if callable(data) else "xb") as file:
            if not callable(data):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check(partial)
        partial.replace(target)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{target} cannot be written: {error.strerror or error}", fix="check the folder") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
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
