"""Graphs whose fixed input sizes no memory holds are refused when they are opened, with the sizes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lensmount.errors import UnsafeFileError
from lensmount.specs.descriptors import ModelPackage
from lensmount_reading import inspect_graph

onnx = pytest.importorskip("onnx")


def graph(path, shape):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, kind, shape) for name in ("images", "found")]
    made = helper.make_graph([helper.make_node("Identity", ["images"], ["found"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(made), path)
    return path


PACKAGE: ModelPackage = SimpleNamespace(artifacts=())  # type: ignore[assignment]  # all that is looked at


@pytest.mark.parametrize(
    "shape", [(1, 3, 1_000_000, 1_000_000), (1 << 62,), (1 << 40, 1, "h", "w"), ("n", 3, 1 << 16, 1 << 16)], ids=str
)
def test_absurd_sizes(tmp_path, shape):
    with pytest.raises(UnsafeFileError, match="absurdly large input 'images'") as caught:
        inspect_graph(graph(tmp_path / "m.onnx", shape), PACKAGE)
    assert all(str(size) in str(caught.value) for size in shape)


@pytest.mark.parametrize("shape", [(16, 3, 6_000, 6_000), ("n", 3, "h", "w"), (0, 3, 4, 4), ()], ids=str)
def test_other_sizes(tmp_path, shape):
    assert inspect_graph(graph(tmp_path / "m.onnx", shape), PACKAGE).facts.inputs[0].name == "images"
