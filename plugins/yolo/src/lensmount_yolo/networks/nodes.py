"""What a network is made of, as plain data: a tree of named parts with their settings.

The same tree comes from an official file's records (`records`), from the description in a safetensors file that
lensmount wrote, from bare tensors' names and shapes (`tensors`), or from a layer list (`layouts`); `assemble` turns
it into modules. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lensmount.errors import ModelFileError
from lensmount_reading import printable

_LARGEST_TEXT = 64_000_000
_DEEPEST = 40
_MOST_NODES = 200_000


@dataclass(frozen=True, slots=True)
class Node:
    """A module: its kind, its settings, and its parts under the names that their tensors have.

    Attributes:
        kind: Name of the block, or of the torch layer.
        settings: Numbers, flags, short strings, and tuples of numbers.
        parts: Submodules by name.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Node] = field(default_factory=dict)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for part in self.parts.values():
            yield from part.walk()


def to_json(node: Node) -> str:
    """A tree as text, for a file's metadata."""

    def plain(item: Node) -> list[Any]:
        return [item.kind, dict(item.settings), {name: plain(part) for name, part in item.parts.items()}]

    return json.dumps(plain(node), separators=(",", ":"))


def from_json(text: str) -> Node:
    """The tree of a text that `to_json` wrote.

    Raises:
        ModelFileError: The text is something else.
    """
    if len(text) > _LARGEST_TEXT:
        raise ModelFileError("the description of the network is too long", found=f"{len(text)} characters")
    budget = NodeBudget()

    def node(item: Any, depth: int) -> Node:
        budget.spend(depth)
        if not (
            isinstance(item, list)
            and len(item) == 3
            and isinstance(item[0], str)
            and isinstance(item[1], dict)
            and isinstance(item[2], dict)
        ):
            raise ModelFileError("the description of the network cannot be read", found=printable(item, 80))
        settings = {name: setting(value) for name, value in item[1].items()}
        return Node(item[0], settings, {name: node(part, depth + 1) for name, part in item[2].items()})

    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelFileError("the description of the network cannot be read", found=text[:80]) from None
    return node(tree, 0)


class NodeBudget:
    """Counts nodes, so that a file cannot describe a tree without end."""

    def __init__(self) -> None:
        self.count = 0

    def spend(self, depth: int) -> None:
        """Raises `ModelFileError` when the tree is too deep or too large."""
        self.count += 1
        if depth > _DEEPEST or self.count > _MOST_NODES:
            raise ModelFileError(
                "the file describes a network that is too deep or too large",
                found=f"level {depth}, part {self.count}",
                expected=f"{_DEEPEST} levels, {_MOST_NODES} parts at most",
            )


_DEEPEST_SETTING = 16


def setting(value: Any) -> Any:
    """A value that a setting may have; lists become tuples.

    Raises:
        ModelFileError: It is of another type, has more than a thousand parts, or nests deeply.
    """
    return _setting(value, iter(range(1000)))


def _setting(value: Any, left: Iterator[int], depth: int = 0) -> Any:
    # Lists that hold one another have few parts in a file, and no end here.
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 100):
        return value
    if (
        isinstance(value, list | tuple)
        and depth < _DEEPEST_SETTING
        and all(next(left, None) is not None for _ in value)
    ):
        return tuple(_setting(item, left, depth + 1) for item in value)
    raise ModelFileError("a setting of the network is of a type that none has", found=type(value).__name__)
