"""A stand-in of a Triton server, named by the environment as a user would name a real one."""

from __future__ import annotations

import pytest

from lensmount import registry
from triton_server import TritonServer


@pytest.fixture
def triton(monkeypatch):
    pytest.importorskip("tritonclient.http")
    pytest.importorskip("onnxruntime")
    with TritonServer() as server:
        monkeypatch.setenv("LENSMOUNT_TRITON_URL", server.url)
        monkeypatch.setenv("LENSMOUNT_TRITON_UPLOAD", "1")
        registry.refresh()  # a backend that could not run is not asked again
        yield server
    registry.refresh()
