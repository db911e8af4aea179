"""Files that the references' own packages write, loaded here and compared from bytes to results.

These tests are nightly ones, and each is skipped where its reference is not installed. To run them, make an
environment that has the references and this checkout:

    python -m venv .venv-oracles
    .venv-oracles/bin/pip install -r tests/oracles/requirements.txt  # after torch, as its head says
    .venv-oracles/bin/pip install -e core -e libraries/reading -e libraries/vision -e plugins/torch …
    .venv-oracles/bin/python -m pytest -m "" tests/oracles

Instead of installing this checkout, its `src` folders can be put on the PYTHONPATH: plugins that are not discovered are
then added here. `--oracle-seeds N` tries N random configurations of each kind (4 by default), `--oracle-outcome FILE`
keeps what was found: `tests/oracles/outcome.json` is the run that docs/compatibility.md shows (`python
docs/tools/tables.py` writes it there). Rows of packages that a run does not have stay in the file, so that several
environments can write it.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from lensmount import registry
from oracle_kit import Outcome

ROOT = Path(__file__).resolve().parents[2]
_outcome = Outcome()

# No reference may ask a hub for anything. Libraries read this when they are imported, which the tests' modules do while
# they are collected; all other tests run without it.
_earlier = os.environ.get("HF_HUB_OFFLINE")
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_finish() -> None:
    if _earlier is None:
        os.environ.pop("HF_HUB_OFFLINE", None)
    else:
        os.environ["HF_HUB_OFFLINE"] = _earlier


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.nightly)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--oracle-seeds")))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--oracle-outcome")
    if path and exitstatus == 0:
        _outcome.write(Path(path))


@pytest.fixture
def outcome() -> Outcome:
    """Compares, and keeps what was found for the documentation."""
    return _outcome


@pytest.fixture(autouse=True, scope="session")
def _every_plugin() -> None:
    """Adds the workspace's plugins where the checkout is not installed but only on the PYTHONPATH."""
    known = {status.name for status in registry.plugins()}
    for folder in sorted((*ROOT.glob("libraries/*/src/*"), *ROOT.glob("plugins/*/src/*"))):
        name = folder.parts[-3].replace("_", "-")
        if (folder / "plugin.py").is_file() and name not in known:
            registry.add_plugin(importlib.import_module(f"{folder.name}.plugin"), name)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small networks gain nothing from more threads, and sums keep their order."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
