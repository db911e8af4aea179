"""Writes the tables of the documentation that follow from the code: `python docs/tools/tables.py [--check]`.

A page holds the place of a table between two comments, and the table itself, so that it can be read anywhere:

    <!-- table: ids yolo -->              model ids of a plugin's catalogue
    <!-- table: load yolo -->             load options that an architecture adds
    <!-- table: fields MODULE:CLASS -->   fields of a dataclass with their meaning
    <!-- table: call MODULE:CLASS.NAME --> parameters of a call
    <!-- table: extras -->                extras of the core
    <!-- table: moving PARAMETERS -->     parameters of inference-models, and what becomes of them
    <!-- table: oracles loads -->         files of the references' packages, as tests/oracles found them; or `refused`
    <!-- end -->

tests/docs/test_tables.py fails while a page says something else than the code.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "core/README.md"]
PLACE = re.compile(r"^<!-- table: (?P<what>[^>]+?) -->\n(?P<table>.*?)^<!-- end -->$", re.M | re.S)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def found(path: str) -> Any:
    """What an import string with dots after the colon names."""
    module, _, names = path.partition(":")
    value = importlib.import_module(module)
    for name in names.split("."):
        value = getattr(value, name)
    return value


def described(value: Any, section: str) -> dict[str, str]:
    """The entries of one section of a docstring in Google style, by name."""
    body = re.search(rf"^{section}:\n((?:    .*\n|\n)+)", inspect.getdoc(value) + "\n\n", re.M)
    if body is None:
        return {}
    entries = re.findall(r"^    (\*{0,2}\w+): (.*\n(?:     .*\n|\n(?=     ))*)", body[1], re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def default(value: Any) -> str:
    """A default as code."""
    return "" if value in (dataclasses.MISSING, inspect.Parameter.empty) else f"`{value!r}`"


# --- the tables -------------------------------------------------------------------------------------------------------


def ids(plugin: str) -> str:
    """Model ids of a catalogue, those that differ in nothing but size in one row."""
    from lensmount.specs import ModelCard, read_catalog

    groups: dict[tuple[str, ...], list[ModelCard]] = {}
    for card in read_catalog(f"lensmount_{plugin}"):
        formats = ", ".join(dict.fromkeys(f"{p.format} {p.precision}" for p in card.packages))
        groups.setdefault((card.description, card.task, formats, card.licence), []).append(card)
    rows = []
    for (description, task, formats, licence), cards in groups.items():
        also = dict.fromkeys(f"`{alias}`" for card in cards for alias in card.aliases)
        rows.append((", ".join(f"`{card.id}`" for card in cards), ", ".join(also), description, task, formats, licence))
    return table(("id", "also", "what", "task", "packages", "licence of the weights"), rows)


def fields(path: str) -> str:
    """Fields of a dataclass."""
    kind = found(path)
    texts = {name: text for base in reversed(kind.__mro__) for name, text in described(base, "Attributes").items()}
    rows = []
    for field in dataclasses.fields(kind):
        value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        rows.append((f"`{field.name}`", default(value), texts[field.name]))
    return (
        table(("option", "default", "meaning"), rows)
        if any(row[1] for row in rows)
        else table(("field", "meaning"), [(name, text) for name, _, text in rows])
    )


def load(architecture: str) -> str:
    """Load options that an architecture adds to the common ones."""
    from lensmount import registry

    options = registry.default().index.architectures[architecture].options
    assert options is not None, f"{architecture} adds no load options"
    return fields(options)


def call(path: str) -> str:
    """Parameters of a call."""
    function = found(path)
    texts = described(function, "Args")
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self":
            continue
        stars = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
        rows.append((f"`{stars}{name}`", default(parameter.default), texts[stars + name]))
    return table(("argument", "default", "meaning"), rows)


def extras() -> str:
    """Extras of the core and what they bring."""
    project = tomllib.loads((ROOT / "core/pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = [
        (f"`{name}`", ", ".join(f"`{need.partition(';')[0].strip()}`" for need in needs))
        for name, needs in project["optional-dependencies"].items()
    ]
    return table(("extra", "installs"), rows)


def moving(name: str) -> str:
    """Parameters of inference-models, and what becomes of them."""
    words = {"translated": "translated: ", "notice": "accepted, with a notice: ", "refused": "refused: "}
    rows = [
        (f"`{row.name}`", default(row.default), words[row.does] + row.says)
        for row in found(f"lensmount_vision.moving:{name}")
    ]
    return table(("parameter", "default", "what happens"), rows)


def oracles(part: str) -> str:
    """What tests/oracles found on files that the references' own packages wrote."""
    found = json.loads((ROOT / "tests/oracles/outcome.json").read_text(encoding="utf-8"))[part]
    rows = [found[key] for key in sorted(found)]
    if part == "refused":
        return table(("written by", "file", "what is said"), [(r["writer"], r["file"], r["said"]) for r in rows])

    def differences(row: dict[str, Any]) -> str:
        largest = [f"{name} {value:.1g}" for name, value in sorted(row["largest"].items())]
        return "; ".join([*largest, *(f"{name} {value:.5g}" for name, value in sorted(row["least"].items()))])

    head = ("written by", "file", "recognised by", "networks", "largest difference")
    return table(head, [(r["writer"], r["file"], r["by"], str(r["configurations"]), differences(r)) for r in rows])


TABLES: dict[str, Callable[..., str]] = {f.__name__: f for f in (ids, fields, load, call, extras, moving, oracles)}


def refreshed(text: str) -> str:
    """A page with its tables written again."""

    def replace(place: re.Match[str]) -> str:
        kind, *arguments = place["what"].split()
        return f"<!-- table: {place['what']} -->\n{TABLES[kind](*arguments)}<!-- end -->"

    return PLACE.sub(replace, text)


def main() -> int:
    """Writes what differs, or with --check only says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 where a table is stale")
    arguments = parser.parse_args()
    stale = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = refreshed(text)
        if new != text:
            stale += 1
            print(page.relative_to(ROOT))
            if not arguments.check:
                page.write_text(new, encoding="utf-8")
    return int(bool(stale and arguments.check))


if __name__ == "__main__":
    sys.exit(main())
