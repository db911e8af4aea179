"""Fixtures for tests of plugins.

pytest loads this module in every run in an environment with lensmount-testing, whatever is tested. So it imports pytest
alone, asks nothing of it that pytest 8 lacks, adds no option, marker or hook, and does its work inside the fixtures.
`-p no:lensmount` leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lensmount_testing.fake_backend import FakeBackend
    from lensmount_testing.isolation import IsolatedRegistry
    from lensmount_testing.throwaway import Throwaway


@pytest.fixture
def isolated_registry(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> IsolatedRegistry:
    """A registry with the core's own plugin alone, offline, with an empty store; `.discover()` adds installed ones."""
    from lensmount_testing.isolation import IsolatedRegistry, isolate

    isolate(tmp_path_factory.mktemp("lensmount") / "home", monkeypatch)
    return IsolatedRegistry()


@pytest.fixture
def sample_image() -> Any:
    """A picture, uint8 `(120, 160, 3)` BGR, always the same; the array is the test's own."""
    from lensmount_testing.pictures import sample

    return sample()


@pytest.fixture
def fake_backend() -> Iterator[FakeBackend]:
    """A backend that answers as the test says and records what it is fed; see `lensmount_testing.fake_backend`."""
    from lensmount_testing.fake_backend import FakeBackend

    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def tmp_plugin(tmp_path: Path) -> Iterator[Throwaway]:
    """Writes distributions with entry points that are found until the test ends; see `lensmount_testing.throwaway`."""
    from lensmount_testing.throwaway import Throwaway

    with Throwaway(tmp_path / "site") as folder:
        yield folder
