"""Files that a recogniser knows and its architecture does not run: told by names of tensors, inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lensmount_reading.text import listing, printable

if TYPE_CHECKING:
    from lensmount.contracts import NotRunnable
    from lensmount_reading.facts import FileFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """One kind of file that is known and not run.

    Each mark is a regular expression for a whole name; wrappers' prefixes that end in a dot may stand before it.

    Attributes:
        what: What such a file is, after "is": "a SigLIP".
        runs_with: What runs it, or what to load in its place.
        tensors: Marks that each fit the name of some stored tensor.
        inputs: Marks that each fit the name of some graph input.
        outputs: Marks that each fit the name of some graph output.
        operators: Beginnings of operators' names, one of which the graph has.
        without: Marks that fit no tensor's name.
    """

    what: str
    runs_with: str
    tensors: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def met(self, facts: FileFacts) -> list[str] | None:
        """Names by which a file is told to be of this kind; None where it is none."""
        found: list[str] = []
        graph = facts.kind == "onnx"
        if graph and not (self.inputs or self.outputs or self.operators):
            return None  # the names of initializers are whatever the exporter made of them
        for label, marks, names in (
            ("tensor", self.tensors, facts.tensors),
            ("input", self.inputs, [value.name for value in facts.inputs]),
            ("output", self.outputs, [value.name for value in facts.outputs]),
        ):
            hits = [_first(mark, names) for mark in marks]
            if None in hits:
                return None
            found += [f"{label} {printable(hit, 60)}" for hit in hits if hit is not None]
        if self.operators:
            held = facts.onnx.operators if facts.onnx else ()
            operator = next((name for name in held if name.rpartition("::")[2].startswith(self.operators)), None)
            if operator is None:
                return None
            found.append(f"operator {printable(operator, 60)}")
        return None if any(_first(mark, facts.tensors) is not None for mark in self.without) else found


def _first(mark: str, names: Iterable[str]) -> str | None:
    """The first name that a mark fits."""
    pattern = re.compile(rf"(?:^|\.)(?:{mark})\Z")
    return next((name for name in names if pattern.search(name)), None)


def first_stranger(facts: FileFacts, kinds: Sequence[Stranger]) -> NotRunnable | None:
    """What a recogniser answers for a file of the first of these kinds that fits; None where none does.

    Args:
        facts: The file's.
        kinds: The special ones before the general ones.
    """
    from lensmount.contracts import NotRunnable

    for kind in kinds:
        found = kind.met(facts)
        if found:
            return NotRunnable(kind.what, listing(found, 6), kind.runs_with)
    return None
