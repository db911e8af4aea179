"""Small graphs, and engines and sessions of the stand-in made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from lensmount.contracts.session import BackendOptions, OpenRequest
from lensmount.specs import Artifact, ModelPackage
from lensmount_tensorrt import backend as backend


def graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    initializers: tuple[onnx.TensorProto, ...] = (),
    domains: tuple[str, ...] = (),
) -> Path:
    def infos(values):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in values.items()]

    made = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), initializer=list(initializers))
    opsets = [helper.make_opsetid("", 19), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, {"names": "{0: 'cat'}"})
    onnx.save(model, path)
    return path


def doubling(path: Path, kind: int = TensorProto.FLOAT, batch: int | str = "batch") -> Path:
    return graph(
        path, [helper.make_node("Add", ["x", "x"], ["y"])], {"x": (kind, [batch, 4])}, {"y": (kind, [batch, 4])}
    )


def build(path: Path, output: Path, precision: str = "fp32", **settings) -> Path:
    """An engine with its manifest."""
    from lensmount_reading import inspect_graph, read_onnx
    from lensmount_tensorrt import manifest as tensorrt_manifest
    from lensmount_tensorrt.build import Source, build_engine
    from lensmount_tensorrt.cuda_memory import Cuda
    from lensmount_tensorrt.settings import settings_of

    package = ModelPackage(name="p", format="onnx", artifacts=(Artifact(name=path.name, uri=path.as_uri()),))
    source = Source(
        model="toy",
        path=path,
        sha256="0" * 64,
        precision=inspect_graph(path, package).precision,
        metadata=read_onnx(path).metadata,
        image_size=None,
        gpu="Simulated H200",
    )
    engine, manifest = build_engine(source, precision, settings_of(settings), Cuda(0), progress=False)
    output.write_bytes(engine)
    tensorrt_manifest.path_beside(output).write_bytes(manifest.to_json())
    return output


def request(path: Path | None, device: str = "cuda:0", precision: str = "fp32", **options) -> OpenRequest:
    package = ModelPackage(
        name="engine", format="engine", precision=precision, artifacts=(Artifact(name="engine.plan", uri="file:///e"),)
    )
    return OpenRequest(
        package=package, path=path, device=device, precision=precision, options=BackendOptions(**options)
    )


def opened(path: Path, **options):
    return backend.open_session(request(path, **options))


X = np.arange(8, dtype=np.float32).reshape(2, 4)

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
}


def nonzero(path: Path) -> Path:
    return graph(
        path,
        [helper.make_node("NonZero", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, [2, 4])},
        {"y": (TensorProto.INT64, [2, "n"])},
    )
