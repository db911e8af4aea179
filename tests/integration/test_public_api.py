"""The public interface is what tests/public_api says: a change of it is seen, and meant."""

from __future__ import annotations

import difflib
from importlib import import_module

import pytest

from public_api import FOLDER, PLACES, described, text


@pytest.mark.parametrize("distribution", PLACES)
def test_the_public_interface(distribution: str) -> None:
    """A difference is either a mistake, or a change that users are told of (CHANGELOG.md, docs/compatibility.md)."""
    written = (FOLDER / f"{distribution}.txt").read_text(encoding="utf-8")
    found = text(distribution)
    changes = "\n".join(difflib.unified_diff(written.splitlines(), found.splitlines(), "written", "found", lineterm=""))
    assert written == found, f"\n{changes}\nif this is meant: python tests/support/public_api.py"


def test_no_other_snapshot_lies_around() -> None:
    assert {path.stem for path in FOLDER.glob("*")} == set(PLACES)


@pytest.mark.parametrize("place", [place for places in PLACES.values() for place in places])
def test_every_public_name_is_there_and_described(place: str) -> None:
    module = import_module(place)
    assert module.__doc__
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value) and getattr(value, "__module__", "").startswith("lensmount"):
            assert value.__doc__, f"{place}.{name} says nothing"


def test_a_changed_signature_is_seen() -> None:
    def load(name: str, *, device: str | None = None) -> int:
        """Loads."""
        return len(name)

    assert list(described("load", load)) == ["load(name: str, *, device: str | None = None) -> int"]
