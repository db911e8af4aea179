"""Which column of the classifier is which class.

Checkpoints trained on COCO have 91 columns, one per COCO category id from 0 to 90; ids 0 and ten others are of no
class. Fine-tuned checkpoints have their classes from column 0 and the background last; those of rfdetr up to 1.4.1 on
COCO labels from 1 have the background in column 0 and their classes from column 1; those on YOLO labels have a column
for each class. The file's `num_classes` tells them apart; where it does not, the user says it or the load is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lensmount.errors import ModelFileError, OptionError
from lensmount.specs import read_catalog

NAMES = "lensmount.classes"  # the key in a graph's metadata
SAID = "lensmount.classes_said"  # what a checkpoint says of its classes, on the way to the model
LAYOUT = "class layout: "  # how the card's note of it begins
BACKGROUND, UNUSED = "__background__", "N/A"  # torchvision's words for them
_COCO_COLUMNS = 91
GRAPH = "names by column in the graph's metadata"
_MAX_ID = 100_000  # of a table; a name far off would be a table of gaps


@cache
def coco_by_id() -> tuple[str, ...]:
    """COCO's names by category id, from the catalogue; ids of no class have names too."""
    return next(card.classes for card in read_catalog("lensmount_rfdetr") if card.id == "rfdetr-nano")


@dataclass(frozen=True, slots=True)
class Said:
    """What a checkpoint says of its classes.

    Attributes:
        names: Class names in the file's order; empty when it has none.
        ids: The ids of `names` where the file keeps a table from id to name; empty for a list.
        counts: Values of `num_classes`, without repeats: files of newer versions have it in two places.
        by: Where the ids are from, if not from the checkpoint itself.
    """

    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    by: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """Names on their columns.

    Attributes:
        names: One for each column of the classifier: every column can be reported.
        layout: Which layout that is, and by what it was recognised; one line.
    """

    names: tuple[str, ...]
    layout: str


def place(
    said: Said, columns: int, where: str, *, classes: Sequence[str] | None = None, offset: int | None = None
) -> Placed:
    """Which column of the classifier has which name.

    Args:
        said: What the file says.
        columns: Columns of the classifier.
        where: The model, for messages.
        classes: Names that the user gave in the place of the file's own.
        offset: Column of the first name, where the user said so.

    Raises:
        ModelFileError: There are more names than columns, or the file fits two layouts, or none.
        OptionError: What the user gave does not fit.
    """
    own = tuple(classes or ())
    names = own or _filled(said)
    if offset is not None:
        _check_offset(names, columns, offset, where)
        return _at(names, columns, offset, f"the load's class_offset={offset}")
    if len(own) > columns:
        raise OptionError(
            f"classes has more names than the network of {where} has columns",
            found=f"{len(own)} names",
            expected=f"at most {columns}",
        )
    if own:
        return _own(said, own, columns)
    if not names:
        return _unnamed(columns)
    if columns == _COCO_COLUMNS and set(said.counts) <= {90, 91} and said.names in _coco_lists():
        return Placed(coco_by_id(), "COCO's category ids, by 91 columns and COCO's names")
    if _from_one(said, columns):
        return _at(said.names, columns, 0, f"the file's table of names by id, one for each of {columns} columns")
    _check_count(said, len(names), columns, where)
    readings = _readings(said, columns)
    if len(readings) != 1:
        raise _ambiguous(said, columns, where, readings)
    ((start, why),) = readings.items()
    return _at(names, columns, start, why)


def _check_count(said: Said, count: int, columns: int, where: str) -> None:
    last = said.ids[-1] if said.ids else count - 1
    if last >= columns:
        raise ModelFileError(
            f"{where} has more class names than its network has classes",
            found=f"names up to id {last}" if said.ids else f"{count} names",
            expected=f"at most {columns}" if not said.ids else f"ids up to {columns - 1}",
            fix="load it with classes=[...], the names in the order of the network's columns",
        )


