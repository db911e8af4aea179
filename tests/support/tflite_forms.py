"""The conformance kit's graphs as TFLite files, for backends of that format."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

from tflite_bytes import Graph, Scalar, i8, i32


class _Form(Graph):
    """A graph whose edges have the sizes of a kit's graph: free ones are 1 in the file."""

    def value(self, shape, dtype="float32", name=""):
        free = [-1 if isinstance(size, str) else size for size in shape]
        return self.tensor([max(size, 1) for size in free], dtype, name=name, free=free if min(free) < 0 else None)

    def step(self, code, inputs, shape, options=None, kind=None, dtype="float32", name=""):
        made = self.value(shape, dtype, name)
        self.operator(code, inputs, [made], options, kind=kind)
        return made

    def turned(self, x, order, shape, name=""):
        return self.step(39, [x, self.constant(np.array(order, np.int32))], shape, {}, 26, name=name)


def _scale(form, graph):
    (x,) = form.inputs
    shape = graph.inputs[0].shape
    doubled = form.step(18, [x, form.constant(np.float32(2))], shape, {}, 21)
    shifted = form.step(41, [doubled, form.constant(np.float32(1))], shape, {}, 28)
    scaled = form.step(19, [shifted], shape, name="scaled")
    axes = form.constant(np.array([2, 3], np.int32))
    return [scaled, form.step(40, [scaled, axes], shape[:2], {}, 27, name="mean")]


def _convolution(form, graph):
    (x,) = form.inputs
    last = form.turned(x, (0, 2, 3, 1), ("batch", 8, 8, 3))
    around = form.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    padded = form.step(34, [last, around], ("batch", 10, 10, 3), {}, 22)
    kernel = form.constant(np.ascontiguousarray(graph.tensors["kernel"].transpose(0, 2, 3, 1)))
    options = {0: i8(1), 1: i32(2), 2: i32(2)}
    raw = form.step(3, [padded, kernel, form.constant(np.zeros(4, np.float32))], ("batch", 4, 4, 4), options, 1)
    return [form.turned(form.step(14, [raw], ("batch", 4, 4, 4)), (0, 3, 1, 2), ("batch", 4, 4, 4), "maps")]


def _uint8(form, graph):
    (x,) = form.inputs
    options = {0: i8(3), 1: i8(0)}
    floats = form.step(53, [x], ("batch", 8, 8, 3), options, 37)
    turned = form.turned(floats, (0, 3, 1, 2), ("batch", 3, 8, 8))
    return [form.step(18, [turned, form.constant(np.float32(2))], ("batch", 3, 8, 8), {}, 21, name="planes")]


def _int64(form, graph):
    (x,) = form.inputs
    three, seven = form.constant(np.int64(3)), form.constant(np.int64(7))
    tripled = form.step(18, [x, three], ("batch", 5), {}, 21, "int64")
    return [form.step(41, [tripled, seven], ("batch", 5), {}, 28, "int64", "moved")]


def _linear(form, x, matrix, name):
    bias = form.constant(np.zeros(matrix.shape[1], np.float32))
    weights = form.constant(np.ascontiguousarray(matrix.T))
    return form.step(9, [x, weights, bias], ("batch", matrix.shape[1]), {}, 8, name=name)


def _pair(form, graph):
    left, right = form.inputs
    difference = form.step(41, [left, right], ("batch", 4), {}, 28, name="difference")
    return [difference, _linear(form, right, graph.tensors["matrix"], "product")]


def _identity(form, graph):
    return [form.step(53, form.inputs, ("batch", 4), {}, 37, name="same")]


def _weights(form, graph):
    table = form.constant(graph.tensors["constant"], name="table")
    return [table, _linear(form, form.inputs[0], graph.tensors["turned"], "sums")]


def _mismatch(form, graph):
    return [form.step(0, form.inputs, ("rows",), {}, 11, name="sum")]


_MAKE = {
    "scale": _scale, "static": _scale, "convolution": _convolution, "uint8": _uint8, "int64": _int64, "pair": _pair,
    "identity": _identity, "weights": _weights, "mismatch": _mismatch,
}  # fmt: skip


def tflite_form(graph) -> bytes:
    """One of the kit's graphs as a TFLite file."""
    form = _Form()
    form.inputs = [form.value(spec.shape, spec.dtype, spec.name) for spec in graph.inputs]
    form.outputs = _MAKE[graph.name](form, graph)
    return form.write() + metadata_behind(graph.metadata)


def metadata_behind(metadata) -> bytes:
    """What ultralytics' exports carry behind the graph."""
    if not metadata:
        return b""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", json.dumps(dict(metadata)))
    return buffer.getvalue()


def quantised(dtype="int8", *, scale=0.5, zero=-3):
    """`2 * x` in whole numbers: `(batch, 4)` in and out, with other scales on both sides."""
    form = _Form()
    x = form.tensor((1, 4), dtype, name="x", free=(-1, 4), scale=scale, zero=zero)
    y = form.tensor((1, 4), dtype, name="y", free=(-1, 4), scale=scale * 2, zero=zero)
    form.operator(0, [x, x], [y], {1: Scalar("?", False)}, kind=11)
    form.inputs, form.outputs = [x], [y]
    return form.write()
