"""The Triton plugin keeps the contracts: of plugins, and of backends (against a stand-in of the server)."""

from __future__ import annotations

import pytest

from lensmount_testing import BackendContract, PluginContract


class TestPlugin(PluginContract):
    distribution = "lensmount-triton"


class TestBackend(BackendContract):
    backend = "triton"
    device = "remote"

    @pytest.fixture(autouse=True)
    def server(self, triton):
        return triton
