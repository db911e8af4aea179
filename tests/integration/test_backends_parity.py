"""The same network on both backends gives the same numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from lensmount.backend.batching import run_batched
from lensmount.contracts import OpenRequest, TensorSpec
from lensmount.contracts.session import TorchNetwork
from lensmount.specs import Artifact, ModelPackage
from lensmount_onnx import backend as onnx_backend
from lensmount_torch import backend as torch_backend

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def make_net():
    torch.manual_seed(5)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2, 1),
        torch.nn.BatchNorm2d(16),
        torch.nn.SiLU(),
        torch.nn.Conv2d(16, 16, 3, 1, 1, groups=4),
        torch.nn.MaxPool2d(3, 1, 1),
        torch.nn.Upsample(scale_factor=2),
        torch.nn.Conv2d(16, 5, 1),
        torch.nn.Sigmoid(),
    ).eval()


@pytest.mark.parametrize("batch", ["dynamic", 2])
def test_a_network_and_its_export(tmp_path, batch):
    net, path = make_net(), tmp_path / "net.onnx"
    axes = {"images": {0: "n"}, "output": {0: "n"}} if batch == "dynamic" else {}
    sample = torch.zeros(1 if batch == "dynamic" else batch, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the exporter that needs no further package
        torch.onnx.export(
            net, (sample,), path, input_names=["images"], output_names=["output"], dynamic_axes=axes, dynamo=False
        )
    pack = {
        kind: ModelPackage(name=kind, format=kind, artifacts=(Artifact(name=path.name, uri="file://x"),))
        for kind in ("onnx", "torch")
    }
    network = TorchNetwork(
        module=net,
        inputs=(TensorSpec("images", ("n", 3, 32, 32), "float32"),),
        outputs=(TensorSpec("output", ("n", 5, 32, 32), "float32"),),
    )
    graph = onnx_backend.open_session(OpenRequest(package=pack["onnx"], path=path, device="cpu", precision="fp32"))
    module = torch_backend.open_session(
        OpenRequest(package=pack["torch"], path=None, device="cpu", precision="fp32", network=network)
    )
    assert graph.precision == module.precision == "fp32"
    assert [spec.name for spec in graph.outputs] == [spec.name for spec in module.outputs]
    x = np.random.default_rng(1).random((3, 3, 32, 32), dtype=np.float32)
    first, second = (run_batched(session, {"images": x})["output"] for session in (graph, module))
    assert first.shape == second.shape == (3, 5, 32, 32)
    # Sums of up to 144 float32 products in two orders, behind a sigmoid.
    np.testing.assert_allclose(first, second, atol=1e-5)
