"""What an ONNX model says of itself, read from its protobuf without onnx or onnxruntime and without its weights.

Field numbers are those of `onnx.proto3` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

from lensmount.errors import UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.activations import Node, activation
from lensmount_reading.dtypes import DTYPES, ONNX_NAMES
from lensmount_reading.facts import Dimension, ExternalData, GraphValue, OnnxFacts, TensorFact
from lensmount_reading.mapped import MappedFile
from lensmount_reading.text import printable
from lensmount_reading.wire import BYTES, VARINT, Span, WireReader, signed

_NARROW_BITS = {"int4": 4, "uint4": 4, "float4_e2m1": 4, "int2": 2, "uint2": 2, "float6_e2m3": 6, "float6_e3m2": 6}
_MAX_DIMENSIONS = 64
_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})


def read_onnx(path: str | os.PathLike[str]) -> OnnxFacts:
    """Read an ONNX model's description; weights are skipped over, never loaded.

    Raises:
        ModelFileError: Missing, truncated, or no ONNX model.
        UnsafeFileError: Absurdly nested or with more fields than the limit.
    """
    return onnx_facts(MappedFile(path))


def onnx_facts(file: MappedFile) -> OnnxFacts:
    """Do what `read_onnx` does, on a mapped file."""
    return _Model(WireReader(file)).read((0, file.size))


class _Model:
    def __init__(self, wire: WireReader) -> None:
        self.wire = wire
        self.operators: dict[str, int] = {}
        self.domains: dict[str, None] = {}
        self.external: list[ExternalData] = []
        self.nodes: dict[str, Node] = {}

    def read(self, span: Span) -> OnnxFacts:
        ir_version, producer, graph = 0, ["", ""], None
        opsets: dict[str, int] = {}
        metadata: dict[str, str] = {}
        functions: list[str] = []
        for number, kind, start, stop in self.wire.fields(span):
            if number == 1 and kind == VARINT:
                ir_version = start
            elif kind != BYTES:
                continue
            elif number in (2, 3):
                producer[number - 2] = self.wire.text(start, stop)
            elif number == 7:
                if graph is not None:
                    self._unsafe("it has two graphs")
                graph = (start, stop)
            elif number == 8:
                domain, version = self._opset((start, stop))
                opsets[domain] = version
            elif number == 14:
                key, value = self._pair((start, stop))
                metadata[key] = value
            elif number == 20:
                for inner, inner_kind, begin, end in self.wire.fields((start, stop)):
                    if inner in (1, 2) and inner_kind == BYTES:
                        self._graph((begin, end), 1)
            elif number == 25:
                functions.append(self._function((start, stop)))
        if graph is None or not 1 <= ir_version <= 1000:
            self.wire.malformed("it has no graph or no format version")
        inputs, outputs, initializers = self._graph(graph, 0)
        custom = [name for name in (*opsets, *self.domains) if name not in _STANDARD_DOMAINS]
        return OnnxFacts(
            ir_version=ir_version,
            opsets={"" if domain == "ai.onnx" else domain: version for domain, version in opsets.items()},
            producer=" ".join(part for part in producer if part),
            metadata=metadata,
            inputs=tuple(value for value in inputs if value.name not in initializers),
            outputs=tuple(outputs),
            initializers=initializers,
            operators=dict(sorted(self.operators.items())),
            custom_domains=tuple(dict.fromkeys(custom)),
            functions=tuple(functions),
            external_data=tuple(self.external),
            activations={value.name: activation(self.nodes, value.name) for value in outputs},
        )

    # --- graphs, nodes, functions ----------------------------------------------------------------------------------

    def _graph(self, span: Span, depth: int) -> tuple[list[GraphValue], list[GraphValue], dict[str, TensorFact]]:
        if depth > limits.MAX_GRAPH_DEPTH:
            self._unsafe(f"its graphs nest deeper than {limits.MAX_GRAPH_DEPTH}")
        inputs: list[GraphValue] = []
        outputs: list[GraphValue] = []
        initializers: dict[str, TensorFact] = {}
        for number, start, stop in self._messages(span):
            if number == 1:
                self._node((start, stop), depth)
            elif number == 5:
                name, fact = self._tensor((start, stop))
                initializers[name] = fact
            elif number == 11:
                inputs.append(self._value((start, stop)))
            elif number == 12:
                outputs.append(self._value((start, stop)))
            elif number == 15:
                name, fact = self._sparse((start, stop))
                initializers[name] = fact
        return inputs, outputs, initializers

    def _node(self, span: Span, depth: int) -> None:
        operator = domain = ""
        names: tuple[list[str], list[str]] = ([], [])
        for number, start, stop in self._messages(span):
            if number in (1, 2) and depth == 0:
                names[number - 1].append(self.wire.text(start, stop))
            elif number == 4:
                operator = self.wire.text(start, stop)
            elif number == 7:
                domain = self.wire.text(start, stop)
            elif number == 5:
                self._attribute((start, stop), depth)
        if domain not in ("", "ai.onnx"):
            self.domains[domain] = None
            operator = f"{domain}::{operator}"
        self.operators[operator] = self.operators.get(operator, 0) + 1
        self.nodes.update((made, (operator, tuple(names[0]))) for made in names[1])

    def _attribute(self, span: Span, depth: int) -> None:
        single: set[int] = set()
        for number, start, stop in self._messages(span):
            if number in (5, 6, 22):
                # protobuf merges a message that occurs twice: a tensor could hide its parts in two.
                if number in single:
                    self._unsafe("an attribute has the same tensor or graph twice")
                single.add(number)
            if number in (5, 10):
                self._tensor((start, stop))
            elif number in (6, 11):
                self._graph((start, stop), depth + 1)
            elif number in (22, 23):
                self._sparse((start, stop))

    def _function(self, span: Span) -> str:
        name = domain = ""
        for number, start, stop in self._messages(span):
            if number == 1:
                name = self.wire.text(start, stop)
            elif number == 10:
                domain = self.wire.text(start, stop)
            elif number == 7:
                self._node((start, stop), 1)
            elif number == 11:
                self._attribute((start, stop), 1)
        return f"{domain}::{name}" if domain else name

    # --- tensors and types -----------------------------------------------------------------------------------------

    def _tensor(self, span: Span) -> tuple[str, TensorFact]:
        dims: list[int] = []
        name, code, outside = "", 0, False
        entries: list[tuple[str, str]] = []
        for number, kind, start, stop in self.wire.fields(span):
            if number == 1:
                self._sizes(dims, kind, start, stop)
            elif number == 2 and kind == VARINT:
                code = start
            elif number == 14 and kind == VARINT:
                outside = start == 1
            elif number == 8 and kind == BYTES:
                name = self.wire.text(start, stop)
            elif number == 13 and kind == BYTES:
                entries.append(self._pair((start, stop)))
        fact = TensorFact(tuple(dims), ONNX_NAMES.get(code, f"type {code}"))
        if outside or entries:
            self._note_external(name, fact, entries)
        return name, fact

    def _note_external(self, name: str, fact: TensorFact, entries: list[tuple[str, str]]) -> None:
        found = dict(entries)
        if len(found) != len(entries) or "location" not in found:
            self._unsafe(f"the external data of {printable(name)} has no location, or the same key twice")
        numbers: dict[str, int | None] = {"offset": None, "length": None}
        for key in numbers:
            text = found.get(key)
            if text is not None:
                if not (text.isascii() and text.isdigit() and len(text) < 20):
                    self._unsafe(f"the {key} of the external data of {printable(name)} is {printable(text)}")
                numbers[key] = int(text)
        self.external.append(
            ExternalData(name, found["location"], numbers["offset"] or 0, numbers["length"], self._nbytes(name, fact))
        )

    def _nbytes(self, name: str, fact: TensorFact) -> int:
        count = 1
        for size in fact.shape:
            count *= size
            if size < 0 or count >= 1 << 62:
                self._unsafe(f"the tensor {printable(name)} has the sizes {printable(fact.shape)}")
        row = DTYPES.get(fact.dtype)
        if row is not None:
            return count * row.itemsize
        return (count * _NARROW_BITS.get(fact.dtype, 8) + 7) // 8

    def _sizes(self, dims: list[int], kind: int, start: int, stop: int) -> None:
        dims.extend(map(signed, [start] if kind == VARINT else self.wire.packed(start, stop)))
        if len(dims) > _MAX_DIMENSIONS:
            self._unsafe(f"a tensor has more than {_MAX_DIMENSIONS} dimensions")

    def _sparse(self, span: Span) -> tuple[str, TensorFact]:
        name, dtype = "", "unknown"
        dims: list[int] = []
        for number, kind, start, stop in self.wire.fields(span):
            if number in (1, 2) and kind == BYTES:
                found, fact = self._tensor((start, stop))
                if number == 1:
                    name, dtype = found, fact.dtype
            elif number == 3:
                self._sizes(dims, kind, start, stop)
        return name, TensorFact(tuple(dims), dtype)

    def _value(self, span: Span) -> GraphValue:
        name, dtype = "", "unknown"
        shape: tuple[Dimension, ...] | None = None
        for number, start, stop in self._messages(span):
            if number == 1:
                name = self.wire.text(start, stop)
            elif number == 2:
                dtype, shape = self._type((start, stop))
        return GraphValue(name, dtype, shape or (), ranked=shape is not None)

    def _type(self, span: Span) -> tuple[str, tuple[Dimension, ...] | None]:
        others = {4: "sequence", 5: "map", 8: "sparse", 9: "optional"}
        dtype, shape = "unknown", None
        for number, start, stop in self._messages(span):
            if number == 1:
                for inner, kind, begin, end in self.wire.fields((start, stop)):
                    if inner == 1 and kind == VARINT:
                        dtype = ONNX_NAMES.get(begin, f"type {begin}")
                    elif inner == 2 and kind == BYTES:
                        shape = tuple(self._dimension((a, b)) for n, a, b in self._messages((begin, end)) if n == 1)
            elif number in others:
                dtype = others[number]
        return dtype, shape

    def _dimension(self, span: Span) -> Dimension:
        size: Dimension = None
        for number, kind, start, stop in self.wire.fields(span):
            if number == 1 and kind == VARINT:
                size = signed(start) if signed(start) >= 0 else None
            elif number == 2 and kind == BYTES:
                size = self.wire.text(start, stop) or None
        return size

    # --- small messages --------------------------------------------------------------------------------------------

    def _messages(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """Fields that are messages or strings; the others are skipped."""
        for number, kind, start, stop in self.wire.fields(span):
            if kind == BYTES:
                yield number, start, stop

    def _pair(self, span: Span) -> tuple[str, str]:
        found = {1: "", 2: ""}
        for number, start, stop in self._messages(span):
            if number in found:
                found[number] = self.wire.text(start, stop)
        return found[1], found[2]

    def _opset(self, span: Span) -> tuple[str, int]:
        domain, version = "", 0
        for number, kind, start, stop in self.wire.fields(span):
            if number == 1 and kind == BYTES:
                domain = self.wire.text(start, stop)
            elif number == 2 and kind == VARINT:
                version = signed(start)
        return domain, version

    def _unsafe(self, problem: str) -> NoReturn:
        raise UnsafeFileError(f"{self.wire.file.path} is refused: {problem}", fix="do not use this file")
