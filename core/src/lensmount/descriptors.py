"""Descriptors from plain data: the strict inverse of `specs.to_dict`, for catalogues and manifests."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lensmount.errors import LensmountError, ModelFileError

T = TypeVar("T")
_HINTS: dict[type, dict[str, Any]] = {}


def from_dict(kind: type[T], data: object, where: str) -> T:
    """Builds a descriptor from plain values, refusing unknown keys and wrong types.

    Args:
        kind: A dataclass of `lensmount.specs`.
        data: What `to_dict` made, or what a TOML or JSON file holds. Pairs may be tables.
        where: Names the place for messages: `model 'yolov8n-640' in lensmount_yolo/catalog.toml`.

    Returns:
        The descriptor.

    Raises:
        ModelFileError: A key is unknown or missing, or a value has the wrong type; the message names it.
    """
    if not isinstance(data, Mapping):
        raise ModelFileError(f"{where} should be a table", found=type(data).__name__, expected="a table")
    hints = _HINTS.get(kind)
    if hints is None:
        hints = _HINTS[kind] = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]  # callers pass dataclasses only
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ModelFileError(f"{where} has unknown keys", found=", ".join(unknown), expected=", ".join(known))
    missing = [
        name for name, f in known.items() if name not in data and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ModelFileError(f"{where} lacks keys", found=", ".join(sorted(data)), expected=", ".join(missing))
    values = {name: _convert(hints[name], value, f"{where}: {name}") for name, value in data.items()}
    try:
        return kind(**values)
    except LensmountError as error:
        raise ModelFileError(f"{where}: {error.problem}", found=error.found, expected=error.expected) from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if type(value) is hint:  # most values of a catalogue are plain strings; this keeps listing models quick
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(next(o for o in options if o is not type(None)), value, where)
    if hint is Any:
        return freeze(value)
    if origin is Literal:
        if value not in get_args(hint):
            raise ModelFileError(f"{where} is not one of its values", found=repr(value), expected=str(get_args(hint)))
        return value
    if origin is tuple:
        return _convert_tuple(get_args(hint), value, where)
    if is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ModelFileError(f"{where} has the wrong type", found=repr(value), expected=hint.__name__)
    return value


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, Mapping) and get_origin(args[0]) is tuple:  # pairs written as a table
        value = list(value.items())
    if not isinstance(value, list | tuple):
        raise ModelFileError(f"{where} should be a list", found=repr(value), expected="a list")
    if len(args) == 2 and args[1] is Ellipsis:
        if args[0] is str and all(type(item) is str for item in value):  # class names: long, and many cards share them
            return value if isinstance(value, tuple) else tuple(value)
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(args):
        raise ModelFileError(f"{where} has the wrong length", found=str(len(value)), expected=str(len(args)))
    return tuple(_convert(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(args, value, strict=True)))


def freeze(value: Any) -> Any:
    """Lists become tuples and tables become pairs, so that what holds them is hashable."""
    if isinstance(value, Mapping):
        return tuple((key, freeze(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value
