"""Load options that say which column of a classifier is which class, where a file does not: checked once for all."""

from __future__ import annotations

from operator import index

from lensmount.errors import OptionError


def listed_names(value: object) -> tuple[str, ...]:
    """Class names of a load, a list or a text that is cut at commas, as a tuple.

    Raises:
        OptionError: It is no list of names, or an empty one.
    """
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise OptionError(
            "classes of a load are the class names in the order of the network's columns",
            found=repr(value)[:200],
            expected='a list of names, such as ["nut", "bolt"]',
        )
    return tuple(names)


def first_column(value: object) -> int:
    """The number of the column of the first name.

    Raises:
        OptionError: It is no whole number of 0 or more.
    """
    try:
        number = -1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]  # what is none raises
    except TypeError:
        number = -1
    if number < 0:
        raise OptionError(
            "class_offset is the column of the first class name", found=repr(value)[:200], expected="0, 1, …"
        )
    return number
