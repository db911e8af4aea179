"""Catalogues: a plugin's model cards as data, in a TOML file inside its package.

    [defaults]                      # for every model
    architecture = "mymodel"
    licence = "Apache-2.0"

    [classes]                       # lists of names that models refer to
    coco = ["person", "bicycle"]

    [[model]]
    each = [{ s = "n", sha = "6b86…" }, { s = "m" }]    # one card per row; optional
    id = "mymodel-{s}"
    task = "object-detection"
    classes = "coco"

    [[model.packages]]
    name = "onnx-fp32"
    format = "onnx"
    artifacts = [{ name = "weights.onnx", uri = "hf://me/mymodel-{s}/model.onnx", sha256 = "{sha}" }]

`{name}` in a string is replaced by the row's value. A value that is nothing but a placeholder takes the row's
value as it is (a number stays a number), and is left out where the row has none.
"""

from __future__ import annotations

import pkgutil  # importlib.resources would do the same, at 8 ms more to import
from collections.abc import Iterator, Mapping
from typing import Any

from lensmount.errors import LensmountError, PluginError, reason
from lensmount.specs.descriptors import ModelCard
from lensmount.specs.options import read_toml
from lensmount.specs.parsing import from_dict

_ABSENT = object()


def read_catalog(package: str, resource: str = "catalog.toml") -> tuple[ModelCard, ...]:
    """Reads the model cards in a plugin's catalogue; the head of this module describes its format.

    Args:
        package: Import name of the package that holds the file.
        resource: The file's name in it.

    Returns:
        The cards, in the file's order.

    Raises:
        PluginError: The file is missing or not a valid catalogue; the message names the entry.
    """
    where = f"{package}/{resource}"
    try:
        content = pkgutil.get_data(package, resource)
        if content is None:
            raise FileNotFoundError(f"package {package!r} has no files")
        return parse(read_toml(content), where)
    except (OSError, ImportError, ValueError, LensmountError) as error:
        raise PluginError(f"catalogue {where} cannot be used: {reason(error)}") from error


def parse(document: Mapping[str, Any], where: str) -> tuple[ModelCard, ...]:
    """Turns a parsed catalogue into cards; see the module's text for its form.

    Raises:
        PluginError: A table or a reference is unknown.
        ModelFileError: A value does not fit its descriptor.
    """
    unknown = sorted(set(document) - {"defaults", "classes", "model"})
    if unknown:
        raise PluginError(f"{where} has unknown tables", found=", ".join(unknown), expected="defaults, classes, model")
    defaults, lists, tables = document.get("defaults", {}), document.get("classes", {}), document.get("model", [])
    _require(isinstance(defaults, Mapping), f"{where}: defaults", defaults, "a table")
    _require(
        isinstance(lists, Mapping) and all(isinstance(names, list) for names in lists.values()),
        f"{where}: classes",
        lists,
        "a table of lists",
    )
    _require(_is_tables(tables), f"{where}: model", tables, "[[model]] tables")
    lists = {name: tuple(names) for name, names in lists.items()}
    cards = []
    for table in tables:
        for filled in _expand(table, where):
            merged = {**defaults, **filled}
            name = f"model {merged.get('id')!r} in {where}"
            classes = merged.get("classes", [])
            if isinstance(classes, str):
                if classes not in lists:
                    raise PluginError(f"{name} names unknown classes", found=classes, expected=", ".join(lists))
                merged["classes"] = lists[classes]
            cards.append(from_dict(ModelCard, merged, name))
    return tuple(cards)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _require(ok: bool, what: str, found: object, expected: str) -> None:
    if not ok:
        raise PluginError(f"{what} is not valid", found=repr(found)[:200], expected=expected)


def _expand(table: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    rest = {key: value for key, value in table.items() if key != "each"}
    if "each" not in table:
        yield rest
        return
    _require(_is_tables(table["each"]), f"{where}: each of {rest.get('id')!r}", table["each"], "a list of tables")
    for row in table["each"]:
        try:
            yield _fill(rest, row)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise PluginError(f"{where}: a placeholder of {rest.get('id')!r} is not in the row {row}") from error


def _fill(value: Any, row: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        if value.startswith("{") and value.endswith("}") and value[1:-1].isidentifier():
            return row.get(value[1:-1], _ABSENT)
        return value.format_map(row) if "{" in value else value
    if isinstance(value, Mapping):
        filled = {key: _fill(item, row) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not _ABSENT}
    if isinstance(value, list):
        return [item for item in (_fill(item, row) for item in value) if item is not _ABSENT]
    return value
