"""Nothing is sent by the packages below: their switches are set before they are imported, and no socket is opened.

Sockets of Python's own are watched in `test_no_network`; those of native code are seen by the system alone (strace).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")

# Sees the first import of each package, whoever asks for it; as `sitecustomize`, in child processes too.
WATCH = """
import os, sys
def note(*words):
    with open(os.environ["WATCHED"], "a") as file:
        print(*words, file=file)
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "huggingface_hub"):
            note(name, os.environ.get("ORT_DISABLE_TELEMETRY"), os.environ.get("HF_HUB_DISABLE_TELEMETRY"))
        if name.startswith("openvino_telemetry"):
            note(name)
sys.meta_path.insert(0, Watch())
"""
RUN = """
import sys
from lensmount.cli import main
sys.argv = ["lensmount", *ARGUMENTS]
try:
    main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
"""
LOAD = """
from lensmount import registry
registry.load("shapes-nano", backend="{}").close()
"""


@pytest.fixture
def scene():
    spec = importlib.util.find_spec("lensmount_shapes")
    assert spec is not None
    return os.path.join(str(spec.submodule_search_locations[0]), "data", "scene.jpg")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A home folder of its own, and no switch set."""
    for name in (*SWITCHES, "CI", "TF_BUILD", "JENKINS_URL", "LENSMOUNT_OPENVINO_TELEMETRY", "DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "LENSMOUNT_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "watch"), *sys.path[1:]]))
    monkeypatch.setenv("WATCHED", str(tmp_path / "watched"))
    monkeypatch.chdir(tmp_path)
    return home


def watched(fresh: Path) -> list[str]:
    """What was imported, with the switches at that moment."""
    path = fresh.parent / "watched"
    return path.read_text().splitlines() if path.exists() else []


def needs(package: str) -> None:
    # Not importorskip: importing openvino here would send, and write into the home folder that is looked at.
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


COMMANDS = {
    "predict": ["predict", "shapes-nano", "SCENE", "--backend", "onnx", "--json", "found.json"],
    "bench": ["bench", "shapes-nano", "--backend", "onnx"],
    "tune": ["tune", "shapes-nano"],
    "export": ["export", "shapes-nano", "--to", "onnx", "--output", "exported"],
}


def python(code: str, *before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_switches_are_set_before_the_import(command, fresh, scene):
    line = [part.replace("SCENE", scene) for part in COMMANDS[command]]
    done = python(RUN.replace("ARGUMENTS", repr(line)))
    imported = watched(fresh)
    assert any("onnxruntime" in line for line in imported), done.stdout + done.stderr
    imported = [line for line in imported if not line.startswith("openvino")]
    assert all(line.endswith(" 1 1") for line in imported), imported


def test_what_a_user_sets_stays(fresh):
    done = python(LOAD.format("onnx"), **dict.fromkeys(SWITCHES, "0"))
    assert done.returncode == 0, done.stderr
    assert "onnxruntime 0 0" in watched(fresh)


def test_openvino_is_imported_without_its_telemetry(fresh):
    needs("openvino")
    done = python(LOAD.format("openvino"))
    assert done.returncode == 0, done.stderr
    assert not [line for line in watched(fresh) if "telemetry" in line]
    assert not (fresh / "intel").exists()


def test_openvino_may_be_let_send(fresh):
    needs("openvino")
    code = "import contextlib\nfrom lensmount_openvino.backend import _without_telemetry\n"
    code += "import sys\nwith _without_telemetry():\n    print('openvino_telemetry' in sys.modules)\n"
    code += "print('openvino_telemetry' in sys.modules)"
    assert python(code).stdout.split() == ["True", "False"]
    assert python(code, LENSMOUNT_OPENVINO_TELEMETRY="1").stdout.split() == ["False", "False"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: system calls cannot be seen")
@pytest.mark.parametrize("backend", ["onnx", "torch", "openvino"])
def test_no_socket_is_opened(backend, fresh, scene, tmp_path):
    needs({"onnx": "onnxruntime"}.get(backend, backend))
    seen = tmp_path / "calls"
    line = ["predict", "shapes-nano", scene, "--backend", backend, "--json", "found.json"]
    code = RUN.replace("ARGUMENTS", repr(line)) + "import time; time.sleep(1)  # for threads that send later\n"
    done = python(code, "strace", "-f", "-qq", "-e", "trace=socket,connect,sendto,sendmsg", "-o", str(seen))
    if "ptrace" in done.stderr.lower() and "not permitted" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found.json").exists()
    assert not re.findall(r".*\b(?:socket|connect|sendto|sendmsg)\(.*", seen.read_text())
