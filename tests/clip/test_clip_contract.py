"""CLIP keeps the contracts: the plugin, and a small network on torch and, exported, on onnxruntime."""

from __future__ import annotations

import pytest

from lensmount import registry
from lensmount_testing import ModelContract, PluginContract

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")


class TestPlugin(PluginContract):
    distribution = "lensmount-clip"


@pytest.fixture(scope="module")
def tiny_files(embedding_goldens, tmp_path_factory):
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("contract")
    case = embedding_goldens.recipe.weights(embedding_goldens.shapes["open_clip-vit"])
    torch.save({name: torch.from_numpy(value) for name, value in case.items()}, folder / "tiny.pt")
    pair = registry.export(folder / "tiny.pt", to="onnx", output=folder / "pair")
    return {"torch": folder / "tiny.pt", "onnx": pair}


class TestModel(ModelContract):
    backends = ("torch", "onnx")

    @pytest.fixture
    def model_name(self, tiny_files):
        return tiny_files["torch"]

    @pytest.fixture
    def model_names(self, tiny_files):
        return tiny_files
