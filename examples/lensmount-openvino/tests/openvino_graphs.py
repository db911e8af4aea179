"""Small ONNX graphs, and requests to open them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lensmount.contracts import BackendOptions, OpenRequest
from lensmount.specs import Artifact, ModelPackage

RNG = np.random.default_rng(11)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def make_model(nodes, inputs, outputs, initializers=(), domains=(), metadata=None):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 10
    helper.set_model_props(model, metadata or {})
    return model


def conv_model(batch="n", kind=TensorProto.FLOAT, metadata=None):
    weight = numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    shapes = [batch, 3, 8, 8], [batch, 4, 8, 8]
    return make_model([node], [value("x", shapes[0], kind)], [value("y", shapes[1], kind)], [weight], metadata=metadata)


def one_node(op="Relu", kind=TensorProto.FLOAT, inputs=("x",), domain="", shape=("n", 3)):
    node = helper.make_node(op, list(inputs), ["y"], domain=domain)
    domains = (domain,) if domain else ()
    values = [value(name, shape, kind) for name in dict.fromkeys(inputs)]
    return make_model([node], values, [value("y", shape, kind)], domains=domains)


def external_model(location, length=12):
    """`y = x + w`, with `w` in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, text
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return make_model([node], [value("x", ["n", 3])], [value("y", ["n", 3])], [weight])


def save(folder: Path, model, name="g.onnx") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def package(*names, precision="fp32"):
    artifacts = tuple(Artifact(name=name, uri=f"file://{name}") for name in names or ("g.onnx",))
    return ModelPackage(name="p", format="onnx", artifacts=artifacts, precision=precision)


def request(path, device="cpu", precision="fp32", pack=None, **options):
    return OpenRequest(
        package=pack or package(), path=path, device=device, precision=precision, options=BackendOptions(**options)
    )


def images(count=1, dtype=np.float32):
    return RNG.normal(size=(count, 3, 8, 8)).astype(dtype)


def convolved(x):
    """The convolution in float64 by its definition."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, WEIGHT.astype(np.float64))
