"""Graphs whose files are shortened after they were opened: sessions go on, in a process that is not killed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402 - after importorskip

SIZE = 1 << 20

CHILD = """
import importlib, os, sys
import numpy as np
from lensmount.contracts import BackendOptions, OpenRequest
from lensmount.specs import Artifact, ModelPackage, Requirements
from pathlib import Path
module, path, data = sys.argv[1:]
backend = importlib.import_module(module)
package = ModelPackage(name="p", format="onnx", precision="fp32", requirements=Requirements(),
                       artifacts=(Artifact(name="g.onnx", uri="file:g.onnx", role="graph"),))
request = OpenRequest(package=package, path=Path(path), device="cpu", precision="fp32", options=BackendOptions())
session = backend.open_session(request)
zeros = {"x": np.zeros((1, SIZE), np.float32)}
mapped = [line for line in open("/proc/self/maps") if line.rstrip().endswith((path, data))]
assert not mapped, mapped
os.truncate(data, 0)
os.truncate(path, 0)
assert float(session.run(zeros)["y"].sum()) == SIZE
""".replace("SIZE", str(SIZE))


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="mappings are listed in Linux's /proc")
@pytest.mark.parametrize("operator", ["Add", "MatMul"])
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_data_files_that_shrink(backend, operator, tmp_path):
    if importlib.util.find_spec(backend if backend == "openvino" else "onnxruntime") is None:
        pytest.skip(f"{backend} is not installed")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[SIZE], data_location=TensorProto.EXTERNAL)
    square = TensorProto(name="i", data_type=TensorProto.FLOAT, dims=[SIZE, 1], data_location=TensorProto.EXTERNAL)
    for tensor in (weight, square):
        for key, text in (("location", "g.data"), ("offset", "0"), ("length", str(4 * SIZE))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, text
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    tensors, shape = [weight], ["n", SIZE]
    if operator == "MatMul":
        nodes = [helper.make_node("Add", ["x", "w"], ["z"]), helper.make_node("MatMul", ["z", "i"], ["y"])]
        tensors, shape = [weight, square], ["n", 1]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=opset)
    model.ir_version = 10
    path = tmp_path / "g.onnx"
    path.write_bytes(model.SerializeToString())
    np.ones(SIZE, np.float32).tofile(tmp_path / "g.data")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, f"lensmount_{backend}.backend", str(path), str(tmp_path / "g.data")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
