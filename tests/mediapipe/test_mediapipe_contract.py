"""The face detector keeps the contracts: the plugin, and a small graph on both backends."""

from __future__ import annotations

from importlib.util import find_spec
from types import MappingProxyType

import numpy as np
import pytest

from lensmount_testing import ModelContract, PluginContract
from tiny_faces import tiny_face, tiny_mesh

pytest.importorskip("onnxruntime")


class TestPlugin(PluginContract):
    distribution = "lensmount-mediapipe"


class TestFaces(ModelContract):
    backends = ("onnx", "litert") if find_spec("ai_edge_litert") else ("onnx",)
    # of a small graph's many equal scores few are kept, so that none is on the edge of being kept
    call_options = MappingProxyType({"max_detections": 4})

    @pytest.fixture
    def model_name(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("faces") / "tiny.tflite"
        path.write_bytes(tiny_face())
        return path

    @pytest.fixture
    def picture(self):
        picture = np.full((160, 240, 3), 20, np.uint8)
        picture[30:62, 40:72] = 250
        picture[90:130, 150:190] = 200
        return picture


class TestMesh(ModelContract):
    backends = TestFaces.backends
    call_options = MappingProxyType({"confidence": 0.6})

    @pytest.fixture
    def model_name(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("mesh") / "tiny.tflite"
        path.write_bytes(tiny_mesh())
        return path

    @pytest.fixture
    def picture(self):
        return np.full((160, 200, 3), 200, np.uint8)
