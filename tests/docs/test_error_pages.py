"""Each typed error has its page, which says what its class says; each message names its page, which ships in the wheel.

That the messages on the pages are true is tested with the other snippets: each is provoked there.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
from pathlib import Path

import pytest

import lensmount
from lensmount import errors
from lensmount.cli.errors import folder, read

DOCS = Path(__file__).resolve().parents[2] / "docs/errors"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
INDEX = PAGES.pop("index")
CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.LensmountError)
}


def section(page: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert found, f"there is no section {heading}"
    return found[1]


def test_every_class_has_a_page_and_every_page_a_class() -> None:
    assert len(CLASSES) >= 25
    assert set(PAGES) == set(CLASSES)


def test_the_index_lists_them_all() -> None:
    assert set(re.findall(r"\[`(\w+)`\]\((\w+)\.md\)", INDEX)) == {(name, name) for name in CLASSES}


@pytest.mark.parametrize("name", CLASSES)
def test_a_page(name: str) -> None:
    page, kind = PAGES[name], CLASSES[name]
    assert page.startswith(f"# {name}\n\n")
    assert re.findall(r"^## (.*)$", page, re.M) == ["Causes", "Fix", "Example"]
    caught = [base.__name__ for base in kind.__mro__[1:] if base not in (Exception, BaseException, object)]
    line = ", ".join(f"`{base}`" for base in caught or ["Exception"])
    assert f"\nCaught as well by {line}.\n" in page
    assert len(section(page, "Causes")) > 40
    assert "`" in section(page, "Fix") or name in ("InputError", "ClosedError")


@pytest.mark.parametrize("name", CLASSES)
def test_a_page_provokes_its_error(name: str) -> None:
    example = section(PAGES[name], "Example")
    if name == "LensmountError":  # the base is never raised itself
        assert "except LensmountError as error" in example
        return
    told = re.findall(r"^Traceback .*\n    \.\.\.\n(?:\w+\.)+(\w+): .*(?:\n(?!>>>).*)*?\n  see: (.*)$", example, re.M)
    assert told
    for kind, see in told:
        assert kind == name or (kind, name) == ("MissingFilesError", "OfflineError")
        assert see == f"lensmount errors {name}"


@pytest.mark.parametrize("name", CLASSES)
def test_a_message_ends_with_its_page(name: str) -> None:
    for fields in ({}, {"found": "a", "expected": "b", "fix": "c"}):
        error = CLASSES[name]("it is broken", **fields)
        assert str(error) == f"{error.details}\n  see: lensmount errors {name}"
        assert error.details == "\n".join(["it is broken", *(f"  {label}: {text}" for label, text in fields.items())])
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.page) == (type(error), str(error), name)


def test_a_class_of_a_plugin_has_the_page_of_its_parent() -> None:
    class MineError(errors.ImageError):
        pass

    assert MineError("x").page == "ImageError"
    assert errors.reason(MineError("x", fix="y")) == "x\n  fix: y"
    assert errors.reason(KeyError("x")) == "KeyError: 'x'"


def test_no_error_of_the_core_hides_elsewhere() -> None:
    """Every subclass in the core, wherever it is defined, has a message that leads to a page."""
    for module in pkgutil.walk_packages(lensmount.__path__, "lensmount."):
        if module.name.startswith("lensmount.store"):
            importlib.import_module(module.name)
    pending, seen = [errors.LensmountError], set()
    while pending:
        kind = pending.pop()
        seen.add(kind)
        pending += kind.__subclasses__()
    assert len(seen) > len(CLASSES)  # MissingFilesError at the least
    assert {kind("x").page for kind in seen} <= set(PAGES)


def test_the_command_prints_a_page(lensmount) -> None:
    done = lensmount("errors", "ImageError")
    assert (done.status, done.err) == (0, "")
    assert done.out == PAGES["ImageError"]
    assert lensmount("errors", "lensmount.errors.imageerror").out == done.out
    assert lensmount("errors").out == INDEX


def test_what_is_hidden_on_a_page_is_not_printed(lensmount) -> None:
    assert "ThreadingHTTPServer" in PAGES["AuthenticationError"]
    said = lensmount("errors", "AuthenticationError").out
    assert "ThreadingHTTPServer" not in said and "<!--" not in said
    assert "answers with 401:\n\n```pycon" in said


def test_a_name_that_no_error_has(lensmount) -> None:
    done = lensmount("errors", "ImgeError")
    assert done.status == 1
    assert "there is no error 'ImgeError'" in done.err and "fix: lensmount errors ImageError" in done.err
    assert done.err.endswith("see: lensmount errors InputError\n")


def test_an_installation_without_pages_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("lensmount.cli.errors.folder", lambda: tmp_path)
    with pytest.raises(errors.PluginError, match="lacks its pages"):
        read("ImageError")


def test_a_checkout_reads_its_own_pages() -> None:
    assert folder().resolve() in (DOCS, Path(lensmount.__file__).parent / "error_pages")
