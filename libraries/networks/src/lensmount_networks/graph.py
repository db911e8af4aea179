"""A graph that is written while a network runs on its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.contracts import GraphNetwork, TensorSpec
from lensmount_networks.sizes import AnySize, Size
from lensmount_networks.values import Value
from lensmount_networks.writer import Node, little_endian, model_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

EMBEDDED = 1024
"""Constants of at most so many bytes lie in the graph itself: sizes, axes, factors, which runtimes look at."""

LOCATION = "weights"
"""Where constants that are handed over by name are said to lie; no such file is ever opened."""

ALIGNMENT = 64
"""Bytes that the offset of a constant in a data file is a multiple of."""

Fold = Callable[..., Any]


class Graph:
    """Nodes and constants of a graph in the making. Equal nodes on equal inputs are written once.

    Args:
        reserved: Names of outputs, which nothing else may have.

    Attributes:
        nodes: In the order in which they run.
        reshaped: What a value is another shape of, by its name.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.nodes: list[Node] = []
        self.reshaped: dict[str, Value] = {}
        self._inputs: list[TensorSpec] = []
        self._used: dict[str, NDArray[Any]] = {}
        self._made: dict[Any, Any] = {}
        self._names = set(reserved)

    def input(self, spec: TensorSpec) -> Value:
        """Declares an input; a text in its shape names a free axis."""
        self._inputs.append(spec)
        self._names.add(spec.name)
        value = Value(self, spec.name, (), spec.dtype)
        value.shape = tuple(
            size if isinstance(size, int) else self.free(str(size), value, axis) for axis, size in enumerate(spec.shape)
        )
        return value

    def free(self, text: str, value: Value, axis: int) -> Size:
        """The size of an axis of a value, by name."""
        make = self._made.setdefault(
            ("size", text), lambda: self.add("Shape", [value], (1,), "int64", start=axis, end=axis + 1)
        )
        return Size(text, make)

    def constant(self, array: Any, name: str = "constant") -> Value:
        """A constant; it is written where a node uses it."""
        values = np.asarray(array)
        return Value(self, self._unique(name), values.shape, str(values.dtype), values)

    def integers(self, numbers: Sequence[int]) -> Value:
        """An int64 tensor `(n,)` of known numbers."""
        key = ("integers", tuple(numbers))
        if key not in self._made:
            self._made[key] = self.constant(np.array(numbers, np.int64), "integers")
        made: Value = self._made[key]
        return made

    def scalar(self, number: float, dtype: str) -> Value:
        """A number as a tensor without axes."""
        key = ("scalar", repr(number), dtype)
        if key not in self._made:
            self._made[key] = self.constant(np.array(number, dtype), "number")
        made: Value = self._made[key]
        return made

    def sizes(self, shape: Sequence[AnySize]) -> Value:
        """An int64 tensor `(n,)` of sizes, free ones among them perhaps."""
        if all(isinstance(size, int) for size in shape):
            return self.integers([int(size) for size in shape])
        parts = [size.value() if isinstance(size, Size) else self.integers([size]) for size in shape]
        return parts[0] if len(parts) == 1 else self.add("Concat", parts, (len(parts),), "int64", axis=0)

    def add(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        shape: Sequence[AnySize] | None = None,
        dtype: str | None = None,
        fold: Fold | None = None,
        **more: Any,
    ) -> Value:
        """Appends a node with one output.

        Args:
            operator: ONNX's name of it.
            inputs: What goes in; None for an optional input that is left out.
            shape: Of the output; None for that of the first input.
            dtype: Of the output; None for that of the first input.
            fold: Computes it from arrays: used, and no node written, where all inputs are constants.
            more: Attributes of the node.
        """
        given = [value for value in inputs if value is not None]
        if fold is not None and all(value.array is not None for value in given):
            return self.constant(fold(*(value.array for value in given)), given[0].name)
        (made,) = self.add_many(operator, inputs, [(given[0].shape if shape is None else shape, dtype)], **more)
        return made

    def add_many(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[tuple[Sequence[AnySize], str | None]],
        **more: Any,
    ) -> list[Value]:
        """Appends a node with several outputs, each a shape and a dtype; see `add`."""
        names = tuple("" if value is None else value.name for value in inputs)
        key = (operator, names, tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in more.items()))
        if key not in self._made:
            first = next(value for value in inputs if value is not None)
            for value in inputs:
                if value is not None and value.array is not None:
                    self._used[value.name] = value.array
            made = [Value(self, self._unique(operator.lower()), tuple(s), d or first.dtype) for s, d in outputs]
            self.nodes.append(Node(operator, names, tuple(value.name for value in made), more))
            self._made[key] = made
        found: list[Value] = self._made[key]
        return found

    def finish(
        self, results: Sequence[Value], outputs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
    ) -> GraphNetwork:
        """The graph as a file's bytes, and the larger constants, which do not lie in it.

        Args:
            results: What the network returned.
            outputs: Their names, and the shapes that the file declares.
            metadata: Texts to embed.

        Raises:
            ValueError: The network's results are not what `outputs` declares.
        """
        nodes = self._named(results, outputs)
        large = {name: np.ascontiguousarray(a) for name, a in self._used.items() if a.nbytes > EMBEDDED}
        external = dict.fromkeys(large, (LOCATION, 0))
        chunks = model_chunks(nodes, self._inputs, outputs, {**self._used, **large}, metadata, external=external)
        return GraphNetwork(model=b"".join(chunks), initializers=large)

    def save(
        self,
        path: Path,
        results: Sequence[Value],
        outputs: Sequence[TensorSpec],
        metadata: Mapping[str, str] | None = None,
        *,
        most: int,
    ) -> None:
        """Writes the graph to a file; the arguments are those of `finish`.

        Args:
            path: The file. Constants that are too large for it go to one beside it, with `.data` behind its name.
            results: See `finish`.
            outputs: See `finish`.
            metadata: See `finish`.
            most: Bytes of constants that may lie in the file itself; protobuf ends at 2 GB.
        """
        nodes = self._named(results, outputs)
        external: dict[str, tuple[str, int]] = {}
        if sum(array.nbytes for array in self._used.values()) > most:
            end = 0
            with path.with_name(path.name + ".data").open("wb") as file:
                for name, array in self._used.items():
                    if array.nbytes > EMBEDDED:
                        file.write(bytes(-end % ALIGNMENT))
                        external[name] = (path.name + ".data", file.tell())
                        file.write(little_endian(array).reshape(-1).view(np.uint8).data)
                        end = file.tell()
        with path.open("wb") as file:
            for chunk in model_chunks(nodes, self._inputs, outputs, self._used, metadata, external=external):
                file.write(chunk)

    def _named(self, results: Sequence[Value], outputs: Sequence[TensorSpec]) -> list[Node]:
        """The nodes with the outputs under their own names."""
        if len(results) != len(outputs):
            raise ValueError(f"the network gives {len(results)} outputs, {len(outputs)} are declared")
        renamed: dict[str, str] = {}
        copies: list[Node] = []
        inputs = {spec.name for spec in self._inputs}
        for value, spec in zip(results, outputs, strict=True):
            pairs = zip(value.shape, spec.shape, strict=False)
            fits = len(value.shape) == len(spec.shape) and value.dtype == spec.dtype
            if not fits or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
                raise ValueError(f"output {spec.name!r} is {value.dtype} {value.shape}, declared is {spec}")
            if value.array is not None:
                self._used[value.name] = value.array
            if value.array is not None or value.name in inputs or value.name in renamed:
                copies.append(Node("Identity", (renamed.get(value.name, value.name),), (spec.name,)))
            else:
                renamed[value.name] = spec.name
        nodes = [
            replace(
                node,
                inputs=tuple(renamed.get(name, name) for name in node.inputs),
                outputs=tuple(renamed.get(name, name) for name in node.outputs),
            )
            for node in self._needed({value.name for value in results})
        ]
        return nodes + copies

    def _needed(self, wanted: set[str]) -> list[Node]:
        """The nodes that the outputs come from; constants of all others are forgotten."""
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.outputs):
                kept.append(node)
                wanted.update(node.inputs)
        self._used = {name: array for name, array in self._used.items() if name in wanted}
        return kept[::-1]

    def _unique(self, name: str) -> str:
        if name not in self._names:
            self._names.add(name)
            return name
        number = self._made.get(("number", name), 1)
        while f"{name}.{number}" in self._names:
            number += 1
        self._made[("number", name)] = number + 1
        self._names.add(f"{name}.{number}")
        return f"{name}.{number}"
