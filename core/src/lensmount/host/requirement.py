"""Whether this core is one that a plugin was made for: the one requirement that discovery checks itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any

#: The usual line: `lensmount>=0.1,<0.2`, final releases only, no extras and no marker.
_PLAIN_REQUIREMENT = re.compile(r"lensmount\s*\(?\s*((?:(?:>=|<=|<|>)\s*\d+(?:\.\d+)*\s*,?\s*)*)\)?\s*", re.IGNORECASE)
_CLAUSE = re.compile(r"(>=|<=|<|>)\s*(\d+(?:\.\d+)*)")
_NAMES_CORE = re.compile(r"lensmount(?![\w.-])", re.IGNORECASE)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {">=": ge, "<=": le, "<": lt, ">": gt}


def satisfied(line: str, version: str) -> bool:
    """Whether a requirement of a distribution holds, as far as it is about the core.

    The usual form is compared here: packaging takes 15 ms to import, which every listing of models would pay.

    Args:
        line: A `Requires-Dist` line.
        version: The core's version.

    Returns:
        True too for a line about something else, or one whose marker does not apply.

    Raises:
        packaging.requirements.InvalidRequirement: The line names the core and makes no sense.
    """
    line = line.strip()
    if _NAMES_CORE.match(line) is None:
        return True
    plain = _PLAIN_REQUIREMENT.fullmatch(line)
    if plain and re.fullmatch(r"\d+(\.\d+)*", version):
        return all(
            _COMPARE[operator](_release(version), _release(bound)) for operator, bound in _CLAUSE.findall(plain[1])
        )
    if re.search(r";.*\bextra\s*==", line):  # asked for by an extra, which may not have been installed
        return True
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    return requirement.specifier.contains(version, prereleases=True)


def _release(version: str) -> tuple[int, ...]:
    """Comparable numbers of a final release; trailing zeros mean nothing."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
