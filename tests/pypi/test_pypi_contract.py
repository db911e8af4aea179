"""The source of wheels keeps the contracts: of plugins, and of sources."""

from __future__ import annotations

import hashlib

import pytest

from lensmount_testing import PluginContract, SourceContract

CONTENT = bytes(range(256)) * 99


class TestPlugin(PluginContract):
    distribution = "lensmount-pypi"


class TestSource(SourceContract):
    scheme = "pypi"

    @pytest.fixture
    def served(self, wheels):
        wheels.add("small_model", "1.2.3", {"small_model/data/weights.onnx": CONTENT, "small_model/__init__.py": b""})
        return "pypi://small-model==1.2.3/small_model/data/weights.onnx", CONTENT


class TestSourceWithHash(TestSource):
    @pytest.fixture
    def served(self, wheels):
        path = wheels.add("small_model", "1.2.3", {"small_model/data/weights.onnx": CONTENT})
        wheel = hashlib.sha256(path.read_bytes()).hexdigest()
        return f"pypi://small-model==1.2.3/small_model/data/weights.onnx#wheel-sha256={wheel}", CONTENT

    @pytest.fixture
    def missing(self, served):
        return "pypi://small-model==1.2.3/small_model/data/no-such-weights.onnx"
