"""The public interface of every distribution, as text: every name of every public place, with its signature.

    python tests/support/public_api.py     # writes tests/public_api/*.txt anew

Public are the names in `__all__` of the places listed here; docs/compatibility.md says what that promises.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "public_api"
PLACES = {
    "lensmount": (
        "lensmount",
        "lensmount.registry",
        "lensmount.errors",
        "lensmount.specs",
        "lensmount.specs.options",
        "lensmount.contracts",
        "lensmount.store",
        "lensmount.backend",
        "lensmount.caches",
        "lensmount.cli.output",
        "lensmount.cli.settings",
    ),
    "lensmount_networks": ("lensmount_networks", "lensmount_networks.ops", "lensmount_networks.layers"),
    "lensmount_reading": ("lensmount_reading",),
    "lensmount_vision": (
        "lensmount_vision.images",
        "lensmount_vision.results",
        "lensmount_vision.device",
        "lensmount_vision.tracking",
        "lensmount_vision.models",
        "lensmount_vision.towers",
        "lensmount_vision.moving",
    ),
    "lensmount_testing": ("lensmount_testing",),
    "lensmount_bench": ("lensmount_bench",),
    "lensmount_serve": ("lensmount_serve",),
}


class Text(str):
    """An annotation that is shown as it stands in the source, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def signature(value: Any) -> str:
    """A callable's parameters and what it returns, as they stand in the source."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [
        p.replace(annotation=Text(p.annotation)) if isinstance(p.annotation, str) else p
        for p in found.parameters.values()
    ]
    returns = Text(found.return_annotation) if isinstance(found.return_annotation, str) else found.return_annotation
    return str(found.replace(parameters=parameters, return_annotation=returns))


def members(kind: type) -> Iterator[str]:
    """What a class adds of its own: fields, properties and methods that do not start with an underscore."""
    for name, value in sorted(vars(kind).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            returns = inspect.get_annotations(value.fget).get("return", "Any") if value.fget else "Any"
            yield f"    {name}: property -> {returns}".replace("'", "")
        elif isinstance(value, (staticmethod, classmethod)):
            yield f"    {name}: {type(value).__name__} {signature(value.__func__)}"
        elif inspect.isfunction(value):
            yield f"    {name}{signature(value)}"


def described(name: str, value: Any) -> Iterator[str]:
    """One public name in one line; a class with its members on the lines below."""
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})" if bases else f"class {name}"
        if is_dataclass(value):
            yield from (f"    {field.name}: {field.type}" for field in fields(value) if not field.name.startswith("_"))
        elif not issubclass(value, BaseException) and "__init__" in vars(value):
            yield f"    __init__{signature(value.__init__)}"
        yield from members(value)
    elif callable(value):
        yield f"{name}{signature(value)}"
    elif inspect.ismodule(value):
        yield f"{name}: module"
    elif name == "__version__":
        yield f"{name}: str"
    else:
        yield f"{name}: {type(value).__name__}"


def text(distribution: str) -> str:
    """The public names of a distribution's places."""
    blocks = []
    for place in PLACES[distribution]:
        module = import_module(place)
        rows = [row for name in sorted(module.__all__) for row in described(name, getattr(module, name))]
        blocks.append("\n".join([f"# {place}", *rows]))
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for distribution in PLACES:
        (FOLDER / f"{distribution}.txt").write_text(text(distribution), encoding="utf-8")


if __name__ == "__main__":
    main()