def describe(said: Said, columns: int, where: str) -> tuple[tuple[str, ...], str]:
    """Names and layout for a card; a file that only a load option makes clear has no names, and a line that says so."""
    try:
        placed = place(said, columns, where)
    except ModelFileError as error:
        why = " ".join(str(error).split())
        return (), f"{LAYOUT}undecided, and a load without class_offset or classes is refused: {why}"
    return placed.names, f"{LAYOUT}{placed.layout}"


def _own(said: Said, names: tuple[str, ...], columns: int) -> Placed:
    """Names that the user gave: on the file's layout where that is sure, else from column 0."""
    if columns == _COCO_COLUMNS and names in _coco_lists():
        return Placed(coco_by_id(), "COCO's category ids, by 91 columns and the load's classes")
    readings = _readings(Said(names, (), said.counts), columns)
    if len(readings) == 1:
        ((start, why),) = readings.items()
        return _at(names, columns, start, f"the load's classes; {why}")
    return _at(names, columns, 0, "the load's classes, from column 0")


def _unnamed(columns: int) -> Placed:
    if columns == _COCO_COLUMNS:
        return Placed(coco_by_id(), "COCO's category ids, by 91 columns without names")
    return Placed(tuple(f"class_{i}" for i in range(columns)), "numbers, for want of names; one may be the background")


def _readings(said: Said, columns: int) -> dict[int, str]:
    """Column of the first name by each thing that tells it, and what that is; two columns where they disagree."""
    count = len(said.names)
    if said.ids:
        by = said.by or f"the file's table of names by id, {said.ids[0]} to {said.ids[-1]}"
        found = {said.ids[0] if said.ids[0] <= 1 else 0: by}
        if said.ids[0] > 1 or count != said.ids[-1] - said.ids[0] + 1:
            return found  # a table with gaps is no list in disguise
    elif count == columns:
        return {0: f"a name for each of {columns} columns"}
    else:
        found = {}
    if count + 1 == columns:
        for value in said.counts:
            if value == columns:
                found.setdefault(
                    1,
                    f"rfdetr up to 1.4.1 on COCO labels from 1, by num_classes {value} = columns = "
                    f"names ({count}) + 1: column i + 1 is name i, column 0 the background",
                )
            elif value == count:
                found.setdefault(
                    0,
                    f"labels from 0 and the background last, by num_classes {value} = names = "
                    f"columns ({columns}) - 1: column i is name i",
                )
    return found


def _from_one(said: Said, columns: int) -> bool:
    """A table from 1 upwards with one name for each column."""
    return said.ids == tuple(range(1, columns + 1))


def _ambiguous(said: Said, columns: int, where: str, readings: Mapping[int, str]) -> ModelFileError:
    names = _filled(said)
    counts = " and ".join(map(str, said.counts)) or "not given"
    shown = []
    for start in (0, 1):
        ends = [(start, names[0]), (start + len(names) - 1, names[-1])][: len(names)]
        columns_of = ", ".join(f"column {column} is {name[:40]!r}" for column, name in ends)
        why = f" ({readings[start]})" if start in readings else ""
        shown.append(f"class_offset={start}: {columns_of}{why}")
    return ModelFileError(
        f"{where} does not say which column of its network has which class name",
        found=f"names: {len(names)}, columns: {columns}, num_classes: {counts}",
        expected=f"one of two readings: {'; or '.join(shown)}",
        fix="load it with class_offset=0 or class_offset=1, or with classes=[...], a name for each column",
    )


def _check_offset(names: Sequence[str], columns: int, offset: int, where: str) -> None:
    if not names:
        raise OptionError(
            f"class_offset says where names begin, and {where} has none",
            found=f"class_offset={offset}",
            fix="give classes=[...] as well, or leave class_offset out",
        )
    if offset + len(names) > columns:
        raise OptionError(
            "class_offset leaves no column for the last names",
            found=f"{len(names)} names from column {offset}",
            expected=f"at most {columns} columns",
            fix=f"class_offset={max(columns - len(names), 0)} or less",
        )


