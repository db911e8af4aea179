"""RF-DETR keeps the contracts: the plugin, and small networks with and without masks on both backends."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from lensmount import registry
from lensmount_testing import ModelContract, PluginContract

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


class TestPlugin(PluginContract):
    distribution = "lensmount-rfdetr"


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory):
    """Checkpoint and exported graph, of a detector or a segmenter, written when they are first asked for."""
    pytest.importorskip("onnx")
    folder, made = tmp_path_factory.mktemp("contract"), {}

    def write(kit, masks):
        if masks not in made:
            args = {**kit.ARGS, "segmentation_head": bool(masks), "class_names": ["nut", "bolt", "gear"]}
            path = kit.write_checkpoint(folder / f"masks{masks}.pth", kit.tensors(masks=masks), args)
            graph = registry.export(path, output=folder / f"masks{masks}.onnx", dynamic=True)
            made[masks] = {"torch": path, "onnx": graph}
        return made[masks]

    return write


class Tiny(ModelContract):
    masks = 0
    backends = ("torch", "onnx")
    call_options = MappingProxyType({"confidence": 0.0, "max_detections": 4})
    nothing = MappingProxyType({"confidence": 1.0})

    @pytest.fixture
    def model_name(self, tiny_files, rfdetr_kit):
        return tiny_files(rfdetr_kit, self.masks)["onnx"]

    @pytest.fixture
    def model_names(self, tiny_files, rfdetr_kit):
        return tiny_files(rfdetr_kit, self.masks)


class TestBoxes(Tiny):
    pass


class TestMasks(Tiny):
    masks = 2
