"""What start-up imports, and what hook modules may: read from `sys.modules` in fresh processes, and from the syntax."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core/src/lensmount"
HEAVY = {"numpy", "torch", "cv2", "onnxruntime", "transformers"}
# what `import lensmount` alone does not need either
NOT_AT_IMPORT = HEAVY | {"pydantic", "rich", "typer", "click", "huggingface_hub", "pluggy", "packaging", "asyncio"}
HOOK_MODULES = sorted([*ROOT.glob("plugins/*/src/*/plugin.py"), *ROOT.glob("examples/*/src/*/plugin.py")])
BUILTIN = CORE / "host/builtin.py"
MOST_LINES = 80

REPORT = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def present(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not written yet: {', '.join(missing)}")


def imported_by(code: str) -> set[str]:
    """Top-level names of all modules in a fresh process after `code`."""
    done = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_heavy_packages_are_installed() -> None:
    """The tests below could not fail where nothing heavy is there to be imported."""
    assert {name for name in ("numpy", "cv2", "onnxruntime") if importlib.util.find_spec(name) is None} == set()
    assert "numpy" in imported_by("import numpy")


def test_import_lensmount() -> None:
    assert imported_by("import lensmount") & NOT_AT_IMPORT == set()


def test_import_every_public_descriptor() -> None:
    assert imported_by("import lensmount.specs, lensmount.errors, lensmount.specs.hookspecs") & HEAVY == set()


@present("lensmount.registry", "lensmount.host.builtin")
def test_registry_models() -> None:
    assert imported_by("from lensmount import registry; assert registry.models() is not None") & HEAVY == set()


@present("lensmount.registry", "lensmount.host.builtin")
def test_registry_plugins_and_describe() -> None:
    code = (
        "from lensmount import registry; registry.plugins(); [registry.describe(card.id) for card in registry.models()]"
    )
    assert imported_by(code) & HEAVY == set()


@present("lensmount.cli", "lensmount.__main__")
@pytest.mark.parametrize(
    "line", ["--help", "--version", "predict --help", "bench --help", "new-plugin --help", "models"]
)
def test_command_line(line: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['lensmount', *{line.split()!r}]\n"
        "try:\n    runpy.run_module('lensmount', run_name='__main__')\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code"
    )
    assert imported_by(code) & HEAVY == set()


# --- read from the syntax ---------------------------------------------------------------------------------------------


def imports_of(node: ast.AST) -> Iterator[str]:
    """Dotted names that the import statements below a node ask for."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield "." * child.level + (child.module or "")


def on_import(tree: ast.Module) -> Iterator[str]:
    """Dotted names imported when the module itself is: at its top level, type-checking blocks left out."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from statements(node.orelse)
            elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
                for part in ("body", "orelse", "finalbody"):
                    yield from statements(getattr(node, part, []))
                for handler in getattr(node, "handlers", []):
                    yield from statements(handler.body)
            else:
                yield node

    for statement in statements(tree.body):
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield from imports_of(statement)


@pytest.mark.parametrize("path", [*HOOK_MODULES, BUILTIN], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_hook_module(path: Path) -> None:
    """A hook module runs at discovery, in every process: descriptors only, from `lensmount.specs`."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    foreign = [
        name
        for name in imports_of(ast.parse(text))  # also inside functions: hooks are called at discovery
        if name != "lensmount.specs" and name.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert foreign == []


def start_up_modules() -> list[Path]:
    """Core modules that `import lensmount`, discovery and the command line's help go through."""
    names = "__init__ __main__ errors lazy registry cli/__init__ host/builtin host/discovery host/plan host/resolve"
    names += " host/selection host/site machine/environment specs/__init__ specs/catalog specs/descriptors"
    names += " specs/extensions specs/hookspecs specs/imports specs/offline specs/options specs/parsing"
    names += " contracts/__init__ contracts/cache contracts/finder contracts/model contracts/session backend/__init__"
    names += " caches/__init__ store/__init__"
    return [CORE / f"{name}.py" for name in names.split()]


@pytest.mark.parametrize("path", start_up_modules(), ids=lambda p: p.relative_to(CORE).as_posix())
def test_start_up_module_imports_nothing_heavy(path: Path) -> None:
    banned = HEAVY | {"pydantic", "huggingface_hub", "PIL", "rich", "supervision", "safetensors", "tensorrt"}
    assert {name.partition(".")[0] for name in on_import(ast.parse(path.read_text(encoding="utf-8")))} & banned == set()


#: Modules that `lensmount_tensorrt.backend` imports once it knows that TensorRT is there.
WITH_TENSORRT = {"cuda_memory", "build", "engine", "lanes", "log", "pool", "progress", "session"}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda p: p.relative_to(CORE).as_posix())
def test_core_module(path: Path) -> None:
    """The core imports no plugin, anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [name for name in imports_of(tree) if name.startswith("lensmount_")] == []


LIBRARIES = [ROOT / "core/src", *ROOT.glob("libraries/*/src")]
BACKENDS = [ROOT / f"plugins/{name}/src" for name in ("bench", "onnx", "tensorrt", "torch")]
#: Reached only when torch is used: the device path, and what is named after torch.
WITH_TORCH = re.compile(r"torch|lensmount_vision/(device/|images/on_device)")


@pytest.mark.parametrize(
    "path",
    sorted(path for source in (*LIBRARIES, *BACKENDS) for path in source.rglob("*.py")),
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_no_runtime_is_imported_with_a_module(path: Path) -> None:
    """torch or another runtime is imported when it is used, never when a module itself is imported."""
    place = path.relative_to(ROOT).as_posix()
    if WITH_TORCH.search(place):
        return
    runtimes = {"torch", "onnxruntime", "tensorrt", "cuda", "transformers", "supervision", "onnx"}
    allowed = {"tensorrt", "cuda"} if "lensmount_tensorrt/" in place and path.stem in WITH_TENSORRT else set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert {name.partition(".")[0] for name in on_import(tree)} & runtimes <= allowed


def test_the_reader_of_syntax_sees() -> None:
    tree = ast.parse(
        "import a.b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import c\nelse:\n    import d\n"
        "try:\n    import e\nexcept ImportError:\n    from f import x\ndef g():\n    import h\nclass I:\n    import j\n"
    )
    assert list(on_import(tree)) == ["a.b", "typing", "d", "e", "f", "j"]
    assert set(imports_of(tree)) == {"a.b", "typing", "c", "d", "e", "f", "h", "j"}
