"""OWLv2 keeps the contracts: the plugin, and a small network on torch and, exported, on onnxruntime."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from lensmount import registry
from lensmount_testing import ModelContract, PluginContract

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


class TestPlugin(PluginContract):
    distribution = "lensmount-owlv2"


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    pytest.importorskip("onnx")
    return registry.export(tiny, output=tmp_path_factory.mktemp("contract") / "owl")


class TestModel(ModelContract):
    backends = ("torch", "onnx")
    call_options = MappingProxyType({"classes": ["a red cup", "a dog"], "confidence": 0.0, "max_detections": 5})

    @pytest.fixture
    def model_name(self, tiny):
        return tiny

    @pytest.fixture
    def model_names(self, tiny, exported):
        return {"torch": tiny, "onnx": exported}
