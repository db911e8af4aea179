"""TFLite graphs, read without a runtime: tensors, operators and options, as the schema of version 3 numbers them.

The schema is TensorFlow's `lite/schema/schema.fbs` (Apache-2.0); the numbers of its fields and operators are facts of
the format. Metadata that ultralytics' exports carry is JSON in a zip archive behind the graph.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import limits
from lensmount_reading.flatbuffer import Table
from lensmount_reading.mapped import MappedFile
from lensmount_reading.text import printable

if TYPE_CHECKING:
    import numpy as np

IDENTIFIER = b"TFL3"
_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 8: "complex64", 9: "int8",
    10: "float64", 12: "uint64", 15: "uint32", 16: "uint16",
}  # fmt: skip
_OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 5: "DEPTH_TO_SPACE",
    6: "DEQUANTIZE", 8: "FLOOR", 9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION", 14: "LOGISTIC", 17: "MAX_POOL_2D",
    18: "MUL", 19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 25: "SOFTMAX",
    26: "SPACE_TO_DEPTH", 28: "TANH", 34: "PAD", 36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 42: "DIV",
    43: "SQUEEZE", 45: "STRIDED_SLICE", 47: "EXP", 49: "SPLIT", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 57: "MINIMUM",
    59: "NEG", 60: "PADV2", 65: "SLICE", 67: "TRANSPOSE_CONV", 70: "EXPAND_DIMS", 74: "SUM", 75: "SQRT", 76: "RSQRT",
    77: "SHAPE", 78: "POW", 83: "PACK", 88: "UNPACK", 97: "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU",
    99: "SQUARED_DIFFERENCE", 100: "MIRROR_PAD", 101: "ABS", 102: "SPLIT_V", 114: "QUANTIZE", 117: "HARD_SWISH",
    124: "DENSIFY", 126: "BATCH_MATMUL", 150: "GELU",
}  # fmt: skip
_METADATA = ("metadata.json", "temp_meta.txt")


@dataclass(frozen=True)
class Quantisation:
    """How whole numbers stand for real ones: `real = scale * (number - zero_point)`.

    Attributes:
        scales: One, or one for each index of `axis`.
        zero_points: As many.
        axis: Dimension that they go along where there are several.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class TfliteTensor:
    """A value of a graph.

    Attributes:
        index: Its number.
        name: Its name; not unique.
        shape: Sizes; -1 where a size is free.
        dtype: numpy's name.
        quantisation: None for real numbers.
        sparse: Whether constant data are stored sparsely.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantisation: Quantisation | None = None
    sparse: Sparsity | None = None


@dataclass(frozen=True)
class Sparsity:
    """Which entries a sparse constant stores (the schema's `SparsityParameters`).

    Attributes:
        order: Order in which dimensions, then blocks, are walked.
        blocks: Dimensions that are cut into blocks.
        levels: For each of `order`: the size of a dense one, or `(segments, indices)` of a compressed one.
    """

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[int | tuple[tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True)
class TfliteOperator:
    """One step of a graph.

    Attributes:
        kind: The schema's name (`CONV_2D`), `CUSTOM:name`, or `BUILTIN:number` of one that is not known here.
        inputs: Numbers of its input tensors; -1 for one that is left out.
        outputs: Numbers of its output tensors.
        options: Its table of options, by field number; None where it has none.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class TfliteModel:
    """A TFLite file of one graph.

    Attributes:
        path: The file.
        description: What wrote it.
        tensors: All values, by number.
        inputs: Numbers of the inputs.
        outputs: Numbers of the outputs.
        operators: The steps, in order.
        metadata: Texts that ultralytics' exports carry.
    """

    path: Path
    description: str
    tensors: tuple[TfliteTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[TfliteOperator, ...]
    metadata: Mapping[str, str]
    _file: MappedFile = field(repr=False, compare=False)
    _spans: tuple[tuple[int, int], ...] = field(repr=False, compare=False)

    def unique_names(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """Printable names of tensors, each once: those that several have, or none, get their numbers behind them."""
        names = [self.tensors[number].name for number in numbers]
        single = [name if name and names.count(name) == 1 else "" for name in names]
        return tuple(
            printable(one or f"{name}:{number}") for one, name, number in zip(single, names, numbers, strict=True)
        )

    def is_constant(self, index: int) -> bool:
        """Whether the file holds the tensor's data."""
        return self._spans[index][1] > 0

    def constant(self, index: int) -> np.ndarray[Any, np.dtype[Any]] | None:
        """The data of a constant, dense, in its shape; None for a tensor that is computed.

        Raises:
            ModelFileError: The data are not as many as the shape asks for.
        """
        import numpy as np

        tensor = self.tensors[index]
        start, size = self._spans[index]
        if not size:
            return None
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        if size % dtype.itemsize:
            raise self._wrong(tensor, f"{size} bytes")
        stored: np.ndarray[Any, np.dtype[Any]] = self._file.array(start, size // dtype.itemsize * dtype.itemsize).view(
            dtype
        )
        if tensor.sparse is not None:
            stored = self._dense(tensor, tensor.sparse, stored)
        if stored.size != math.prod(tensor.shape):
            raise self._wrong(tensor, f"{stored.size} numbers")
        return stored.reshape(tensor.shape)

    def _dense(self, tensor: TfliteTensor, how: Sparsity, stored: Any) -> Any:
        """Puts stored entries to their places: levels are walked in `order`, each dense or compressed by rows."""
        import numpy as np

        rank = len(tensor.shape)
        extents = list(tensor.shape)
        sizes = {axis: level for axis, level in zip(how.order, how.levels, strict=True) if isinstance(level, int)}
        for block, axis in enumerate(how.blocks):
            extents[axis] //= max(sizes.get(rank + block, 1), 1)
        places: list[list[Any]] = []
        parents = np.zeros(1, np.int64)
        coordinates: list[Any] = []
        # Every entry is stored, or ends in a row of a compressed level: no honest file unfolds to more than it holds.
        most = max(stored.size, *(0 if isinstance(level, int) else len(level[0]) for level in how.levels))
        for level in how.levels:
            if isinstance(level, int):
                if not 0 <= len(parents) * level <= min(most, math.prod(tensor.shape)):
                    raise self._wrong(tensor, "sparse data outside the shape")
                at = np.tile(np.arange(level), len(parents))
                coordinates = [np.repeat(c, level) for c in coordinates]
                parents = (parents[:, None] * level + np.arange(level)).reshape(-1)
            else:
                if any(len(part) > stored.size + len(parents) for part in level):
                    raise self._wrong(tensor, "sparse rows that do not fit")
                segments, indices = (np.asarray(part, np.int64) for part in level)
                if len(segments) < len(parents) + 1 or (np.diff(segments) < 0).any() or segments[-1] > len(indices):
                    raise self._wrong(tensor, "sparse rows that do not fit")
                counts = np.diff(segments)[parents]
                coordinates = [np.repeat(c, counts) for c in coordinates]
                at = np.concatenate([indices[segments[p] : segments[p + 1]] for p in parents] or [indices[:0]])
                parents = np.concatenate([np.arange(segments[p], segments[p + 1]) for p in parents] or [indices[:0]])
            coordinates.append(at)
        places = [[c for a, c in zip(how.order, coordinates, strict=True) if a == axis] for axis in range(rank)]
        if any(len(found) != 1 for found in places) or len(parents) > stored.size:
            raise self._wrong(tensor, "sparse data that do not fit")
        index = [found[0] for found in places]
        for block, axis in enumerate(how.blocks):
            inner = coordinates[how.order.index(rank + block)]
            index[axis] = index[axis] * sizes.get(rank + block, 1) + inner
        if any(((at < 0) | (at >= size)).any() for at, size in zip(index, tensor.shape, strict=True)):
            raise self._wrong(tensor, "sparse data outside the shape")
        dense = np.zeros(tensor.shape, stored.dtype)
        dense[tuple(index)] = stored[parents]
        return dense

    def _wrong(self, tensor: TfliteTensor, found: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path}: the data of {printable(tensor.name)} do not fit",
            found=found,
            expected=f"{tensor.dtype} {tensor.shape}",
            fix="download it again",
        )


def read_tflite(path: str | os.PathLike[str], *, content: bytes | None = None) -> TfliteModel:
    """Reads the structure of a TFLite file; no constant is touched before it is asked for.

    Args:
        path: The file.
        content: Its bytes, for a caller who runs just these; the file is then not opened.

    Raises:
        ModelFileError: Not a whole TFLite file.
        UnsafeFileError: Sizes that no honest file has.
        UnsupportedModelError: Another version of the format, several graphs, or an element type that is not read.
    """
    return _read(MappedFile(path, content))


def is_tflite(file: MappedFile) -> bool:
    """Whether the file carries the format's identifier."""
    return file.size >= 8 and bytes(file.data[4:8]) == IDENTIFIER


def _read(file: MappedFile) -> TfliteModel:
    if not is_tflite(file):
        raise ModelFileError(f"{file.path} is no TFLite model", found=repr(bytes(file.data[:8])), expected="TFL3")
    root = Table.root(file)
    version = root.integer(0, "uint32")
    if version != 3:
        raise UnsupportedModelError(f"{file.path} has another version of TFLite", found=str(version), expected="3")
    graphs = list(root.tables(2))
    if len(graphs) != 1:
        raise UnsupportedModelError(f"{file.path} has several graphs", found=str(len(graphs)), expected="one")
    kinds = [_kind(code) for code in root.tables(1)]
    buffers = [_span(file, buffer) for buffer in root.tables(4)]
    graph = graphs[0]
    tensors, spans = [], []
    for index, table in enumerate(graph.tables(0)):
        tensors.append(_tensor(file, index, table))
        buffer = table.integer(2, "uint32")
        if buffer and buffer >= len(buffers):
            raise _damaged(file, f"tensor {index} has its data in buffer {buffer} of {len(buffers)}")
        spans.append(buffers[buffer] if buffer else (0, 0))
    operators = tuple(_operator(file, table, kinds, len(tensors)) for table in graph.tables(3))
    ends = [graph.integers(1), graph.integers(2)]
    for numbers in ends:
        if not numbers or any(not 0 <= number < len(tensors) for number in numbers):
            raise _damaged(file, "its inputs or outputs are no tensors of it")
    return TfliteModel(
        file.path,
        printable(root.text(3)),
        tuple(tensors),
        ends[0],
        ends[1],
        operators,
        _metadata(file),
        file,
        tuple(spans),
    )


def _kind(code: Table) -> str:
    number = max(code.integer(0, "int8"), code.integer(3))
    if number == 32:
        return f"CUSTOM:{printable(code.text(1), 60)}"
    return _OPERATORS.get(number, f"BUILTIN:{number}")


def _span(file: MappedFile, buffer: Table) -> tuple[int, int]:
    start, size = buffer.span(0)
    outside = buffer.integer(1, "uint64")
    if outside > 1:  # 0 and 1 say that the data lie in the buffer itself
        start, size = outside, buffer.integer(2, "uint64")
        if start + size > file.size:
            raise _damaged(file, "a buffer ends after the file")
    return start, size


def _tensor(file: MappedFile, index: int, table: Table) -> TfliteTensor:
    name = table.text(3)
    number = table.integer(1, "int8")
    if number not in _DTYPES:
        raise UnsupportedModelError(
            f"{file.path}: tensor {printable(name)} has an element type that is not read", found=f"type {number}"
        )
    shape = table.integers(0)
    free = table.integers(7)
    if len(free) == len(shape):
        shape = tuple(-1 if wish == -1 else size for wish, size in zip(free, shape, strict=True))
    sizes = [size for size in shape if size != -1]
    if len(shape) > limits.MAX_DIMENSIONS or min(sizes, default=0) < 0 or math.prod(sizes) > limits.MAX_INPUT_ELEMENTS:
        raise UnsafeFileError(
            f"{file.path} is refused: {printable(name)} has the shape {shape[:9]}", fix="do not use it"
        )
    return TfliteTensor(index, name, shape, _DTYPES[number], _quantisation(file, table.table(4)), _sparse(table))


def _quantisation(file: MappedFile, table: Table | None) -> Quantisation | None:
    if table is None:
        return None
    scales = tuple(float(scale) for scale in table.numbers(2, "float32"))
    points = tuple(int(point) for point in table.numbers(3, "int64"))
    if not scales:
        return None
    points = points or (0,) * len(scales)
    if len(points) != len(scales) or not all(math.isfinite(scale) for scale in scales):
        raise _damaged(file, f"{len(scales)} scales and {len(points)} zero points")
    return Quantisation(scales, points, table.integer(6))


def _sparse(tensor: Table) -> Sparsity | None:
    table = tensor.table(6)
    if table is None:
        return None
    levels: list[int | tuple[tuple[int, ...], tuple[int, ...]]] = []
    for level in table.tables(2):
        if level.integer(0, "int8") == 0:
            levels.append(level.integer(1))
            continue
        parts = []
        for kind, values in ((2, 3), (4, 5)):
            form = {1: "int32", 2: "uint16", 3: "uint8"}.get(level.integer(kind, "uint8"), "int32")
            vector = level.table(values)
            parts.append(tuple(int(v) for v in vector.numbers(0, form)) if vector else ())
        levels.append((parts[0], parts[1]))
    order = table.integers(0)
    return Sparsity(order, table.integers(1), tuple(levels)) if len(order) == len(levels) else None


def _operator(file: MappedFile, table: Table, kinds: list[str], count: int) -> TfliteOperator:
    code = table.integer(0, "uint32")
    inputs, outputs = table.integers(1), table.integers(2)
    if code >= len(kinds) or any(not -1 <= i < count for i in inputs) or any(not 0 <= o < count for o in outputs):
        raise _damaged(file, "an operator has a number that stands for nothing")
    return TfliteOperator(kinds[code], inputs, outputs, table.table(4))


def _metadata(file: MappedFile) -> dict[str, str]:
    """The JSON of a zip archive behind the graph, as texts; nothing where there is none."""
    import io
    import zipfile

    tail = file.data[max(0, file.size - limits.MAX_TEXT_ENTRY) :]
    if b"PK\x05\x06" not in tail:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(tail)) as archive:
            names = [name for name in archive.namelist() if name.rpartition("/")[2] in _METADATA]
            if not names or archive.getinfo(names[0]).file_size > limits.MAX_TEXT_ENTRY:
                return {}
            found = json.loads(archive.read(names[0]))
    except (zipfile.BadZipFile, ValueError, OSError, RecursionError, NotImplementedError, EOFError, RuntimeError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def _damaged(file: MappedFile, problem: str) -> ModelFileError:
    return ModelFileError(f"{file.path} is no whole TFLite model: {problem}", fix="download it again")
