"""No socket at import, in hooks, in listing models, or in any offline path: checked in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

GUARD = """
import socket
def refuse(*a, **k):
    raise SystemExit("a socket was opened")
socket.socket.__init__ = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
"""

PATHS = {
    "import": "import lensmount",
    "hooks": """
from lensmount.registry import Registry
found = Registry()
assert found.models() is not None
assert found.plugins() is not None
""",
    "sources": """
import os
os.environ["LENSMOUNT_OFFLINE"] = "1"
from lensmount.errors import OfflineError
from lensmount.contracts.finder import FetchOptions
from lensmount.store.fetch import fetch_artifact, fetch_uri
from lensmount.store.hf import HubFinder
from lensmount.store.https import HttpsFinder
from lensmount.specs import Artifact
finders = {"hf": HubFinder(), "https": HttpsFinder()}
for uri in ("hf://owner/repo@main/w.onnx", "https://host.example/w.onnx"):
    try:
        fetch_artifact(Artifact(name="w.onnx", uri=uri), finders, FetchOptions())
    except OfflineError as error:
        assert "w.onnx" in str(error)
    else:
        raise SystemExit("not refused: " + uri)
for uri in ("hf://owner/repo", "hf://owner/repo@main"):
    try:
        finders["hf"].repository(uri, FetchOptions())
    except OfflineError:
        continue
    raise SystemExit("not refused: " + uri)
try:
    fetch_uri("https://host.example/w.onnx#sha256=" + "0" * 64, finders, FetchOptions())
except OfflineError as error:
    assert "0" * 64 in str(error)
""",
}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_no_socket(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    done = subprocess.run([sys.executable, "-c", GUARD + PATHS[path]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_offline_load_of_a_cached_catalogue_file(web, home, tmp_path):
    """What one process brought, another loads with every socket refused."""
    from lensmount.contracts.finder import FetchOptions
    from lensmount.specs import Artifact
    from lensmount.store.fetch import fetch_artifact
    from lensmount.store.https import HttpsFinder

    uri = web.put("/w.onnx", b"graph" * 100)
    fetch_artifact(Artifact(name="w.onnx", uri=uri), {"http": HttpsFinder()}, FetchOptions(allow_insecure=True))
    code = f"""
from lensmount.contracts.finder import FetchOptions
from lensmount.store.fetch import fetch_artifact
from lensmount.store.https import HttpsFinder
from lensmount.specs import Artifact
options = FetchOptions(allow_insecure=True, offline=True)
got = fetch_artifact(Artifact(name="w.onnx", uri={uri!r}), {{"http": HttpsFinder()}}, options)
assert got.path.read_bytes() == b"graph" * 100
"""
    done = subprocess.run([sys.executable, "-c", GUARD + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
