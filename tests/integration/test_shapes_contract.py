"""The example plugin keeps the contracts, with its trained weights, on both backends."""

from __future__ import annotations

import pytest

from lensmount_testing import ModelContract, PluginContract

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


class TestPlugin(PluginContract):
    distribution = "lensmount-shapes"


class TestShapes(ModelContract):
    model_id = "shapes-nano"
    backends = ("onnx", "torch")

    @pytest.fixture
    def picture(self, workspace):
        from lensmount_vision.images.loading import load

        return load(workspace / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg").array()
