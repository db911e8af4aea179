"""Graphs with YOLO's outputs whose predictions are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

NAMES = "{0: 'cat', 1: 'dog', 2: 'bird'}"


def make_graph(path, outputs, *, metadata=None, size=(64, 64), batch="batch", input_dtype=np.float32, channels=3):
    """Writes a graph that answers every picture with the given arrays.

    Args:
        path: File to write.
        outputs: Arrays by output name, without the batch axis.
        metadata: Embedded texts.
        size: Input height and width.
        batch: A number for a static batch, a word for a dynamic one.
        input_dtype: Of the input.
        channels: Of the input.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(input_dtype))
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Cast", ["mean"], ["mean32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["mean32", "nought"], ["blank"]),
    ]
    tensors = [numpy_helper.from_array(np.zeros((), np.float32), "nought")]
    values = []
    for name, array in outputs.items():
        array = np.asarray(array, np.float32)
        tensors.append(numpy_helper.from_array(array[None], f"{name}_const"))
        blank = "blank"
        if array.ndim < 3:
            tensors.append(numpy_helper.from_array(np.array([-1, *[1] * array.ndim], np.int64), f"{name}_shape"))
            nodes.append(helper.make_node("Reshape", ["blank", f"{name}_shape"], [f"{name}_blank"]))
            blank = f"{name}_blank"
        nodes.append(helper.make_node("Add", [f"{name}_const", blank], [name]))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *array.shape]))
    images = helper.make_tensor_value_info("images", kind, [batch, channels, *size])
    graph = helper.make_graph(nodes, "yolo", [images], values, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))
    return path


def raw_output(rows, classes=3, extra=0, cells=84):
    """`(4 + classes + extra, cells)` from rows `(cx, cy, w, h, class, score, *extra)`; the other cells are empty."""
    out = np.zeros((4 + classes + extra, cells), np.float32)
    for i, (cx, cy, w, h, label, score, *more) in enumerate(rows):
        out[:4, i] = cx, cy, w, h
        out[4 + label, i] = score
        out[4 + classes :, i] = more or 0
    return out


# --- fixtures, imported by the conftest.py of the folders that use them ---------------------------------------------


@pytest.fixture
def graph(tmp_path):
    """Writes graphs into the test's folder."""

    def make(outputs, name="model.onnx", **options):
        options.setdefault("metadata", {"names": NAMES, "task": "detect", "stride": "32", "imgsz": "[64, 64]"})
        return make_graph(tmp_path / name, outputs, **options)

    return make


@pytest.fixture
def raw():
    """`raw_output`."""
    return raw_output
