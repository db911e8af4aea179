"""Runs the cases of a contract, what keeps it and what breaks it, in a pytest of their own.

A module of cases holds classes `TestKeeps…`, which have to pass, and a list `CASES` of `Case`s, each of which has to
fail in the test that it is named after, and to say why. Its last line is `globals().update(classes(Contract, CASES))`.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """Something that breaks one promise.

    Attributes:
        promise: The test that has to fail.
        says: What the failure has to say.
        body: The class's own attributes and fixtures.
        note: Tells several cases of one promise apart.
    """

    promise: str
    says: str
    body: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def class_name(self) -> str:
        return "TestBreaks_" + "_".join(filter(None, (self.promise, self.note)))

    @property
    def id(self) -> str:
        return "-".join(filter(None, (self.promise, self.note)))


def classes(contract: type, cases: Iterable[Case]) -> dict[str, type]:
    """One class for each case."""
    return {case.class_name: type(case.class_name, (contract,), dict(case.body)) for case in cases}


def promises(contract: type) -> list[str]:
    """The tests of a contract."""
    return sorted(name for name in dir(contract) if name.startswith("test_"))


@dataclass(frozen=True)
class Outcomes:
    """What became of each test, by class and function: `(outcome, message)` once for each parameter."""

    found: dict[tuple[str, str], list[tuple[str, str]]]
    output: str

    def of_class(self, prefix: str) -> dict[str, list[tuple[str, str]]]:
        return {f"{c}.{t}": results for (c, t), results in self.found.items() if c.startswith(prefix)}

    def said(self, case: Case) -> str:
        """All that the case's failures said, those before the test itself among them; empty where nothing failed."""
        results = self.found.get((case.class_name, case.promise), [])
        return "\n".join(message for outcome, message in results if outcome in ("failed", "error"))


def run_cases(module: str, folder: Path) -> Outcomes:
    """Runs a module of cases of tests/support: every promise of what keeps them, one of each that breaks one."""
    path = SUPPORT / f"{module}.py"
    cases = importlib.import_module(module).CASES
    keeping = [name for name in dir(importlib.import_module(module)) if name.startswith("TestKeeps")]
    nodes = [f"{path}::{name}" for name in keeping]
    nodes += [f"{path}::{case.class_name}::{case.promise}" for case in cases]
    report = folder / "report.xml"
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n", encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    environ.pop("PYTEST_ADDOPTS", None)
    # Arguments from a file: there are more of them than some systems take on a command line.
    listed = folder / "nodes.txt"
    listed.write_text("\n".join(nodes), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-c", folder / "pytest.ini", "--rootdir", folder]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", f"--basetemp={folder / 'work'}", f"@{listed}"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=560, check=False)
    assert report.is_file(), done.stdout + done.stderr
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for test in ElementTree.parse(report).iter("testcase"):
        outcome, message = "passed", ""
        for kind in ("failure", "error", "skipped"):
            for element in test.findall(kind):
                outcome = {"failure": "failed"}.get(kind, kind)
                message += (element.get("message") or "") + "\n" + (element.text or "")
        key = (test.get("classname", "").rpartition(".")[2], test.get("name", "").partition("[")[0])
        found.setdefault(key, []).append((outcome, message))
    return Outcomes(found, done.stdout)
