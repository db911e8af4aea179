"""SAM 2 keeps the contracts: the plugin, and a small network on torch and, exported, on onnxruntime."""

from __future__ import annotations

import pytest

from lensmount import registry
from lensmount_testing import ModelContract, PluginContract

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


class TestPlugin(PluginContract):
    distribution = "lensmount-sam2"


@pytest.fixture(scope="module")
def exported(tiny_folder, tmp_path_factory):
    pytest.importorskip("onnx")
    return registry.export(tiny_folder, to="onnx", output=tmp_path_factory.mktemp("contract") / "sam2", dynamic=True)


class TestModel(ModelContract):
    backends = ("torch", "onnx")

    @pytest.fixture
    def model_name(self, tiny_folder):
        return tiny_folder

    @pytest.fixture
    def model_names(self, tiny_folder, exported):
        return {"torch": tiny_folder, "onnx": exported}
