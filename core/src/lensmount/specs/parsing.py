"""Descriptors from plain data: the strict inverse of `specs.to_dict`, for catalogues.

Listing models reads hundreds of tables, so each dataclass is compiled once to one function per field, and the place
of a mistake is put together only when there is one.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lensmount.errors import LensmountError, ModelFileError
from lensmount.specs.options import is_whole

T = TypeVar("T")
Convert = Callable[[Any], Any]
_COMPILED: dict[type[Any], Convert] = {}


class _BadValueError(Exception):
    """A value that does not fit; the way to it is gathered while the exception rises."""

    def __init__(self, problem: str, found: str, expected: str) -> None:
        super().__init__(problem)
        self.problem, self.found, self.expected = problem, found, expected
        self.way = ""


def from_dict(kind: type[T], data: object, where: str) -> T:
    """Builds a descriptor from plain values, refusing unknown keys and wrong types.

    Args:
        kind: A dataclass of `lensmount.specs.descriptors`.
        data: What `to_dict` made, or what a TOML or JSON file holds. Pairs may be tables.
        where: Names the place for messages: `model 'yolov8n-640' in lensmount_yolo/catalog.toml`.

    Returns:
        The descriptor.

    Raises:
        ModelFileError: A key is unknown or missing, or a value has the wrong type; the message names it.
    """
    try:
        made: T = _dataclass(kind)(data)
    except _BadValueError as error:
        raise ModelFileError(
            f"{where}{error.way}{error.problem}", found=error.found, expected=error.expected
        ) from error.__cause__
    return made


def _at(convert: Convert, value: Any, place: str | int) -> Any:
    """Converts the value of a field, or of a place in a list."""
    try:
        return convert(value)
    except _BadValueError as error:
        error.way = (f": {place}" if isinstance(place, str) else f"[{place}]") + error.way
        raise


def _dataclass(kind: type[Any]) -> Convert:
    if kind not in _COMPILED:
        _COMPILED[kind] = _compile(kind)
    return _COMPILED[kind]


def _compile(kind: type[Any]) -> Convert:
    hints = get_type_hints(kind)
    converters = {f.name: _converter(hints[f.name]) for f in fields(kind)}
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}

    def convert(data: Any) -> Any:
        if isinstance(data, kind):
            return data
        if not isinstance(data, Mapping):
            raise _BadValueError(" should be a table", type(data).__name__, "a table")
        if not data.keys() <= converters.keys():
            unknown = ", ".join(sorted(set(data) - set(converters)))
            raise _BadValueError(" has unknown keys", unknown, ", ".join(converters))
        if not required <= data.keys():
            missing = ", ".join(name for name in converters if name in required and name not in data)
            raise _BadValueError(" lacks keys", ", ".join(sorted(data)), missing)
        values = {name: _at(converters[name], value, name) for name, value in data.items()}
        try:
            return kind(**values)
        except LensmountError as error:
            raise _BadValueError(f": {error.problem}", error.found or "", error.expected or "") from error

    return convert


def _converter(hint: Any) -> Convert:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = get_args(hint)
        inner = _converter(next(option for option in options if option is not type(None)))
        return (lambda value: None if value is None else inner(value)) if type(None) in options else inner
    if hint is Any:
        return freeze
    if origin is Literal:
        return _literal(get_args(hint))
    if origin is tuple:
        args = get_args(hint)
        return _sequence(args[0]) if len(args) == 2 and args[1] is Ellipsis else _row(args)
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass(hint)
    return _plain(hint)


def _plain(hint: type[Any]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is hint:
            return value
        if hint in (int, float) and is_whole(value):
            return hint(value)
        if not isinstance(value, hint) or isinstance(value, bool):
            raise _BadValueError(" has the wrong type", repr(value), hint.__name__)
        return value

    return convert


def _literal(allowed: tuple[Any, ...]) -> Convert:
    def convert(value: Any) -> Any:
        if value not in allowed:
            raise _BadValueError(" is not one of its values", repr(value), str(allowed))
        return value

    return convert


def _items(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _BadValueError(" should be a list", repr(value), "a list")
    return value


def _sequence(hint: Any) -> Convert:
    inner = _converter(hint)
    pairs = get_origin(hint) is tuple

    def convert(value: Any) -> Any:
        if pairs and isinstance(value, Mapping):  # pairs written as a table
            value = list(value.items())
        items = _items(value)
        if hint is str and all(type(item) is str for item in items):  # class names: long, and many cards share them
            return items if isinstance(items, tuple) else tuple(items)
        return tuple(_at(inner, item, i) for i, item in enumerate(items))

    return convert


def _row(args: tuple[Any, ...]) -> Convert:
    inner = tuple(_converter(arg) for arg in args)

    def convert(value: Any) -> Any:
        items = _items(value)
        if len(items) != len(inner):
            raise _BadValueError(" has the wrong length", str(len(items)), str(len(inner)))
        return tuple(_at(one, item, i) for i, (one, item) in enumerate(zip(inner, items, strict=True)))

    return convert


def freeze(value: Any) -> Any:
    """Lists become tuples and tables become pairs, so that what holds them is hashable."""
    if isinstance(value, Mapping):
        return tuple((key, freeze(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value
