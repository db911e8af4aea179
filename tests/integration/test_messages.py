"""What `LENSMOUNT_LOG` shows of a whole load: each step once, in order, and nothing without it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime")

LOAD = """
from lensmount import registry
with registry.load("shapes-nano", backend="onnx", device="cpu", caches={"embeddings": "memory"}) as model:
    pass
"""


def messages(level: str | None) -> list[str]:
    environ = {name: value for name, value in os.environ.items() if name != "LENSMOUNT_LOG"}
    environ |= {} if level is None else {"LENSMOUNT_LOG": level}
    done = subprocess.run([sys.executable, "-c", LOAD], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return [line for line in done.stderr.splitlines() if "lensmount" in line]


def test_nothing_without_the_variable() -> None:
    assert messages(None) == []


def test_each_step_of_a_load_in_order() -> None:
    said = messages("info")
    steps = ["selected", "fetched", "opened", "made cache memory for embeddings", "closed shapes-nano on onnx, cpu"]
    places = [next(i for i, line in enumerate(said) if step in line) for step in steps]
    assert places == sorted(places)
    assert len([line for line in said if "opened" in line]) == 1
    assert "CPUExecutionProvider, cpu, fp32" in next(line for line in said if "opened" in line)


def test_debug_says_what_was_discovered_and_why_not() -> None:
    said = "\n".join(messages("debug"))
    assert "discovered plugin 'yolo' of lensmount-yolo" in said
    assert "what can run of shapes-nano" in said


def test_a_wrong_level_stops_with_its_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lensmount", "models"],
        env={**os.environ, "LENSMOUNT_LOG": "loud"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "LENSMOUNT_LOG is not a level" in done.stderr
    assert "Traceback" not in done.stderr
