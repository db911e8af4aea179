"""docs/hooks.md says what the code says; the examples in the hooks' docstrings run."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from lensmount import specs
from lensmount.specs import hookspecs

PAGE = (Path(__file__).resolve().parents[2] / "docs/hooks.md").read_text(encoding="utf-8")
HOOKS = {name: spec for name, spec in vars(hookspecs.LensmountHooks).items() if name.startswith("lensmount_")}


def sections() -> dict[str, str]:
    parts = re.split(r"^## `(\w+)`$", PAGE, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def described(section: str, descriptor: str) -> list[str]:
    """Names in the first column of the descriptor's table."""
    (table,) = re.findall(rf"^\| field of `{descriptor}` \| \|\n\|---\|---\|\n((?:\|.*\n?)+)", section, flags=re.M)
    return re.findall(r"^\| `(\w+)` \|", table, flags=re.M)


def test_there_are_hooks() -> None:
    assert len(HOOKS) >= 5


def test_the_page_has_each_hook_and_no_other() -> None:
    assert list(sections()) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_signature_and_example(name: str) -> None:
    signature = inspect.signature(HOOKS[name])
    parameters = [p for p in signature.parameters if p != "self"]
    assert f"```text\n{name}({', '.join(parameters)}) -> {signature.return_annotation}\n```" in sections()[name]
    assert f"@hookimpl\ndef {name}(" in sections()[name]


@pytest.mark.parametrize(
    "descriptor", ["Architecture", "Backend", "Source", "CacheProvider", "Reader", "Command", "Exporter", "Selector"]
)
def test_fields(descriptor: str) -> None:
    kind = getattr(specs, descriptor)
    (section,) = (text for text in sections().values() if f"field of `{descriptor}`" in text)
    assert described(section, descriptor) == [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("name", HOOKS)
def test_docstring_example_runs(name: str) -> None:
    spec = HOOKS[name]
    tests = doctest.DocTestFinder(recurse=False).find(spec, name, globs={})
    (test,) = (test for test in tests if test.examples)
    assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
    produced = test.globs[name]
    assert produced.lensmount_impl is not None  # marked as an implementation
    assert get_type_hints(spec)["return"]
