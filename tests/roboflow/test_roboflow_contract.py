"""The Roboflow plugin keeps the contracts: of plugins, and of sources."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from lensmount_testing import PluginContract, SourceContract
from roboflow_provider import KEY, MODEL, ONNX

CONTENT = b"graph" * 9999


class TestPlugin(PluginContract):
    distribution = "lensmount-roboflow"


class TestSource(SourceContract):
    scheme = "roboflow"
    allow_insecure = True
    credentials = MappingProxyType({"roboflow": KEY})

    @pytest.fixture
    def served(self, provider):
        provider.page([provider.package("onnx1", ONNX, {"weights.onnx": CONTENT})])
        return f"roboflow://{MODEL}/-/onnx1/weights.onnx", CONTENT
