"""One number for a graph and the files that its tensors lie in, by which a server's model is known to be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

KEY = "lensmount_sha256"
"""Name of the parameter of a model's configuration that holds it."""


def digest(graph: Path, data: Iterable[tuple[str, Path]] = ()) -> str:
    """sha256 of a graph alone; with data files, sha256 over its own and theirs.

    Args:
        graph: The graph's file.
        data: Files that its tensors lie in, by the name that the graph gives them.
    """
    own = _of_file(graph)
    parts = [f"{name}\0{_of_file(path)}\n" for name, path in sorted(data)]
    return hashlib.sha256("".join([own, *parts]).encode()).hexdigest() if parts else own


def _of_file(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()
