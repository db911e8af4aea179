"""Options and fixtures for all tests."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

# tests/support: a web server and hub with faults, a guard against sockets; the command line in this process
pytest_plugins = ("fault_server", "command_line")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reference-data",
        metavar="DIR",
        default=None,
        help="folder with goldens/, weights/ and images/ (default: the environment's LENSMOUNT_REFERENCE_DATA)",
    )
    # for tests/oracles, whose own conftest is read too late for options
    parser.addoption("--oracle-seeds", type=int, default=4, metavar="N", help="random configurations of each reference")
    parser.addoption("--oracle-outcome", metavar="FILE", help="keep what the tests against references found")


@pytest.fixture(scope="session")
def workspace() -> Path:
    """The checkout's root."""
    return ROOT


@pytest.fixture(scope="session")
def reference_data(pytestconfig: pytest.Config) -> Path:
    """The folder of reference outputs and weights; skips without it, fails if it was named and is not there."""
    named = pytestconfig.getoption("--reference-data") or os.environ.get("LENSMOUNT_REFERENCE_DATA")
    if not named:
        pytest.skip("needs reference data: --reference-data DIR or LENSMOUNT_REFERENCE_DATA")
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        pytest.fail(f"the folder of reference data does not exist: {folder}")
    return folder


@pytest.fixture(scope="session")
def embedding_goldens() -> Any:
    """Tiny two-tower networks of each layout: `.recipe`, `.shapes[case]`, `.image(case)`, `.text(case)`, `.strings`."""
    return EmbeddingGoldens(ROOT / "tests" / "goldens" / "embeddings")


class EmbeddingGoldens:
    """What the reference implementations gave, and the weights that they were given."""

    def __init__(self, folder: Path) -> None:
        import importlib.util

        import numpy as np

        spec = importlib.util.spec_from_file_location("embedding_recipe", folder / "recipe.py")
        assert spec is not None and spec.loader is not None
        self.recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.recipe)
        self._arrays = dict(np.load(folder / "towers.npz", allow_pickle=False))
        self.shapes = json.loads(str(self._arrays["shapes"]))
        self._folder = folder

    def image(self, case: str) -> Any:
        return self._arrays[f"{case}/image"]

    def text(self, case: str) -> Any:
        return self._arrays[f"{case}/text"]

    @property
    def strings(self) -> list[tuple[str, list[int], list[int]]]:
        return json.loads(gzip.decompress((self._folder / "tokens.json.gz").read_bytes()))
