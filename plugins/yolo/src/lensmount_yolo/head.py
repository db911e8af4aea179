"""What the outputs of a YOLO graph mean: raw predictions, or rows of final boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lensmount.errors import ModelFileError

Shape = Sequence[int | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How to read the main output.

    Attributes:
        kind: `raw` is `(B, 4 + classes + extra, N)`, centre x, centre y, width, height in network pixels and one
            score per class; `rows` is `(B, M, 6 + extra)`: x1, y1, x2, y2 (of oriented boxes centre x, centre y, width,
            height), score, class, best first, zero-padded.
        classes: Number of classes; None for rows, which do not tell.
        extra: Values after them: 32 mask coefficients, keypoints, an angle.
        output: Name of the main output.
        prototypes: Name of the output with mask prototypes `(B, extra, h, w)`; None without.
    """

    kind: Literal["raw", "rows"]
    classes: int | None
    extra: int
    output: str
    prototypes: str | None = None


def read_head(
    outputs: Sequence[tuple[str, Shape]], *, names: int = 0, extra: int = 0, end2end: bool | None = None
) -> Head:
    """Works out what a graph's outputs mean.

    Args:
        outputs: Names and shapes, in order.
        names: Number of class names known, which decides where shapes alone do not; 0 when unknown.
        extra: Values per box after the classes that the task adds; overruled by the prototypes' channels.
        end2end: What the graph's metadata says; None when it does not.

    Raises:
        ModelFileError: The outputs are none of the known forms.
    """
    described = str([(name, tuple(shape)) for name, shape in outputs])
    main = [(name, shape) for name, shape in outputs if len(shape) == 3]
    protos = [(name, shape) for name, shape in outputs if len(shape) == 4]
    if len(main) != 1 or len(protos) > 1 or len(main) + len(protos) != len(outputs):
        raise ModelFileError(
            "the graph's outputs are not those of a YOLO network",
            found=described,
            expected="one output (B, 4 + classes, N) or (B, M, 6), and (B, 32, h, w) for masks",
        )
    name, shape = main[0]
    proto_name = protos[0][0] if protos else None
    if protos and isinstance(protos[0][1][1], int):
        extra = protos[0][1][1]
    rows, columns = shape[1], shape[2]
    as_rows = columns == 6 + extra and not (names and rows == 4 + names + extra)
    # What a YOLO says of its head stays in the graphs that suppression was added to: there the shapes are right.
    told = end2end is False and not (names and isinstance(rows, int))
    if end2end or (as_rows and not told):
        if isinstance(columns, int) and columns != 6 + extra:
            raise ModelFileError(
                "the graph says that its rows are final boxes, but their length is not that of a box",
                found=described,
                expected=f"(B, M, {6 + extra})",
            )
        return Head(kind="rows", classes=names or None, extra=extra, output=name, prototypes=proto_name)
    if isinstance(rows, int):
        classes = rows - 4 - extra
        if classes < 1 or (isinstance(columns, int) and columns < rows and classes > columns):
            raise ModelFileError(
                "the graph's main output is not that of a YOLO network",
                found=described,
                expected=f"(B, 4 + classes{f' + {extra}' if extra else ''}, N)",
            )
        return Head(kind="raw", classes=classes, extra=extra, output=name, prototypes=proto_name)
    if not names:
        raise ModelFileError(
            "the graph neither fixes its number of classes nor names them",
            found=described,
            expected="a fixed second dimension, or class names in metadata or class_names.txt",
        )
    return Head(kind="raw", classes=names, extra=extra, output=name, prototypes=proto_name)
