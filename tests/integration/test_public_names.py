"""Third parties need public names alone: what examples, templates, the Roboflow plugin and the docs import is public.

Public are the names in `__all__` of the places that tests/support/public_api.py lists.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from public_api import PLACES

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {place for places in PLACES.values() for place in places}
#: Public modules that are no face of a distribution or a room.
SUBMODULES = {
    "lensmount.errors",
    "lensmount.registry",
    "lensmount.specs.options",
    "lensmount.cli.output",
    "lensmount.cli.settings",
}
OURS = re.compile(r"lensmount(_(reading|vision|testing|bench))?(\.|$)")

OUTSIDERS = sorted(
    [
        *ROOT.glob("examples/lensmount-*/**/*.py"),
        *ROOT.glob("plugins/roboflow/src/lensmount_roboflow/*.py"),
        *ROOT.glob("libraries/testing/src/lensmount_testing/scaffold/templates/**/*.py.tmpl"),
    ]
)
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("**/README.md")])
BLOCK = re.compile(r"^([ \t]*)```(?:python|py|pycon)\b[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def imported(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Modules of ours that are imported, each with the name taken from it, or None for the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if OURS.match(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and OURS.match(node.module):
            yield from ((node.module, alias.name) for alias in node.names)


def private(tree: ast.AST) -> list[str]:
    """Imports of what is not public."""
    found = []
    for module, name in imported(tree):
        itself = module if name is None else f"{module}.{name}"
        if itself in PUBLIC or (name is None and any(place.startswith(f"{module}.") for place in PUBLIC)):
            continue
        if name is None or module not in PUBLIC or name not in import_module(module).__all__:
            found.append(f"import {module}" if name is None else f"from {module} import {name}")
    return found


def blocks(text: str) -> Iterator[ast.Module]:
    """The python blocks of a page; of interactive ones the lines that are typed in."""
    for _, block in BLOCK.findall(text):
        code = textwrap.dedent(block)
        if ">>> " in code:
            code = "\n".join(line[4:] for line in code.splitlines() if line.startswith((">>> ", "... ")))
        try:
            yield ast.parse(code)
        except SyntaxError:  # a sketch, with `...` in the place of code
            continue


def test_the_public_submodules() -> None:
    places = {place for place in PUBLIC if not (ROOT / "core/src" / place.replace(".", "/")).is_dir()}
    assert {place for place in places if place.startswith("lensmount.")} == SUBMODULES


@pytest.mark.parametrize("path", OUTSIDERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_outsiders_import_public_names(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".tmpl":
        text = re.sub(r"\$\{?(\w+)\}?", r"\1", text)  # places for names
    assert private(ast.parse(text)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_import_public_names(path: Path) -> None:
    assert [name for tree in blocks(path.read_text(encoding="utf-8")) for name in private(tree)] == []


def test_private_names_are_seen() -> None:
    tree = ast.parse(
        "from lensmount.store import Store, Ledger\nfrom lensmount.store.store import Store\n"
        "import lensmount\nimport lensmount.registry\nimport lensmount.host.site\nfrom lensmount import registry\n"
        "from lensmount_vision import images\nfrom lensmount_vision.images import load\nimport lensmount_yolo.model\n"
        "def f():\n    from lensmount.machine import nvidia"
    )
    assert private(tree) == [
        "from lensmount.store import Ledger",
        "from lensmount.store.store import Store",
        "import lensmount.host.site",
        "from lensmount.machine import nvidia",
    ]
    page = (
        "```python\nimport a\n```\n\n"
        "    ```pycon\n    >>> import b\n    >>> if b:\n    ...     import c\n    said\n    ```\n"
        "```text\nimport d\n```"
    )
    found = [node.names[0].name for tree in blocks(page) for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert found == ["a", "b", "c"]
    assert OUTSIDERS and PAGES
