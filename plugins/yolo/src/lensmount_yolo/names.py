"""Which column of a YOLO's scores is which class, and by what that was recognised.

Files keep names as a list or as a table from id to name; nothing keeps tools from writing tables with gaps, tables from
1, COCO's 80 names for a head of 91 columns, or more or fewer names than the head has columns. What has one reading only
is read so, and the card says which; what has two, or none, is refused unless the load says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lensmount.errors import ModelFileError, OptionError
from lensmount.specs import read_catalog

LAYOUT = "class layout: "  # how the card's note of it begins
_BACKGROUND, _UNUSED = "__background__", "N/A"  # torchvision's words for columns of no class
_COCO_IDS = 91
#: COCO's category ids of no class (cocodataset.org: 80 of 90 ids are annotated); 0 is the background.
_COCO_UNUSED = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))


@dataclass(frozen=True, slots=True)
class Placed:
    """Names on their columns.

    Attributes:
        names: One for each column of the scores; of rows of final boxes, which do not tell how many there are, one for
            each known id.
        layout: Which layout that is, and by what it was recognised; one line.
    """

    names: tuple[str, ...]
    layout: str


def place(
    names: Sequence[str],
    ids: Sequence[int],
    columns: int | None,
    where: str,
    *,
    classes: Sequence[str] | None = None,
    offset: int | None = None,
) -> Placed:
    """Which column has which name.

    Args:
        names: Class names in the file's order; empty where it has none.
        ids: Their ids, ascending, where the file's table is no plain list from 0 on; else empty.
        columns: Columns of the scores; None for rows of final boxes, which name a class by its number.
        where: The model, for messages.
        classes: Names that the user gave in the place of the file's own, from column 0 on.
        offset: Column of the first name, where the user said so.

    Raises:
        ModelFileError: The names fit the columns in two ways, or in none.
        OptionError: What the user gave does not fit.
    """
    given = tuple(classes or ())
    if given or offset is not None:
        return _as_told(given or tuple(names), bool(given), columns, offset or 0, where)
    found = tuple(names)
    if not found:
        return Placed(tuple(f"class_{i}" for i in range(columns or 0)), "numbers, for want of names")
    if columns is None:
        return _of_rows(found, tuple(ids), where)
    if not ids and len(found) == columns:
        return Placed(found, f"a name for each of {columns} columns")
    if ids and ids[-1] < columns:
        by = f"the file's table of names by id, {ids[0]} to {ids[-1]}"
        return Placed(_filled(found, ids, columns), f"{by}; {columns - len(ids)} of {columns} columns have no name")
    if ids and len(found) == columns:
        why = f"ids {ids[0]} to {ids[-1]} in their order, one name for each of {columns} columns"
        return Placed(found, f"the file's table of names, {why}")
    coco = _as_coco(found, columns)
    if coco is not None:
        return coco
    raise _misfit(found, ids, columns, where)


def describe(
    names: Sequence[str], ids: Sequence[int], columns: int | None, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and notes for a card; a file that only a load option makes clear has no names, and a note that says so."""
    if not names:
        return (), ("the file holds no class names",)
    try:
        placed = place(names, ids, columns, where)
    except ModelFileError as error:
        why = " ".join(str(error).split())
        return (), (f"{LAYOUT}undecided, and a load without classes or class_offset is refused: {why}",)
    return placed.names, (f"{LAYOUT}{placed.layout}",)


def _as_told(names: tuple[str, ...], own: bool, columns: int | None, offset: int, where: str) -> Placed:
    if not names:
        raise OptionError(
            f"class_offset says where names begin, and {where} has none",
            found=f"class_offset={offset}",
            fix="give classes=[...] as well, or leave class_offset out",
        )
    if columns is not None and offset + len(names) > columns:
        raise OptionError(
            f"{'classes has' if own else 'the file has'} more names than the network of {where} has columns for",
            found=f"{len(names)} names from column {offset}",
            expected=f"at most {columns - offset}",
        )
    by = f"the load's {'classes' if own else 'class_offset'}, from column {offset}"
    return Placed(_filled(names, range(offset, offset + len(names)), columns), by)


def _filled(names: Sequence[str], ids: Sequence[int], columns: int | None) -> tuple[str, ...]:
    """Names at their ids; what has none is numbered, so that every column can be reported."""
    table = dict(zip(ids, names, strict=True))
    return tuple(table.get(i, f"class_{i}") for i in range(ids[-1] + 1 if columns is None else columns))


def _of_rows(names: tuple[str, ...], ids: tuple[int, ...], where: str) -> Placed:
    if not ids:
        return Placed(names, "names by the class number of each row")
    if ids[0] == 0:
        return Placed(_filled(names, ids, None), f"the file's table of names by id, 0 to {ids[-1]}, which has gaps")
    raise ModelFileError(
        f"{where} does not say which class number of its rows has which name",
        found=f"names by id, {ids[0]} to {ids[-1]}, and rows of final boxes, which do not tell how many classes exist",
        expected=f"one of two readings: {names[0][:40]!r} is class 0 (class_offset=0), or class {ids[0]} "
        f"(class_offset={ids[0]})",
        fix=f"load it with class_offset=0 or class_offset={ids[0]}, or with classes=[...], a name for each number",
    )


@cache
def _coco() -> tuple[str, ...]:
    """COCO's 80 names in their order, from the catalogue."""
    return next(card.classes for card in read_catalog("lensmount_yolo") if card.id == "yolov8n-640")


def _as_coco(names: tuple[str, ...], columns: int) -> Placed | None:
    """COCO's names on 80 columns or on its 91 (or, without the background, 90) ids; None for anything else."""
    flat = _coco()
    if tuple(name for name in names if name not in (_BACKGROUND, _UNUSED)) != flat:
        return None
    kept = f"{len(names)} names, which are COCO's"
    if columns == len(flat):
        return Placed(flat, f"COCO's 80 classes without gaps, by {columns} columns and {kept}")
    by_id = list(flat)
    for number in sorted(_COCO_UNUSED):
        by_id.insert(number - 1, _UNUSED)
    if columns == _COCO_IDS:
        return Placed((_BACKGROUND, *by_id), f"COCO's category ids 0 to 90, by {columns} columns and {kept}")
    if columns == _COCO_IDS - 1:
        return Placed(tuple(by_id), f"COCO's category ids 1 to 90 from column 0 on, by {columns} columns and {kept}")
    return None


def _misfit(names: tuple[str, ...], ids: Sequence[int], columns: int, where: str) -> ModelFileError:
    found = f"{columns} classes, {len(names)} names" + (f" with ids {ids[0]} to {ids[-1]}" if ids else "")
    if ids or len(names) > columns:
        expected, fix = f"one name for each of {columns} classes", "classes=[...], the names in the columns' order"
    else:
        last = columns - len(names)
        readings = [f"class_offset={start}: column {start} is {names[0][:40]!r}" for start in dict.fromkeys((0, last))]
        expected = f"one of the readings: {'; or '.join(readings)}"
        fix = f"class_offset=0 or class_offset={last}, or with classes=[...], the names in the columns' order"
    return ModelFileError(
        f"the network of {where} predicts another number of classes than it has names for",
        found=found,
        expected=expected,
        fix=f"load it with {fix}",
    )
