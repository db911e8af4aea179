"""TFLite files written byte by byte, so that tests know what is in them and can make every kind of wrong one."""

from __future__ import annotations

import struct

import numpy as np

DTYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}


class Scalar:
    """A scalar field."""

    def __init__(self, form, value):
        self.form, self.value = form, value


def i8(value):
    return Scalar("b", value)


def u32(value):
    return Scalar("I", value)


def i32(value):
    return Scalar("i", value)


class Ints(list):
    """A vector of 32-bit integers."""


class Floats(list):
    """A vector of float32."""


class Longs(list):
    """A vector of int64."""


class Writer:
    """Writes FlatBuffers forwards: a table first, then what it points to."""

    def __init__(self):
        self.data = bytearray()

    def pad(self, align):
        while len(self.data) % align:
            self.data.append(0)

    def point(self, at):
        struct.pack_into("<I", self.data, at, len(self.data) - at)

    def table(self, fields):
        """Writes `{number: value}`; returns where the table begins."""
        sizes = {"b": 1, "B": 1, "?": 1, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}
        offsets, size = {}, 4
        for number, value in sorted(fields.items()):
            width = sizes[value.form] if isinstance(value, Scalar) else 4
            size += -(size + 4) % width if width == 8 else -size % width
            offsets[number] = size
            size += width
        count = max(fields, default=-1) + 1
        self.pad(8)
        if (len(self.data) + 4 + 2 * count) % 8 != 4:  # the table's 8-byte fields are aligned as if it began at 4
            self.data += bytes(-(len(self.data) + 4 + 2 * count - 4) % 8)
        vtable = len(self.data)
        self.data += struct.pack("<HH", 4 + 2 * count, size)
        self.data += b"".join(struct.pack("<H", offsets.get(number, 0)) for number in range(count))
        start = len(self.data)
        self.data += struct.pack("<i", start - vtable) + bytes(size - 4)
        later = []
        for number, value in fields.items():
            at = start + offsets[number]
            if isinstance(value, Scalar):
                struct.pack_into("<" + value.form, self.data, at, value.value)
            else:
                later.append((at, value))
        for at, value in later:
            self.value(at, value)
        return start

    def value(self, at, value):
        if isinstance(value, dict):
            start = self.table(value)
            struct.pack_into("<I", self.data, at, start - at)
            return
        self.pad(16)
        if isinstance(value, (bytes, np.ndarray)):
            raw = value if isinstance(value, bytes) else value.tobytes()
            self.data += bytes(12)  # the length stands right before data that are aligned to 16
            self.point(at)
            self.data += struct.pack("<I", len(raw)) + raw
        elif isinstance(value, str):
            self.point(at)
            self.data += struct.pack("<I", len(value.encode())) + value.encode() + b"\0"
        elif isinstance(value, Longs):
            self.data += bytes(4)
            self.point(at)
            self.data += struct.pack(f"<I{len(value)}q", len(value), *value)
        elif isinstance(value, (Ints, Floats)):
            self.point(at)
            form = "i" if isinstance(value, Ints) else "f"
            self.data += struct.pack(f"<I{len(value)}{form}", len(value), *value)
        else:
            self.point(at)
            self.data += struct.pack("<I", len(value)) + bytes(4 * len(value))
            first = len(self.data) - 4 * len(value)
            for index, item in enumerate(value):
                self.value(first + 4 * index, item)


class Graph:
    """A graph that is built step by step; `write` gives the file's bytes."""

    def __init__(self):
        self.tensors, self.buffers, self.operators, self.codes = [], [b""], [], []
        self.inputs, self.outputs = [], []

    def tensor(self, shape, dtype="float32", *, name="", data=None, free=None, scale=None, zero=None, **fields):
        """Adds a tensor; returns its number."""
        buffer = 0
        if data is not None:
            buffer = len(self.buffers)
            self.buffers.append(np.ascontiguousarray(data).tobytes() if not isinstance(data, bytes) else data)
        made = {0: Ints(shape), 1: i8(DTYPES.get(dtype, dtype)), 2: u32(buffer), 3: name or f"t{len(self.tensors)}"}
        if free is not None:
            made[7] = Ints(free)
        if scale is not None:
            scales = np.atleast_1d(scale)
            made[4] = {2: Floats(scales.tolist()), 3: Longs(np.broadcast_to(zero or 0, scales.shape).tolist())}
        self.tensors.append({**made, **{int(k[1:]): v for k, v in fields.items()}})
        return len(self.tensors) - 1

    def constant(self, array, **options):
        array = np.asarray(array)
        return self.tensor(array.shape, str(array.dtype), data=array, **options)

    def operator(self, code, inputs, outputs, options=None, *, kind=1):
        """Adds a step by its builtin code; `kind` is the number of its options' table in the schema's union."""
        if code not in self.codes:
            self.codes.append(code)
        made = {0: u32(self.codes.index(code)), 1: Ints(inputs), 2: Ints(outputs)}
        if options is not None:
            made |= {3: Scalar("B", kind), 4: options}
        self.operators.append(made)

    def write(self, *, version=3, graphs=1, identifier=b"TFL3"):
        """The whole file."""
        graph = {0: self.tensors, 1: Ints(self.inputs), 2: Ints(self.outputs), 3: self.operators, 4: "main"}
        codes = [{0: i8(min(code, 127)), 2: i32(1), 3: i32(code)} for code in self.codes]
        buffers = [{0: data} if data else {} for data in self.buffers]
        writer = Writer()
        writer.data += bytes(4) + identifier
        start = writer.table({0: u32(version), 1: codes, 2: [graph] * graphs, 3: "made for a test", 4: buffers})
        struct.pack_into("<I", writer.data, 0, start)
        return bytes(writer.data)


def convolution(*, size=8, channels=4, seed=0, dtype="float32"):
    """A picture of 3 channels -> convolution of stride 2 with RELU -> `(1, size / 2, size / 2, channels)`."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    x = graph.tensor((1, size, size, 3), name="input")
    weights = rng.normal(size=(channels, 3, 3, 3)).astype(dtype)
    kernel = graph.constant(weights, name="kernel")
    if dtype == "float16":
        wide = graph.tensor(weights.shape, name="kernel32")
        graph.operator(6, [kernel], [wide])
        kernel = wide
    bias = graph.constant(rng.normal(size=channels).astype(np.float32), name="bias")
    y = graph.tensor((1, size // 2, size // 2, channels), name="output")
    graph.operator(3, [x, kernel, bias], [y], {0: i8(0), 1: i32(2), 2: i32(2), 3: i8(1)})
    graph.inputs, graph.outputs = [x], [y]
    return graph
