"""Options and fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ("fault_server",)  # tests/support: a web server and hub with faults, a guard against sockets

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reference-data",
        metavar="DIR",
        default=None,
        help="folder with goldens/, weights/ and images/ (default: the environment's LENSMOUNT_REFERENCE_DATA)",
    )


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
