"""What results share: choosing rows, comparing, checking class names and classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from lensmount.errors import InputError, OptionError
from lensmount_vision.results.formats import plain
from lensmount_vision.results.masks import Masks, checked_size

# What a result's dict may lack.
_OPTIONAL = frozenset(["path", "keypoint_names", "skeleton", "point_values", "prompt_id", "tracker_id"])

Self = TypeVar("Self", bound="Rows")


def class_name(class_names: Sequence[str], class_id: int) -> str:
    """The name of a class: `class_names[class_id]`, or `class_7` where there is none."""
    if 0 <= class_id < len(class_names) and class_names[class_id]:
        return class_names[class_id]
    return f"class_{class_id}"


class Record:
    """What all results share: a name of their kind, plain values of what they hold, and equality by value."""

    __slots__ = ()

    kind: ClassVar[str] = ""

    def __repr__(self) -> str:
        """One line: the class, what it holds, the picture's width and height, and its name."""
        size: tuple[int, int] | None = getattr(self, "image_size", None)
        path: str | None = getattr(self, "path", None)
        facts = [self.summary(), f"{size[1]}x{size[0]}" if size else "", re.split(r"[\\/]", path)[-1] if path else ""]
        return f"{type(self).__name__}({'; '.join(fact for fact in facts if fact)})"

    def summary(self) -> str:
        """What it holds, in a few words: `5: 4 person, 1 bus`."""
        return self.kind

    # What `to_dict` writes: fields that concern the whole result; and of each object, under a name of its own, a field.
    whole_fields: ClassVar[tuple[str, ...]] = ()
    object_fields: ClassVar[Mapping[str, str]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values, masks as run lengths; `results.from_dict` makes an equal result of them.

        The logits of prompted masks, which are large, are left out.
        """
        data = {"type": self.kind, **{name: plain(getattr(self, name)) for name in self.whole_fields}}
        if self.object_fields:
            values = {name: getattr(self, field) for name, field in self.object_fields.items()}
            columns = {name: plain(column) for name, column in values.items() if column is not None}
            data["objects"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return data

    @classmethod
    def fields_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a result of this class, from what `to_dict` gave.

        Raises:
            KeyError: Something is missing.
        """
        found = {name: data[name] for name in cls.whole_fields if name in data or name not in _OPTIONAL}
        stored = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        for name, field in cls.object_fields.items():
            objects = data["objects"]
            if field not in stored or (name in _OPTIONAL and not any(name in item for item in objects)):
                continue
            column = [item[name] for item in objects]
            found[field] = Masks.from_rle(column, checked_size(data["image_size"])) if name == "mask" else column
        return found

    def __eq__(self, other: object) -> bool:
        """Whether type and every field are equal, numbers exactly."""
        if type(self) is not type(other):
            return NotImplemented
        return all(
            _same(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash


class Rows(Record):
    """A result with one row per object."""

    __slots__ = ()

    # Fields that hold one entry per object (or None); the others describe the image or the model.
    row_fields: ClassVar[tuple[str, ...]] = ()

    def __len__(self) -> int:
        return len(getattr(self, self.row_fields[0]))

    def summary(self) -> str:
        """How many rows there are: `3`."""
        return str(len(self))

    def _named(self, key: str) -> Any:
        """The rows that a text chooses; a `TypeError` where rows have no names."""
        raise TypeError("these rows have no names")

    def __getitem__(self: Self, key: Any) -> Self:
        """The chosen objects, in the order asked for; of results with classes, a text takes those of that class.

        Raises:
            InputError: The key is no number, slice, index array or bool array for these rows.
        """
        try:
            chosen = np.atleast_1d(np.arange(len(self))[self._named(key) if isinstance(key, str) else key])
        except (IndexError, TypeError) as error:
            raise InputError(
                f"rows cannot be chosen by {key!r}"[:200],
                found=str(error),
                expected=f"a number, slice, index array or bool array for {len(self)} rows",
            ) from error
        if chosen.ndim != 1:
            raise InputError("rows are chosen by a key of one axis", found=f"{chosen.ndim} axes")
        columns = {name: getattr(self, name) for name in self.row_fields}
        parts = {name: None if column is None else column[chosen] for name, column in columns.items()}
        return replace(self, **parts)  # type: ignore[type-var]  # every subclass is a dataclass

    def __iter__(self: Self) -> Iterator[Self]:
        """One result of one object at a time."""
        return (self[index] for index in range(len(self)))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return bool(a == b)


def store(result: object, name: str, value: Any) -> None:
    """Puts a checked value into a frozen result, while it is being made."""
    object.__setattr__(result, name, value)


def checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names as a tuple of str, or `InputError`."""
    if isinstance(names, str):
        raise InputError("class names are a single text", found=repr(names), expected="a sequence of names")
    result = tuple(names)
    wrong = [name for name in result if not isinstance(name, str)]
    if wrong:
        raise InputError("class names are not all text", found=repr(wrong[0]), expected="str")
    return tuple(str(name) for name in result)


def resolve_classes(classes: Iterable[int | str] | int | str, class_names: Sequence[str]) -> list[int]:
    """Class ids for ids or names.

    Raises:
        OptionError: A name is not among `class_names`, or an item is neither a name nor a number.
    """
    items = [classes] if isinstance(classes, (str, int, np.integer)) else list(classes)
    ids: list[int] = []
    for item in items:
        if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
            ids.append(int(item))
            continue
        matches = [index for index in range(len(class_names)) if class_names[index] == item]
        if not matches:
            raise OptionError(
                f"there is no class {item!r}", expected="an id, or one of: " + ", ".join(class_names[:20])
            )
        ids += matches
    return ids
