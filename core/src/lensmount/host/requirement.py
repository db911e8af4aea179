"""Whether the lensmount distributions that a plugin requires are installed, in the versions that it requires."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any

#: The usual line: `lensmount-vision>=0.1,<0.2`, final releases only, no extras and no marker.
_PLAIN = re.compile(
    r"(lensmount(?:[-_.]\w+)*)\s*\(?\s*((?:(?:>=|<=|<|>)\s*\d+(?:\.\d+)*\s*,?\s*)*)\)?\s*", re.IGNORECASE
)
_CLAUSE = re.compile(r"(>=|<=|<|>)\s*(\d+(?:\.\d+)*)")
_OURS = re.compile(r"lensmount(?![^\W_])", re.I)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {">=": ge, "<=": le, "<": lt, ">": gt}


def unmet(line: str, version_of: Callable[[str], str | None]) -> str | None:
    """What is there instead of what a `Requires-Dist` line asks for of lensmount's distributions; None where it holds.

    The usual form is compared here: packaging takes 15 ms to import, which every listing of models would pay.

    Raises:
        packaging.requirements.InvalidRequirement: The line names a lensmount distribution and makes no sense.
    """
    line = line.strip()
    if _OURS.match(line) is None or re.search(r";.*\bextra\s*==", line):  # an extra may not have been asked for
        return None
    plain = _PLAIN.fullmatch(line)
    version = version_of(plain[1]) if plain else None
    if plain and version is not None and re.fullmatch(r"\d+(\.\d+)*", version):
        clauses = _CLAUSE.findall(plain[2])
        holds = all(_COMPARE[operator](_release(version), _release(bound)) for operator, bound in clauses)
        return None if holds else f"{plain[1]} {version}"
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    version = version_of(requirement.name)
    if version is None:
        return f"{requirement.name} is not installed"
    return None if requirement.specifier.contains(version, prereleases=True) else f"{requirement.name} {version}"


def _release(version: str) -> tuple[int, ...]:
    """Comparable numbers of a final release; trailing zeros mean nothing."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
