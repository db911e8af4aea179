"""From bare tensors' names and shapes to the tree of the network that they are of.

For files that hold nothing else: state dicts and safetensors of other makers. Blocks are told by the names of their
parts (`shapes_of_blocks`), the way that rows are joined by the plan that all versions share (`topology`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from lensmount.errors import UnsupportedModelError
from lensmount_yolo.networks.nodes import Node
from lensmount_yolo.networks.shapes_of_blocks import Tree, block, head, is_head
from lensmount_yolo.networks.topology import join_rows, strides_of

V = TypeVar("V")
_NAME = re.compile(r"^(.*?)(model\.\d+\..+)$")


def official_names(tensors: Mapping[str, V]) -> dict[str, V]:
    """The tensors of one network, under names that start with `model.<row>.`.

    Prefixes of wrappers are taken off; of several copies the averaged one (`ema`) is preferred, else the largest.

    Raises:
        UnsupportedModelError: No tensor has such a name.
    """
    groups: dict[str, dict[str, V]] = {}
    for name, tensor in tensors.items():
        found = _NAME.match(name)
        if found:
            groups.setdefault(found[1], {})[found[2]] = tensor
    if not groups:
        raise UnsupportedModelError(
            "the file's tensors are not those of a YOLO",
            found=", ".join(list(tensors)[:3]) or "no tensors",
            expected="names such as model.0.conv.weight",
        )
    return groups[max(groups, key=lambda prefix: ("ema" in prefix, len(groups[prefix])))]


def is_of_network(name: str) -> bool:
    """Whether a tensor's name is that of a row of a network, in any of the copies that a file holds."""
    return _NAME.match(name) is not None


def looks_official(tensors: Mapping[str, Any]) -> bool:
    """Whether tensors (anything with a `shape`, by name) are those of a YOLO."""
    try:
        named = official_names(tensors)
    except UnsupportedModelError:
        return False
    stem = named.get("model.0.conv.weight", named.get("model.1.conv.weight"))
    if stem is None or len(stem.shape) != 4:
        return False
    last = max(int(name.split(".")[1]) for name in named)
    return is_head(_tree({name: tuple(t.shape) for name, t in named.items()}).get(last, {}))


def measure(shapes: Mapping[str, Sequence[int]], keypoints: tuple[int, int] | None = None) -> Node:
    """The network that tensors fit.

    Args:
        shapes: Shapes by official name (`model.0.conv.weight`).
        keypoints: `(count, values)` of a pose head, where the file says it.

    Raises:
        UnsupportedModelError: They are not those of a version that is known here.
    """
    trees = _tree(shapes)
    if not trees:
        raise UnsupportedModelError("the file's tensors are not those of a YOLO", found="no rows")
    last = max(trees)
    try:
        rows = [block(trees[row], row) if row in trees else None for row in range(last)]
        top = head(trees[last], keypoints)
        rows_joined, sources = join_rows(rows, top)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, RecursionError) as error:
        raise UnsupportedModelError(
            "the file's tensors are not those of a YOLO version that is known here",
            found=str(error)[:200],
            fix="export it to ONNX where it was trained, and load that",
        ) from error
    parts = {str(index): row for index, row in enumerate(rows_joined)}
    parts[str(last)] = Node(top.kind, {**top.settings, "strides": strides_of(rows_joined, sources)}, top.parts)
    if top.kind == "Classify":
        parts = {name: _with_default_norm(part) for name, part in parts.items()}
    return Node("Network", {"sources": tuple(sources)}, parts)


def _with_default_norm(node: Node) -> Node:
    """Classifiers normalise with torch's own settings, detectors do not."""
    settings = {**node.settings, "eps": 1e-5, "momentum": 0.1} if node.kind == "BatchNorm2d" else node.settings
    return Node(node.kind, settings, {name: _with_default_norm(part) for name, part in node.parts.items()})


def _tree(shapes: Mapping[str, Sequence[int]]) -> dict[int, Tree]:
    """Rows by number; below, dicts by part of the name, with shapes as leaves."""
    rows: dict[int, Tree] = {}
    for name, shape in shapes.items():
        _, row, *path = name.split(".")
        place: Tree = rows.setdefault(int(row), {})
        for part in path[:-1]:
            below = place.setdefault(part, {})
            if not isinstance(below, dict):
                break
            place = below
        else:
            place[path[-1]] = tuple(shape)
    return rows
