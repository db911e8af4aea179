"""Prompts: checked, in one shape, and in the decoder's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import InputError
from lensmount_sam2.arrays import to_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_vision.images.geometry import Geometry

    Floats = NDArray[np.float32]

CORNERS = (2, 3)
NONE = -1


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Prompts:
    """P prompts on one picture.

    Attributes:
        points: float32 `(P, N, 2)` x, y in original pixels; N may be 0.
        labels: int64 `(P, N)`: 1 on the object, 0 off it, -1 for a place that does not count.
        boxes: float32 `(P, 4)` xyxy in original pixels, or None.
        masks: float32 `(P, 1, h, w)` low-resolution logits of earlier masks, or None.
        several: Whether the caller gave a list of prompts, be it of one.
    """

    points: Floats
    labels: NDArray[np.int64]
    boxes: Floats | None = None
    masks: Floats | None = None
    several: bool = False

    def __len__(self) -> int:
        return len(self.points)

    def elements(self, index: int) -> frozenset[tuple[float, ...]]:
        """The points and the box of one prompt, without order, to compare it with others."""
        rows = zip(self.points[index].tolist(), self.labels[index].tolist(), strict=True)
        found = {(x, y, float(label)) for (x, y), label in rows if label != NONE}
        box = set() if self.boxes is None else {tuple(self.boxes[index].tolist())}
        return frozenset(found | box)

    def encode(self, geometry: Geometry) -> tuple[Floats, NDArray[np.int64]]:
        """Points `(P, M, 2)` in network pixels and labels `(P, M)`: box corners first, then points, then a blank.

        The blank is a point of label -1; the networks were trained with it. A prompt of a mask alone has no point.
        """
        places, kinds = self.points, self.labels
        if self.boxes is not None:
            corners = self.boxes.reshape(-1, 2, 2)
            places = np.concatenate((corners, places), axis=1)
            kinds = np.concatenate((np.tile(np.array(CORNERS, np.int64), (len(self), 1)), kinds), axis=1)
        moved = geometry.points_to_network(places.astype(np.float64)).astype(np.float32)
        if not places.shape[1]:
            return moved, kinds
        blank = ((0, 0), (0, 1))
        return np.pad(moved, (*blank, (0, 0))), np.pad(kinds, blank, constant_values=NONE)


def check_prompts(
    points: Any,
    labels: Any,
    boxes: Any,
    masks: Any,
    *,
    image_size: tuple[int, int],
    mask_size: tuple[int, int],
    empty: bool = False,
) -> Prompts:
    """Checks what a caller gave for one picture.

    A box that reaches over the picture's edge, as detectors' do, ends at the edge.

    Args:
        points: `(N, 2)`, `(P, N, 2)` or None.
        labels: `(N,)`, `(P, N)` or None for all on the object.
        boxes: `(4,)`, `(P, 4)` or None.
        masks: `(h, w)`, `(1, h, w)`, `(P, 1, h, w)` or None.
        image_size: `(height, width)` that points must lie in, and boxes in part.
        mask_size: `(h, w)` of low-resolution logits.
        empty: Whether there may be no prompt, given as an empty list of them: what a detector that found nothing gives.

    Raises:
        InputError: A shape, a label or a number is not valid, or there is no prompt.
    """
    if points is None and labels is not None:
        raise InputError(
            "there are labels without points", found=f"labels {labels!r}"[:120], expected="point_coordinates as well"
        )
    if points is None and boxes is None and masks is None:
        raise InputError("there is no prompt", expected="points, boxes or a mask")
    parts: dict[str, tuple[Any, bool]] = {}
    if points is not None:
        parts["points"] = _points(points, image_size)
    if boxes is not None:
        parts["boxes"] = _boxes(boxes, image_size)
    if masks is not None:
        parts["mask_input"] = _masks(masks, mask_size)
    counts = {name: len(array) for name, (array, _) in parts.items()}
    shapes = {several for _, several in parts.values()}
    if len(set(counts.values())) > 1 or len(shapes) > 1:
        said = ", ".join(f"{n} {name}" + ("" if parts[name][1] else " (a single one)") for name, n in counts.items())
        raise InputError("the parts of the prompts differ in number", found=said, expected="one of each per prompt")
    count = next(iter(counts.values()))
    if count == 0 and not empty:
        raise InputError("there is no prompt", found="an empty list", expected="one or more")
    places = parts["points"][0] if points is not None else np.zeros((count, 0, 2), np.float32)
    return Prompts(
        points=places,
        labels=_labels(labels, places),
        boxes=parts["boxes"][0] if boxes is not None else None,
        masks=parts["mask_input"][0] if masks is not None else None,
        several=shapes == {True},
    )


def _points(values: Any, image_size: tuple[int, int]) -> tuple[Floats, bool]:
    array = _rows(_numbers("point_coordinates", values), (0, 1, 2))
    if array.ndim not in (2, 3) or array.shape[-1] != 2 or not array.shape[-2]:
        raise InputError(
            "point_coordinates have the wrong shape", found=str(array.shape), expected="(N, 2), or (P, N, 2), N >= 1"
        )
    _inside("a point", array, image_size)
    return array.reshape(-1, *array.shape[-2:]), array.ndim == 3


def _labels(values: Any, points: Floats) -> NDArray[np.int64]:
    if values is None:
        return np.ones(points.shape[:2], np.int64)
    expected = points.shape[:2]
    array = _rows(_numbers("point_labels", values), expected)
    if array.shape != expected and not (len(points) == 1 and array.shape == expected[1:]):
        raise InputError(
            "point_labels do not fit the points", found=str(array.shape), expected=f"{expected}: one per point"
        )
    if not np.isin(array, (NONE, 0, 1)).all():
        raise InputError(
            "a point's label is not known",
            found=str(np.setdiff1d(array, (NONE, 0, 1)).tolist()[:5]),
            expected="1 (on the object), 0 (off it) or -1 (does not count)",
        )
    return array.reshape(expected).astype(np.int64)


def _boxes(values: Any, image_size: tuple[int, int]) -> tuple[Floats, bool]:
    array = _rows(_numbers("boxes", values), (0, 4))
    if array.ndim not in (1, 2) or array.shape[-1] != 4:
        raise InputError("boxes have the wrong shape", found=str(array.shape), expected="(4,), or (P, 4), xyxy")
    flat = array.reshape(-1, 4)
    if (flat[:, 2:] <= flat[:, :2]).any():
        bad = flat[(flat[:, 2:] <= flat[:, :2]).any(axis=1)][0]
        raise InputError("a box is empty", found=str(bad.tolist()), expected="x1 < x2 and y1 < y2 (xyxy, not xywh)")
    height, width = image_size
    size = np.array((width, height, width, height), np.float32)
    clipped = np.clip(flat, 0, size)
    outside = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    if outside.any():
        raise _outside("a box", flat[outside][0], image_size)
    return clipped, array.ndim == 2


def _masks(values: Any, size: tuple[int, int]) -> tuple[Floats, bool]:
    array = _rows(_numbers("mask_input", values), (0, 1, *size))
    several = array.ndim == 4
    if array.shape not in (size, (1, *size)) and not (several and array.shape[1:] == (1, *size)):
        raise InputError(
            "mask_input has the wrong shape",
            found=str(array.shape),
            expected=f"{(1, *size)}, or {('P', 1, *size)}: low-resolution logits of an earlier result",
            fix="pass result.logits[i:i + 1] of the mask to refine",
        )
    return array.reshape(-1, 1, *size), several


def _numbers(name: str, values: Any) -> Floats:
    try:
        array = to_array(values)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"dtype {array.dtype}")
        made = array.astype(np.float32)
    except (TypeError, ValueError, InputError) as error:
        found = error.details if isinstance(error, InputError) else str(error)
        raise InputError(f"{name} are not numbers in rows of equal length", found=found[:200]) from error
    if not np.isfinite(made).all():
        raise InputError(f"{name} are not finite", found="NaN or infinity", expected="numbers")
    return made


def _inside(what: str, places: Floats, image_size: tuple[int, int]) -> None:
    height, width = image_size
    x, y = places[..., 0], places[..., 1]
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    if outside.any():
        raise _outside(what, places[outside][0], image_size)


def _outside(what: str, place: Floats, image_size: tuple[int, int]) -> InputError:
    height, width = image_size
    return InputError(
        f"{what} lies outside the picture",
        found=str(place.tolist()),
        expected=f"x in 0..{width}, y in 0..{height}, in original pixels",
    )


def _rows(array: Floats, shape: tuple[int, ...]) -> Floats:
    """An empty list, which has lost its rows' length, as no rows of this shape."""
    return array.reshape(0, *shape[1:]) if array.shape == (0,) and shape[0] == 0 else array


def per_image(name: str, value: Any, count: int, depth: int) -> Sequence[Any]:
    """What each of several pictures was given.

    A list or tuple has one entry per picture (None for none); an array is for every picture. With a single picture a
    list is its prompt itself, unless it holds one array.

    Args:
        name: For the message.
        value: What the caller gave.
        count: Number of pictures.
        depth: Axes that a single prompt has (2 for points, 1 for labels and boxes).

    Raises:
        InputError: The list has another length.
    """
    if value is None or not isinstance(value, list | tuple):
        return [value] * count
    if count == 1:
        wrapped = len(value) == 1 and hasattr(value[0], "ndim") and value[0].ndim >= depth
        return list(value) if wrapped or value == [None] else [value]
    if len(value) != count:
        raise InputError(
            f"{name} has another number of entries than there are pictures",
            found=f"{len(value)} entries",
            expected=f"{count}, one per picture, or an array that is for all",
        )
    return list(value)
