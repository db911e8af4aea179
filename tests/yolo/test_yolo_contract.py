"""YOLO keeps the contracts: the plugin, and a small network of every task on torch and, exported, on onnxruntime."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from lensmount_testing import ModelContract, PluginContract

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from lensmount import registry  # noqa: E402
from tiny_networks import classifier, lively, pyramid  # noqa: E402 - after the skips

PLANS = {
    "boxes": pyramid(),
    "end-to-end": pyramid(single=True),
    "keypoints": pyramid(classes=1, extra=15),
    "oriented": pyramid(extra=1),
    "classes": classifier(),
}


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory):
    """Weights and exported graph of a plan, written when they are first asked for."""
    pytest.importorskip("onnx")
    folder, made = tmp_path_factory.mktemp("contract"), {}

    def write(plan):
        if plan not in made:
            _, network = lively(PLANS[plan])
            path = folder / f"{plan}.pt"
            torch.save(network.state_dict(), path)
            graph = registry.export(path, to="onnx", output=folder / f"{plan}.onnx", settings={"input_size": 160})
            made[plan] = {"torch": path, "onnx": graph}
        return made[plan]

    return write


class TestPlugin(PluginContract):
    distribution = "lensmount-yolo"


class Tiny(ModelContract):
    plan = ""
    backends = ("torch", "onnx")
    # of the thousands of rows of an untrained network few are kept, so that none is on the edge of being kept
    call_options = MappingProxyType({"confidence": 0.05, "max_detections": 5})

    load_options = MappingProxyType({"input_size": 160})

    @pytest.fixture
    def model_name(self, tiny_files):
        return tiny_files(self.plan)["onnx"]

    @pytest.fixture
    def model_names(self, tiny_files):
        return tiny_files(self.plan)


class TestBoxes(Tiny):
    plan = "boxes"


class TestEndToEnd(Tiny):
    plan = "end-to-end"


class TestKeypoints(Tiny):
    plan = "keypoints"


class TestOriented(Tiny):
    plan = "oriented"


class TestClasses(Tiny):
    plan = "classes"
    call_options = MappingProxyType({})
