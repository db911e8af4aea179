"""The structure of the code, read from the syntax trees: no circles, a small core, rooms with faces.

Imports inside functions and for type checkers alone count as well: a circle that only shows in types is one that a
reader has to walk.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core/src/lensmount"
SOURCES = [ROOT / "core/src", *sorted(ROOT.glob("libraries/*/src")), *sorted(ROOT.glob("plugins/*/src"))]
SOURCES += sorted(ROOT.glob("examples/*/src"))


def modules() -> dict[str, Path]:
    """Every module of every distribution by its dotted name; a package is its `__init__`."""
    found = {}
    for source in SOURCES:
        for path in source.rglob("*.py"):
            parts = path.relative_to(source).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Modules of ours that a module imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known:  # `from package import module` reaches the module, not the package's face
                    yield name
                elif node.module in known:
                    yield node.module


def graph() -> dict[str, set[str]]:
    known = modules()
    return {
        name: set(imports(ast.parse(path.read_text(encoding="utf-8")), set(known))) - {name}
        for name, path in known.items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected parts with more than one member (Tarjan, SIAM J. Comput. 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    tree = ast.parse(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\ndef f():\n    from p import b, x"
    )
    assert list(imports(tree, {"a", "p", "p.b"})) == ["a", "p.b", "p"]


def test_no_import_circle_in_any_distribution() -> None:
    assert circles(graph()) == []


def test_no_module_imports_the_face_that_it_lies_behind() -> None:
    """`from lensmount_reading import x` is for others: inside, it would import every module of the package."""
    known = modules()
    found = {
        name: other
        for name, others in graph().items()
        for other in others
        if name.startswith(f"{other}.") and known[name].name != "__init__.py"
    }
    assert found == {}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_core_is_small() -> None:
    files = sorted(CORE.rglob("*.py"))
    assert sum(map(lines, files)) <= 12_000
    assert len(files) <= 100
    assert len(list(CORE.glob("*.py"))) <= 6
    assert sum(lines(path) for path in (CORE / "host").glob("*.py")) <= 2_900
    assert {path.relative_to(CORE).as_posix(): lines(path) for path in files if lines(path) > 450} == {}


#: What the core may import besides the standard library and itself (certifi comes with huggingface_hub).
CORE_NEEDS = {
    "certifi",
    "filelock",
    "huggingface_hub",
    "numpy",
    "packaging",
    "platformdirs",
    "pluggy",
    "rich",
    "tomli",
    "typer",
}
#: Only where a caller hands in tensors of torch, or opens a network of it, is torch imported.
ON_REQUEST = {"backend": {"torch"}, "caches": {"torch"}}


def foreign(path: Path) -> set[str]:
    import sys

    tops = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            tops.add(node.module.partition(".")[0])
    return tops - set(sys.stdlib_module_names) - CORE_NEEDS - {"lensmount"}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.relative_to(CORE).as_posix())
def test_the_core_needs_little(path: Path) -> None:
    room = path.relative_to(CORE).parts[0]
    assert foreign(path) <= ON_REQUEST.get(room, set())


ROOMS = sorted(
    path.parent
    for source in SOURCES
    if "examples" not in source.parts
    for path in source.rglob("__init__.py")
    if "tests" not in path.parts
)


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_a_room_says_what_it_is(room: Path) -> None:
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert text and text.rstrip().endswith(".")
