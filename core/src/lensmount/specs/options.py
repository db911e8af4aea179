"""Checks of call and load options, in one place, so that every plugin refuses the same values in the same words."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from lensmount.errors import OptionError, UnknownOptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["build_options", "check_names", "class_ids", "class_thresholds", "flag", "fraction", "is_whole", "meant"]
__all__ += ["one_of", "positive", "read_toml", "shipped"]

T = TypeVar("T")


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number: an int or one of numpy's, which `isinstance(value, int)` refuses; no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def fraction(name: str, value: object) -> float:
    """A number in [0, 1]; an int is taken as it stands (`confidence=1` means 1.0).

    Raises:
        OptionError: Not a number (a bool is not), or outside.
    """
    number = _number(name, value, "a number from 0 to 1")
    if not 0 <= number <= 1:
        raise OptionError(f"{name} is out of range", found=repr(value), expected="a number from 0 to 1")
    return number


def positive(name: str, value: object) -> int:
    """A whole number of at least 1.

    Raises:
        OptionError: Anything else.
    """
    number = _number(name, value, "a whole number of at least 1")
    if number < 1 or number != int(number):
        raise OptionError(f"{name} is out of range", found=repr(value), expected="a whole number of at least 1")
    return int(number)


def flag(name: str, value: object) -> bool:
    """True or False.

    Raises:
        OptionError: Anything else.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name} should be a flag", found=repr(value), expected="True or False")
    return value


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """One of the named values.

    Raises:
        OptionError: Anything else, with near matches.
    """
    if value not in allowed:
        expected, fix = ", ".join(allowed), meant(str(value), allowed)
        raise OptionError(f"{name} has an unknown value", found=repr(value), expected=expected, fix=fix)
    return str(value)


def _number(name: str, value: object, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionError(f"{name} has the wrong type", found=repr(value), expected=expected)
    number = float(value)
    if not math.isfinite(number):
        raise OptionError(f"{name} is not finite", found=repr(value), expected=expected)
    return number


def class_ids(classes: str | int | Iterable[str | int] | None, names: Sequence[str]) -> NDArray[np.int64] | None:
    """Class ids for a filter given as names or ids.

    Args:
        classes: One name or id, several, or None for all.
        names: Class names by id.

    Returns:
        Sorted unique ids, or None for all.

    Raises:
        OptionError: A name or id that the model does not have, with near matches.
    """
    if classes is None:
        return None
    import numpy as np

    ids: set[int] = set()
    for item in [classes] if isinstance(classes, str) or not isinstance(classes, Iterable) else classes:
        if isinstance(item, str):
            if item not in names:
                problem = "classes names a class that this model does not have"
                known = f"one of {len(names)} names such as {', '.join(list(names)[:5])}"
                raise OptionError(problem, found=repr(item), expected=known, fix=meant(item, names, 3))
            ids.update(i for i, name in enumerate(names) if name == item)
            continue
        number = int(_number("classes", item, "class names or ids"))
        if not 0 <= number < len(names):
            raise OptionError("classes holds an unknown id", found=repr(item), expected=f"0 to {len(names) - 1}")
        ids.add(number)
    return np.array(sorted(ids), dtype=np.int64)


def class_thresholds(
    confidence: float | Mapping[str | int, float], names: Sequence[str], default: float
) -> tuple[float, NDArray[np.float32] | None]:
    """Confidence thresholds, one for all classes or one per class.

    Args:
        confidence: One number, or a mapping from class name or id to one; classes not named take `default`.
        names: Class names by id.
        default: For classes that the mapping does not name.

    Returns:
        The lowest threshold, and an array of one per class, or None when all are the same.

    Raises:
        OptionError: A number outside [0, 1], or an unknown class.
    """
    if not isinstance(confidence, Mapping):
        return fraction("confidence", confidence), None
    import numpy as np

    table = np.full(len(names), fraction("confidence", default), np.float32)
    for key, value in confidence.items():
        table[class_ids(key, names)] = fraction(f"confidence[{key!r}]", value)
    return float(table.min()) if len(table) else default, table


def build_options(kind: type[T], values: Mapping[str, Any], subject: str, also: Iterable[str] = ()) -> T:
    """Builds a dataclass of options, refusing names that it does not have.

    Args:
        kind: The dataclass; its `__post_init__` checks values.
        values: What the user gave.
        subject: For the message: `architecture 'yolo'`.
        also: Names valid elsewhere, for near matches only.

    Raises:
        UnknownOptionError: A name is unknown.
    """
    check_names(values, [f.name for f in fields(kind)], subject, also)  # type: ignore[arg-type]  # dataclasses only
    return kind(**values)


def check_names(values: Mapping[str, Any], known: Iterable[str], subject: str, also: Iterable[str] = ()) -> None:
    """Refuses option names that are not known.

    Raises:
        UnknownOptionError: With near matches.
    """
    allowed = list(known)
    for name in values:
        if name not in allowed:
            everything = sorted({*allowed, *also})
            foreign = shipped("foreign_names")
            ours = [word for word in foreign["options"].get(name, ()) if word in everything]
            fix = f"did you mean {ours[0]!r}?" if ours else foreign["elsewhere"].get(name) or meant(name, everything)
            expected = ", ".join(everything) or "no options"
            raise UnknownOptionError(f"{subject} has no option {name!r}", expected=expected, fix=fix)


def meant(text: str, known: Iterable[str], count: int = 1) -> str | None:
    """What may have been meant by a word that is not known, whatever its case, as the fix of an error; or None."""
    words = {word.lower(): word for word in known}
    near = [words[word] for word in difflib.get_close_matches(text.lower(), words, count)]
    return f"did you mean {repr(near[0]) if count == 1 else ', '.join(near)}?" if near else None


@cache
def shipped(name: str) -> dict[str, Any]:
    """A table that comes in the core's wheel, by the name of its TOML file."""
    return read_toml((Path(__file__).parents[1] / f"{name}.toml").read_bytes())


def read_toml(content: bytes) -> dict[str, Any]:
    """What a TOML file says; a `ValueError` where it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(content.decode("utf-8"))
