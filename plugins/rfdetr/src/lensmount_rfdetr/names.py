"""Which column of the classifier is which class.

Checkpoints trained on COCO have 91 columns, one per COCO category id from 0 to 90; ids 0 and ten others are of no
class. A fine-tuned checkpoint has one column per class, from 0, and a last one for the background that no object has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from lensmount.errors import ModelFileError
from lensmount.specs import read_catalog
from lensmount_reading import plain_text

NAMES = "lensmount.classes"  # the key in a graph's metadata
BACKGROUND, UNUSED = "__background__", "N/A"  # torchvision's words for them
_COCO_COLUMNS = 91
_OBJECTS365_COLUMNS = 366


@cache
def coco_by_id() -> tuple[str, ...]:
    """COCO's names by category id, from the catalogue; ids of no class have names too."""
    return next(card.classes for card in read_catalog("lensmount_rfdetr") if card.id == "rfdetr-nano")


def column_names(names: Sequence[str], columns: int, where: str) -> tuple[str, ...]:
    """Names of the classifier's columns, from the first; columns beyond the names are background and never reported.

    Args:
        names: Class names as the file or package has them; empty when there are none.
        columns: Columns of the classifier.
        where: The model, for messages.

    Raises:
        ModelFileError: There are more names than columns.
    """
    given = tuple(names)
    if not given:
        if columns == _COCO_COLUMNS:
            return coco_by_id()
        # Category ids again, so that the last column may be a class.
        count = columns if columns == _OBJECTS365_COLUMNS else max(columns - 1, 1)
        return tuple(f"class_{i}" for i in range(count))
    if columns == _COCO_COLUMNS and given in (_coco_flat(), coco_by_id()[1:]):
        return coco_by_id()
    if len(given) > columns:
        raise ModelFileError(
            f"{where} has more class names than its network has classes",
            found=f"{len(given)} names",
            expected=f"at most {columns}",
        )
    return given


def _coco_flat() -> tuple[str, ...]:
    """The 80 names without gaps, as most tools list them."""
    return tuple(name for name in coco_by_id() if name not in (BACKGROUND, UNUSED))


def names_of(value: Any) -> tuple[str, ...]:
    """Class names as checkpoints keep them: a list, or a table from id (0 or 1 upwards) to name; else none."""
    if isinstance(value, Mapping):
        try:
            table = {int(key): plain_text(name) for key, name in value.items()}
        except (TypeError, ValueError):
            return ()
        for first in (0, 1):
            if sorted(table) == list(range(first, first + len(table))):
                return _real(tuple(table[i] for i in sorted(table)))
        return ()
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return _real(tuple(value))
    return ()


def _real(names: tuple[str, ...]) -> tuple[str, ...]:
    """Nothing where they are transformers' placeholders."""
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def to_metadata(names: Sequence[str]) -> str:
    """Names as a graph's metadata holds them."""
    return json.dumps(list(names), ensure_ascii=False)


def from_metadata(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Names out of a graph's metadata; none where there are none.

    Raises:
        ModelFileError: The entry is no list of names.
    """
    text = metadata.get(NAMES)
    if not text:
        return ()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    names = names_of(value)
    if not names and value != []:
        raise ModelFileError(f"metadata {NAMES!r} of the graph is no list of class names", found=text[:80])
    return names
