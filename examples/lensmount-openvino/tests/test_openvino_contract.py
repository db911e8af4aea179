"""What lensmount asks of every plugin and backend, tested by its conformance kit."""

from __future__ import annotations

import pytest

from lensmount_testing import BackendContract, PluginContract

pytest.importorskip("openvino")


class TestPlugin(PluginContract):
    distribution = "lensmount-openvino"


class TestBackend(BackendContract):
    backend = "openvino"