def _at(names: Sequence[str], columns: int, start: int, layout: str) -> Placed:
    """Names from a column on. The one column left over is the background; of several, none says what they are."""
    spare = columns - len(names)
    filled = [BACKGROUND if spare == 1 else f"class_{i}" for i in range(columns)]
    filled[start : start + len(names)] = names
    if spare > 1:
        layout += f"; {spare} columns without a name are reported by number"
    return Placed(tuple(filled), layout)


def _filled(said: Said) -> tuple[str, ...]:
    """Names in a row from id 0 or 1; ids of a table that are of no class are called so."""
    if not said.ids:
        return said.names
    table = dict(zip(said.ids, said.names, strict=True))
    first = said.ids[0] if said.ids[0] <= 1 else 0
    return tuple(table.get(i, UNUSED) for i in range(first, said.ids[-1] + 1))


@cache
def _coco_lists() -> tuple[tuple[str, ...], ...]:
    """COCO's names as files keep them: the 80 without gaps, as most tools list them, and by id, from 0 or 1."""
    flat = tuple(name for name in coco_by_id() if name not in (BACKGROUND, UNUSED))
    return flat, coco_by_id(), coco_by_id()[1:]


def read_said(value: Any, counts: Iterable[Any] = ()) -> Said:
    """Class names as checkpoints keep them: a list, or a table from id to name; anything else is none.

    Args:
        value: The names.
        counts: Values of `num_classes`; those that are no counts are left out.
    """
    found = tuple(dict.fromkeys(int(n) for n in counts if isinstance(n, int) and not isinstance(n, bool) and n > 0))
    if isinstance(value, Mapping):
        try:
            table = dict(sorted((int(key), str(name)) for key, name in value.items()))
        except (TypeError, ValueError):
            return Said(counts=found)
        ids = tuple(table)
        if not ids or ids[0] < 0 or ids[-1] > _MAX_ID or not _real(tuple(table.values())):
            return Said(counts=found)
        return Said(tuple(table.values()), ids, found)
    return Said(names_of(value), (), found)


def names_of(value: Any) -> tuple[str, ...]:
    """Names out of a list of them; none where it is no such list."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return _real(tuple(value))
    return ()


def _real(names: tuple[str, ...]) -> tuple[str, ...]:
    """Nothing where they are transformers' placeholders."""
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def chosen(
    said: Said | None, columns: int, where: str, *, package: Sequence[str], graph: Sequence[str], card: Sequence[str]
) -> Said:
    """What is said of a model's classes: by its package, else its graph or checkpoint, else its card.

    Args:
        said: What the checkpoint says; None for a graph.
        columns: Columns of the classifier.
        where: The model, for messages.
        package: Lines of the package's `class_names.txt`.
        graph: Names in the graph's metadata.
        card: Classes of the card.

    Raises:
        ModelFileError: There are more names than columns.
    """
    if package:
        return by_column(package, columns, where, "a line for each column in the package's class_names.txt")
    if said is not None and said.names:
        return said
    if graph:
        return by_column(graph, columns, where, GRAPH)
    if card and tuple(card) != _unnamed(columns).names:
        return by_column(card, columns, where, "the card's classes, by column")
    return said or Said()


def by_column(names: Sequence[str], columns: int, where: str, by: str) -> Said:
    """Names whose first is that of column 0, whatever the columns are; `by` is who says so.

    Raises:
        ModelFileError: There are more names than columns.
    """
    given = tuple(names)
    if columns == _COCO_COLUMNS and given in _coco_lists():
        return Said(given)
    _check_count(Said(given), len(given), columns, where)
    return Said(given, tuple(range(len(given))), by=by)


def said_to_metadata(said: Said) -> str:
    """What a checkpoint says, for the metadata of its network."""
    return json.dumps([said.names, said.ids, said.counts], ensure_ascii=False)


def said_from_metadata(metadata: Mapping[str, str]) -> Said | None:
    """What `said_to_metadata` wrote; None for graphs."""
    text = metadata.get(SAID)
    if text is None:
        return None
    names, ids, counts = json.loads(text)
    return Said(tuple(names), tuple(ids), tuple(counts))


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
