"""docs/conformance.md says what the contracts test: every promise in the words of the code, with a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import lensmount_testing
from lensmount_testing import pytest_plugin

PAGE = (Path(__file__).resolve().parents[2] / "docs/conformance.md").read_text(encoding="utf-8")
CONTRACTS = {name: getattr(lensmount_testing, name) for name in lensmount_testing.__all__ if name.endswith("Contract")}


def promises(contract: type) -> dict[str, str]:
    """First line of the docstring of each test."""
    return {
        name: (getattr(contract, name).__doc__ or "").strip().partition("\n")[0]
        for name in dir(contract)
        if name.startswith("test_")
    }


def tables() -> list[dict[str, tuple[str, str]]]:
    """Promise and reason by test, of each table of promises."""
    found = []
    for body in re.findall(r"^\| test \| promise \| why \|\n\|[-|]+\|\n((?:\|.*\n?)+)", PAGE, flags=re.M):
        rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in body.splitlines()]
        assert all(len(row) == 3 for row in rows), [row for row in rows if len(row) != 3]
        found.append({test.strip("`"): (promise, why) for test, promise, why in rows})
    return found


@pytest.mark.parametrize("name", CONTRACTS)
def test_promises(name: str) -> None:
    wanted = promises(CONTRACTS[name])
    (table,) = (table for table in tables() if set(table) & set(wanted) and set(table) <= set(wanted))
    assert {test: promise for test, (promise, _) in table.items()} == wanted


def test_every_promise_has_a_reason() -> None:
    assert [test for table in tables() for test, (_, why) in table.items() if not re.fullmatch(r".{12,}\.", why)] == []
    assert sum(map(len, tables())) == sum(len(promises(contract)) for contract in CONTRACTS.values())


def test_promises_are_sentences() -> None:
    """They stand in the tables alone."""
    every = [text for contract in CONTRACTS.values() for text in promises(contract).values()]
    assert [text for text in every if not re.fullmatch(r"[A-Z`].*\.", text)] == []


def test_fixtures() -> None:
    section = PAGE.partition("## Fixtures")[2]
    named = set(re.findall(r"^\| `(\w+)` \|", section, flags=re.M))
    tree = ast.parse(Path(pytest_plugin.__file__).read_text(encoding="utf-8"))
    assert named == {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
