"""Nothing opens a socket unasked: import, hooks, listing, describing, explaining, and loads of what is here."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata

import pytest

from lensmount import registry
from lensmount.errors import OfflineError

HOOKS = ("architectures", "model_cards", "backends", "sources", "caches", "readers", "commands", "exporters")

GUARD = """
import socket
class Refused(BaseException): pass  # not to be caught by those who catch Exception
def refuse(*a, **k):
    raise Refused("a socket was opened")
class NoSocket(socket.socket):
    __init__ = refuse
socket.socket = NoSocket
for name in ("create_connection", "getaddrinfo", "gethostbyname", "socketpair"):
    setattr(socket, name, refuse)
"""

WHAT = {
    "import": "import lensmount",
    "facade": """
from lensmount import registry
assert len(registry.models()) > 10
registry.plugins()
registry.backends()
""",
    "environment": "from lensmount import registry; registry.default().environment",
    "describe and explain": """
from lensmount import registry
for card in registry.models():
    assert registry.describe(card.id).id == card.id
    assert str(registry.explain(card.id))
""",
    "commands": """
import contextlib, io, sys
from lensmount.cli import main
for line in ("--help", "models", "models --json", "describe yolov8n-640", "explain yolov8n-640", "plugins", "doctor",
             "cache ls", "cache size"):
    sys.argv = ["lensmount", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as leaving:
            assert line.startswith(("explain", "doctor")) or not leaving.code, (line, leaving.code)
""",
}


@pytest.mark.parametrize("what", WHAT)
def test_no_socket_in_a_process_of_its_own(what, home):
    done = subprocess.run([sys.executable, "-c", GUARD + WHAT[what]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guard_guards():
    code = GUARD + "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "a socket was opened" in done.stderr


@pytest.mark.parametrize("point", metadata.entry_points(group="lensmount"), ids=lambda point: point.name)
def test_hooks_open_no_socket(point, no_sockets):
    module = importlib.import_module(point.module)
    called = [list(getattr(module, f"lensmount_{hook}")()) for hook in HOOKS if hasattr(module, f"lensmount_{hook}")]
    assert any(called)


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "LENSMOUNT_OFFLINE", "offline"])
def test_every_installed_model_offline_says_what_to_bring(how, home, hub, monkeypatch, no_sockets):
    """With an empty store, each package of each card fails on its missing files alone, and names every one."""
    from lensmount.contracts.finder import FetchOptions
    from lensmount.store.fetch import fetch_package, finders_for

    if how != "offline":
        monkeypatch.setenv(how, "1")
    options = FetchOptions(offline=True if how == "offline" else None)
    host = registry.default()
    checked = 0
    for card in registry.models():
        for package in card.packages:
            remote = [a for a in package.artifacts if a.uri.split("://")[0] in ("hf", "http", "https")]
            if not remote:
                continue
            with pytest.raises(OfflineError) as caught:
                fetch_package(card, package, finders_for(package, host.index.sources), options)
            said = str(caught.value)
            assert {missing.name for missing in caught.value.missing} == {a.name for a in remote}
            for artifact in remote:
                assert artifact.uri.partition("?")[0] in said
                assert artifact.sha256 is None or artifact.sha256 in said
            checked += 1
    assert checked > 50
